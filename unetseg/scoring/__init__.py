"""Counts first, ratios after: how good masks are, and how sure that is.

Read in this order:

- ``metrics`` makes scores of a confusion matrix.
- ``intervals`` computes their 95 % intervals.
- ``boundaries`` scores outlines, ``panoptic`` objects, and ``curves`` probabilities.
- ``predictions`` makes the masks that are scored, and keeps them.
- ``truth`` reads true masks, and ``made_masks`` those that any program made.
- ``subjects`` brings images, truth and predictions together, without images trained on.
- ``evaluation`` scores models and folders of masks.
- ``comparison`` sets two models or folders of masks side by side.
- ``baselines`` scores simple methods that need no network.
- ``suspects`` ranks the masks that look wrong.
"""
