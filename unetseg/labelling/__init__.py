"""The labelling page: strokes in, masks on the disk, and answers to a stroke.

Read in this order:

- ``project`` is the folder that is labelled.
- ``journal`` saves each stroke until it is in a mask.
- ``session`` says where a stroke leads to.
- ``server`` and ``security`` answer the page, whose files lie in ``page/``.
- ``tiles`` cuts pictures for the page.
- ``regions`` stop a brush at edges.
- ``engine`` runs the head of ``unetseg.features`` beside the page.
- ``rounds`` trains a network behind the page, by commands in ``child`` processes.
- ``starting_model`` is a trained model whose predictions are corrected from the start.
- ``running_score`` says which of head, network and model is better.
"""
