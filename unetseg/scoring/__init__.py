"""Counts first, ratios after: how good masks are, and how sure that is.

Read in this order: ``metrics`` makes scores of a confusion matrix; ``intervals`` says how sure they
are; ``boundaries`` scores outlines; ``evaluation`` scores models and folders of masks;
``comparison`` sets two side by side; ``baselines`` scores what needs no network; ``suspects`` ranks
the masks that look wrong.
"""
