"""Counts first, ratios after: how good masks are, and how sure that is.

Read in this order: ``metrics`` makes scores of a confusion matrix; ``intervals`` computes their 95
% intervals; ``boundaries`` scores outlines, ``panoptic`` objects, and ``curves`` probabilities;
``evaluation`` scores models and folders of masks; ``comparison`` sets two side by side;
``baselines`` scores what needs no network; ``suspects`` ranks the masks that look wrong.
"""
