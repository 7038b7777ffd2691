"""``unetseg predict``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next, print_table
from unetseg.errors import InputError, PartialFailure
from unetseg.settings import PredictSettings
from unetseg.text import plural, quote, show

_SMALL = 10  # pixels: smaller objects are specks rather than things


@options.takes_settings
def predict(
    inputs: Annotated[list[Path], Argument(metavar="INPUT", help="Images, or folders of them.")],
    model: options.Models = None,
    *,
    settings: PredictSettings,
    out: Annotated[
        Path, options.output("--out", metavar="FOLDER", help="Where the masks go.")
    ] = Path("predictions"),
    format: Annotated[
        str,
        options.output(
            "--format",
            help="Format of masks and confidence: png, tif or auto. auto is tif for GeoTIFFs, "
            "whose place on the map is kept, and for images over 100 megapixels.",
        ),
    ] = "auto",
    overlay: Annotated[
        bool | None,
        options.output(
            "--overlay/--no-overlay", help="Draw masks over images.", show_default="up to 20 images"
        ),
    ] = None,
    overlay_size: Annotated[
        int,
        options.output(
            "--overlay-size",
            metavar="PIXELS",
            min=1,
            help="Longest side of an overlay; larger images are reduced.",
        ),
    ] = 2000,
    probabilities: Annotated[
        bool,
        options.output(
            "--probabilities",
            help="Write (class, row, column) float32 TIFFs, too; NaN where a pixel has no data.",
        ),
    ] = False,
    confidence: Annotated[
        bool,
        options.output(
            "--confidence",
            help="Write how sure each pixel is as grey pictures, too: 255 is certain, 0 has no "
            "data.",
        ),
    ] = False,
    objects: Annotated[
        list[str] | None,
        options.output(
            "--objects",
            metavar="CLASS",
            help="Tell touching objects of this class, or of all, apart. Label images, outlines "
            "and a table are written. May be repeated.",
        ),
    ] = None,
    fov: Annotated[
        Path | None,
        Option(
            "--fov",
            metavar="FOLDER",
            help="Masks of the field of view, named like the images; pixels outside are ignored.",
            rich_help_panel="Images",
        ),
    ] = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", help="Replace files that unetseg did not write.")
    ] = False,
) -> None:
    """Write a mask for every image, in the encoding of the masks trained on.

    Images may be of any size. A second run skips the masks that it finds, if model, image and
    options are the same. summary.csv has the area, the objects and the confidence of each class.

    Example:
        unetseg predict img.png --stride 48
        unetseg predict NEWIMAGES/ --model wide --out masks --mode blend
        unetseg predict SLIDES/ --min-size 50 --fill-holes cell --confidence
        unetseg predict CELLS/ --objects cell
    """
    from unetseg.prediction.session import predict as predict_images

    with ProgressDisplay() as display:
        done = predict_images(
            list(inputs),
            model=model or "default",
            out=out,
            settings=settings,
            format=format,
            overlay=overlay,
            probabilities=probabilities,
            confidence=confidence,
            objects=objects or (),
            fov=fov,
            overlay_size=overlay_size,
            overwrite=overwrite,
            on_progress=display,
        )
        if len(done.failed) == 1 and not done.written and not done.skipped:
            raise done.failed[0][1]  # the only image: nothing else is to be said
        for _, error in done.failed:
            display.fail(error)
    if done.written:
        print_table(*done.tables()[0]._replace(note=""))
    kept = f", {len(done.skipped)} were there already" if done.skipped else ""
    overlays = f"; look at {done.overlays[0]}" if done.overlays else ""
    table = f"; the table is {done.summary}" if done.summary.exists() else ""
    if done.objects:
        table += f", that of the objects {done.objects}"
    print_line(f"Wrote {plural(len(done.written), 'mask')} to {out}{kept}{table}{overlays}.")
    are_small = any(median and median < _SMALL for median in done.medians.values())
    if are_small and not settings.min_size:
        text = f"half of the objects are smaller than {_SMALL} pixels"
        print_line(f"{text}: --min-size {_SMALL} leaves them out")
    if done.unlike:
        count = plural(len(done.unlike), "of them is", "of them are")
        print_line(f"{count} unlike the images trained on: look at those first")
    if done.failed:
        total = len(done.failed) + len(done.written) + len(done.skipped)
        text = f"{len(done.failed):,} of {total:,} images failed; the rest are done"
        if len(done.failed) == total:
            raise InputError("predict", f"all {total:,} images failed", "see the errors above")
        raise PartialFailure("predict", text, "mend them and run the same line again")
    chosen = "".join(f" --model {quote(show(name))}" for name in model or ())
    chosen += "".join(f" --objects {quote(show(name))}" for name in objects or ())
    print_next(f"unetseg evaluate{chosen}")
