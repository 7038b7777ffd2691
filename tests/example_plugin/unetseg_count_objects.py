from pathlib import Path
from typing import Annotated

import typer

from unetseg.cli import console


def count_objects(
    masks: Annotated[list[Path], typer.Argument(metavar="MASK", help="Masks, such as PNG.")],
    min_pixels: Annotated[int, typer.Option(min=1, help="Leave out what is smaller.")] = 1,
) -> None:
    """Count the objects of each value in masks; pixels that touch at a corner are of one object."""
    import numpy as np  # in here, so that `unetseg count-objects --help` stays quick
    from PIL import Image
    from scipy import ndimage

    rows = []
    for path in masks:
        mask = np.asarray(Image.open(path))  # (H, W) values
        for value in np.unique(mask[mask > 0]):
            objects, _ = ndimage.label(mask == value, np.ones((3, 3)))
            pixels = np.bincount(objects.ravel())[1:]
            rows.append((path.name, int(value), int((pixels >= min_pixels).sum())))
    console.print_table("Objects", ["mask", "value", "objects"], rows)
