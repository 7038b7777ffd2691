"""Labels as annotation tools export them, read into pairs and classes.

Read in this order:

- ``search`` finds the tool that exported a folder.
- ``labelme``, ``coco``, ``yolo``, ``via``, ``supervisely``, ``label_studio``, ``qupath`` and
  ``nnunet`` read a tool each.
- ``export`` is the set that they return, gathers the labels of each image, and joins parts.
- ``beside`` finds pictures that no shape labels.
- ``extent`` asks about images that may have been enlarged after they were labelled.
- ``values`` finds the files that labels name, and checks numbers.
- ``class_lists`` reads tables of classes beside masks.
- ``unread`` names formats that none of them reads.
"""
