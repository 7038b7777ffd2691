"""From a folder of labelled images to a patch store.

Read in this order: ``pairing`` finds the mask of each image; ``survey`` looks at each pair and says
what is wrong; ``annotations``, ``snapping`` and ``conversion`` read and repair the labels of other
programs; ``geometry`` places tiles; ``cutting`` cuts images into patches; ``store`` is the file of
patches; ``synthesis`` draws a set whose answer is known.
"""
