"""``unetseg patch``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_next
from unetseg.cli.tables import print_store
from unetseg.settings import PatchSettings
from unetseg.text import quote


@options.takes_settings
def patch(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Labelled images: images/ and masks/.")
    ] = Path("data/train"),
    *,
    settings: PatchSettings,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
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

    with ProgressDisplay() as display:
        summary = build_store(
            folder,
            out,
            settings,
            classes=classes,
            ignore=options.ignored(ignore),
            overwrite=overwrite,
            on_progress=display,
        )
    print_store(summary)
    print_next("unetseg train" + ("" if out == Path("data/patches.h5") else f" {quote(out)}"))
