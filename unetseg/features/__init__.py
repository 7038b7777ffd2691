"""The features of each pixel, and a head that learns classes from few painted ones.

Read in this order:

- ``encoder_weights`` finds the weights of the pretrained encoder.
- ``extraction`` describes the pixels of an image.
- ``head`` learns classes from painted pixels.
"""
