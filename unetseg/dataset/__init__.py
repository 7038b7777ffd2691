"""From a folder of labelled images to a patch store.

Read in this order:

- ``naming`` compares the names of images and masks.
- ``shapes`` draws polygons, run lengths, bitmaps, ellipses and lines.
- ``parts`` joins the folders of a set that is divided already.
- ``exports`` is a folder that reads the exports of annotation tools.
- ``pairing`` finds the mask of each image in any folder.
- ``splits`` holds images out.
- ``survey`` looks at each pair.
- ``findings`` is a folder that judges the set.
- ``geometry`` places windows, and weighs them where they overlap.
- ``spreading`` labels the pixels that strokes leave open in training images.
- ``folder`` reads a folder of labelled images once.
- ``cutting`` cuts its images into patches.
- ``store`` is the file of patches.
- ``store_writer`` writes that file.
- ``synthesis`` draws a set whose answer is known.
- ``conversion`` is a folder that repairs the labels of other programs.
"""
