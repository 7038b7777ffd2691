"""``unetseg count-objects``: an example of a plug-in, which is one function with annotations.

What takes long to import is imported inside the function, so that ``unetseg count-objects --help``
stays quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from unetseg.cli import console
from unetseg.errors import InputError


def count_objects(
    masks: Annotated[list[Path], typer.Argument(metavar="MASK", help="Masks, such as PNG.")],
    min_pixels: Annotated[
        int, typer.Option("--min-pixels", min=1, help="Leave out what is smaller than this.")
    ] = 1,
    background: Annotated[
        int, typer.Option("--background", min=0, help="The value that is no object.")
    ] = 0,
) -> None:
    """Count the objects of each class in masks.

    An object is a set of pixels of one value that touch at an edge or a corner.

    Example:
        unetseg count-objects predictions/*.png --min-pixels 20
    """
    import numpy as np
    from imageio.v3 import imread
    from scipy import ndimage

    rows = []
    for path in masks:
        try:
            mask = imread(path.read_bytes())  # (H, W) mask values
        except OSError as error:
            raise InputError(path, error.strerror or "not an image", "check the name") from None
        if mask.ndim != 2:
            raise InputError(path, f"{mask.ndim} dimensions", "give masks of one value a pixel")
        for value in np.unique(mask[mask != background]):
            objects, _ = ndimage.label(mask == value, structure=np.ones((3, 3)))
            pixels = np.bincount(objects.ravel())[1:]  # one number an object
            pixels = pixels[pixels >= min_pixels]
            rows.append((path.name, int(value), len(pixels), int(pixels.sum())))
    console.print_table("Objects", ["mask", "class", "objects", "pixels"], rows)
