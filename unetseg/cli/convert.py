"""``unetseg convert``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next, print_table, swatch
from unetseg.text import plural, quote

_KIND = "Kind of the masks"


def convert(
    source: Annotated[Path, Argument(metavar="SOURCE", help="The set to repair; not touched.")],
    folder: Annotated[Path, Argument(metavar="FOLDER", help="A new or empty folder.")],
    instances: Annotated[
        bool,
        Option(
            "--instances",
            help="Masks number objects, or each shape is an object. Objects and their borders "
            "become classes.",
            rich_help_panel=_KIND,
        ),
    ] = False,
    fov: Annotated[
        str | None,
        Option(
            "--fov",
            metavar="FOLDER",
            help="Folder of masks of the field of view, such as mask; pixels outside are ignored.",
            rich_help_panel=_KIND,
        ),
    ] = None,
    order: Annotated[
        str | None,
        Option(
            "--order",
            metavar="A,B",
            help="The classes, the topmost last, where masks of one class each overlap.",
            rich_help_panel=_KIND,
        ),
    ] = None,
    limit: Annotated[
        float,
        Option(
            "--limit",
            help="Share of a mask that may be blends of classes.",
            rich_help_panel=_KIND,
            **options.SHARE,
        ),
    ] = 0.05,
    line_width: options.LineWidth = None,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace the files of an earlier conversion.")
    ] = False,
) -> None:
    """Repair labelled images into images/, masks/ and classes.toml in a new folder.

    It reads masks with blended or noisy colours, JPEG masks, and one file for each class. It also
    reads exports of CVAT, LabelMe, COCO, YOLO, VIA, Supervisely, Label Studio, QuPath, nnU-Net and
    Roboflow. Lists train.txt, val.txt and test.txt become folders, as parts of a divided set do.

    Example:
        unetseg convert MYSET CLEAN
        unetseg convert CELLS CLEAN --instances
        unetseg convert DRIVE/training CLEAN --fov mask
    """
    from unetseg.dataset.conversion.copying import convert_folder
    from unetseg.progress import Note

    with ProgressDisplay() as display:
        display(Note(f"converting {source} into {folder}; {source} is not touched"))
        done = convert_folder(
            source,
            folder,
            classes=classes,
            ignore=options.ignored(ignore),
            instances=instances,
            fov=fov,
            order=[name.strip() for name in order.split(",")] if order else (),
            limit=limit,
            line_width=line_width,
            overwrite=overwrite,
            on_progress=display,
        )
    rows = [(swatch(c.colour), c.name, str(c.value)) for c in done.classes.classes]
    print_table("Classes as written", ["", "class", "in masks"], rows)
    if done.snapped:
        print_line(
            f"{done.snapped:,} pixels ({_percent(done.snapped, done.pixels)}) went to the nearest "
            f"class; {done.blended:,} of them ({_percent(done.blended, done.pixels)}) are blends."
        )
    if done.ignored:
        share = _percent(done.ignored, done.pixels)
        print_line(f"{done.ignored:,} pixels ({share}) are ignored (255).")
    if done.objects is not None:
        print_line(f"{plural(done.objects, 'object')}, numbered in objects/.")
    if done.left_out:
        print_line(f"{plural(len(done.left_out), 'image')} in no list, left out.")
    for path, count in zip(done.folders, done.images, strict=True):
        print_line(f"Wrote {plural(count, 'labelled image')} to {path}.")
    made = quote(folder if len(done.folders) > 1 else done.folders[0])
    print_next(f"unetseg check {made}", f"unetseg train {made} --budget 10m")


def _percent(count: int, total: int) -> str:
    return f"{100 * count / max(total, 1):.2f} %"
