"""``unetseg suggest``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next, print_table
from unetseg.errors import PartialFailure
from unetseg.settings import PredictSettings
from unetseg.text import few, plural, quote, show

if TYPE_CHECKING:
    from unetseg.prediction.suggestions import Suggestions

_FEW = 3  # names shown in a message


@options.takes_settings
def suggest(
    source: Annotated[Path, Argument(metavar="FOLDER", help="Images, labelled ones among them.")],
    *,
    model: options.Models = None,
    n: Annotated[int, Option("--n", min=1, help="Images to choose.")] = 10,
    labelled: Annotated[
        Path | None,
        Option(
            "--labelled",
            metavar="FOLDER",
            help="The images labelled so far; those like them are not chosen.",
            show_default="the folder that the model's patches were cut from",
        ),
    ] = None,
    out: Annotated[
        Path,
        options.output(
            "--out", metavar="FOLDER", help="Where images and their masks go, to be corrected."
        ),
    ] = Path("suggested"),
    overwrite: Annotated[
        bool,
        options.output("--overwrite", help="Replace earlier suggestions, corrected masks too."),
    ] = False,
    settings: Annotated[PredictSettings, ("page", "channels", "crop", "device")],
) -> None:
    """Choose the images to label next, and write a mask of each to correct.

    The command chooses images that the model is unsure of. They are unlike the labelled images,
    unlike each other, and like many others. Images that are labelled already are left out.

    Example:
        unetseg suggest NEWIMAGES/
        unetseg suggest NEWIMAGES/ --model wide --n 20 --out round2
    """
    from unetseg.prediction.suggestions import suggest_images

    with ProgressDisplay() as display:
        done = suggest_images(
            source,
            model=model or "default",
            n=n,
            out=out,
            labelled=labelled,
            settings=settings,
            overwrite=overwrite,
            on_progress=display,
        )
        for _, error in done.failed:
            display.fail(error)
    print_table(*done.tables()[0])
    print_line(f"Wrote {plural(len(done.chosen), 'image')} with their masks to {out}.")
    if done.same_names:
        names = few(done.same_names, _FEW)
        print_line(
            f"{plural(len(done.same_names), 'of them has', 'of them have')} the name of a labelled "
            f"image ({show(names)}): "
            "rename image and mask before you add them."
        )
    copying = _copying(done)
    print_line(f"Correct the masks in {out / 'masks'} with any editor, then add the pairs.")
    if done.pair and not copying:
        names = f"{show(done.pair.image.name)} and {show(done.pair.mask.name)}"
        print_line(f"Name them as those of {show(done.labelled)} are, such as {names}.")
    print_next(*copying, _training(done, model or ["default"]))
    if done.failed:
        text = f"{plural(len(done.failed), 'image')} could not be read; the rest are done"
        raise PartialFailure("suggest", text, "mend them and run again")


def _copying(done: "Suggestions") -> list[str]:
    """Return the commands that add the corrected pairs to the labelled images.

    The list is empty where the files need other names first.
    """
    where = (done.labelled or Path("MYFOLDER")).joinpath
    parts = [where("images"), where("masks")]
    if pair := done.pair:
        parts = [pair.image.parent, pair.mask.parent]
        if parts[0] == parts[1] or pair.image.stem != pair.mask.stem:
            return []
    copy = "copy" if os.name == "nt" else "cp -i"
    return [
        f"{copy} {quote(show(done.out / name))}{os.sep}* {quote(show(part))}"
        for name, part in zip(("images", "masks"), parts, strict=True)
    ]


def _training(done: "Suggestions", models: list[str]) -> str:
    """Return the command that trains on the labelled pairs, old and new."""
    from unetseg.prediction.run_folder import RunFolder, resolve_model

    line = f"unetseg train {quote(show(done.labelled or 'MYFOLDER'))}"
    if done.labelled is None or not (done.labelled / "classes.toml").exists():
        line += f" --classes {quote(show(done.out / 'classes.toml'))}"
    line += "".join(f" --{name} {quote(value)}" for name, value in done.cutting.items())
    if len(models) == 1 and len(resolve_model(models[0])) == 1:
        line += f" --from {quote(show(models[0]))}"
    number = 2
    while RunFolder(f"round{number}").path.exists():
        number += 1
    return f"{line} --run round{number} --budget 10m"
