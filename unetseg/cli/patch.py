"""``unetseg patch``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import Reporter, print_next
from unetseg.cli.tables import print_store
from unetseg.text import quote


def patch(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Labelled images: images/ and masks/.")
    ] = Path("data/train"),
    size: options.Size = "auto",
    per_image: options.PerImage = "auto",
    rare: options.Rare = 1 / 3,
    val: options.Val = 0.2,
    group: options.Group = None,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    scale: options.Scale = 1.0,
    page: options.Page = None,
    seed: Annotated[int, Option("--seed", help="Seed of the split and of the corners.")] = 0,
    out: Annotated[Path, Option("--out", metavar="FILE", help="The store to write.")] = Path(
        "data/patches.h5"
    ),
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace a store that is there.")
    ] = False,
) -> None:
    """Cut labelled images into a patch store, and hold some images out whole.

    Images and masks are paired by their names; classes are read from classes.toml, or from the
    masks. The split is by image, or by group, never by patch.

    Example:
        unetseg patch --size 96 --per-image 20
        unetseg patch MYFOLDER --group '^(.*)_' --ignore 255
    """
    from unetseg.dataset.cutting import build_store

    with Reporter() as report:
        summary = build_store(
            folder,
            out,
            options.patch_settings(size, per_image, rare, val, group, scale, seed, page),
            classes=classes,
            ignored=options.ignored(ignore),
            overwrite=overwrite,
            on_progress=report,
        )
    print_store(summary)
    print_next("unetseg train" + ("" if out == Path("data/patches.h5") else f" {quote(out)}"))
