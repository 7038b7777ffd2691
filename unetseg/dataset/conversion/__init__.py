"""Sets whose labels other programs keep in their own ways, repaired into a copy.

Read in this order:

- ``mask_files`` reads masks, lossy ones, too.
- ``views`` reads masks of the field of view.
- ``annotations`` are the labels of a set, whichever way they are kept.
- ``drawn_shapes``, ``image_masks``, ``object_masks`` and ``class_masks`` read a way each.
- ``lists`` divides a set by the lists that it has.
- ``copying`` writes the copy.
"""
