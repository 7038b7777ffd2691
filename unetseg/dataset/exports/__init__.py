"""Labels as annotation tools export them, read into pairs and classes.

Read in this order:

- ``search`` finds the tool that exported a folder.
- ``labelme``, ``coco``, ``yolo``, ``via``, ``supervisely``, ``label_studio``, ``qupath`` and
  ``nnunet`` read a tool each.
- ``export`` is the set that they return, and gathers the labels of each image.
- ``beside`` finds pictures that no shape labels.
- ``values`` finds the files that labels name, and checks numbers.
- ``joining`` makes one set of its parts.
- ``class_lists`` reads tables of classes beside masks.
- ``unread`` names formats that none of them reads.
"""
