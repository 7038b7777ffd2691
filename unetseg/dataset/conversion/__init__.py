"""Sets whose labels other programs keep in their own ways, repaired into a copy.

Read in this order:

- ``annotations`` reads the labels into class indices.
- ``copying`` writes the copy.
"""
