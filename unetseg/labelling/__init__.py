"""The labelling page: strokes in, masks on the disk, and the head that answers a stroke.

Read in this order: ``project`` is the folder that is labelled; ``journal`` saves each stroke until
it is in a mask; ``session`` says where a stroke leads to; ``server`` and ``security`` answer the
page, whose files lie in ``page/``; ``tiles`` cuts pictures for it; ``regions`` stop a brush at
edges. Four modules predict: ``features`` describes the pixels of an image, and ``head`` learns
classes from painted ones; ``engine`` runs both beside the page; ``rounds`` trains a network behind
it. ``running_score`` says which of the two is better.
"""
