"""Image files in and out: this folder knows no data set and no network.

Read in this order:

- ``opening`` judges a file before anything is decoded.
- ``tiff`` reads TIFF, whole or by tiles.
- ``reading`` returns whole images and masks.
- ``writing`` writes images and masks.
- ``bands`` reads and writes images larger than the memory.
- ``masks`` turns stored values into class indices, or says why a mask cannot be read.
- ``discovery`` finds the classes of a set of masks, and asks where they are open.
- ``snapping`` leads blended and noisy colours to the nearest class, where that is safe.
- ``transforms`` changes depth, channels and scale.
- ``drawing`` paints masks over images.
- ``georeference`` keeps the place on a map.
- ``surroundings`` finds areas that all masks ignore, and strips at the edges.
"""
