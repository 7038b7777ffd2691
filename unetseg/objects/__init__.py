"""Objects of a mask: how many, how large, where.

Read in this order:

- ``numbering`` tells masks that number objects from masks that hold classes.
- ``counting`` numbers the connected areas of a mask, also band by band, and mends them.
- ``separation`` tells touching objects apart.
- ``borders`` draws numbered objects, each with a border of a class of its own.
- ``measurement`` gives a row of numbers for each object.
- ``outlines`` makes polygons of objects.
- ``files`` writes numbers, rows and polygons beside a mask.
"""
