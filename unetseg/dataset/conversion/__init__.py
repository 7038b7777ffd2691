"""Sets whose labels other programs keep in their own ways, repaired into a copy.

Read in this order:

- ``mask_files`` reads masks, lossy ones, too.
- ``views`` reads masks of the field of view.
- ``annotations`` reads the labels into class indices.
- ``copying`` writes the copy.
"""
