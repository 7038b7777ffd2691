"""``unetseg synth``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from unetseg.cli.console import Reporter, print_line, print_next
from unetseg.text import quote

_HARD = "How hard the set is"


def synth(
    n: Annotated[int, Option("--n", help="Images in OUT/train.")] = 100,
    n_test: Annotated[int, Option("--n-test", help="Images in OUT/test.")] = 10,
    height: Annotated[int, Option("--height", help="Rows of an image.")] = 400,
    width: Annotated[int, Option("--width", help="Columns of an image.")] = 200,
    seed: Annotated[int, Option("--seed", help="The same seed draws the same images.")] = 0,
    noise: Annotated[
        float,
        Option("--noise", help="Standard deviation of the background.", rich_help_panel=_HARD),
    ] = 0.1,
    contrast: Annotated[
        float,
        Option(
            "--contrast",
            help="How far shapes stand out from the background, 0 to 1.",
            rich_help_panel=_HARD,
        ),
    ] = 1.0,
    max_shapes: Annotated[
        int,
        Option("--max-shapes", help="Most lines, and most ellipses.", rich_help_panel=_HARD),
    ] = 9,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="Where the set goes.")] = Path(
        "data"
    ),
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a set that is there.")] = False,
) -> None:
    """Make a synthetic set with a known answer: lines and ellipses on a noisy background.

    Image i depends on the seed and on i alone: a longer set begins with the shorter one, and no
    test image is ever a training image.

    Example:
        unetseg synth --n 100
        unetseg synth --n 20 --contrast 0.3 --out hard
    """
    from unetseg.dataset.synthesis import SynthSettings, synthesize

    settings = SynthSettings(height, width, seed, noise, contrast, max_shapes)
    with Reporter() as report:
        train, test = synthesize(
            out,
            n=n,
            n_test=n_test,
            settings=settings,
            overwrite=overwrite,
            on_progress=report,
        )
    print_line(f"Wrote {n} images to {train} and {n_test} to {test}, with their masks.")
    default = out == Path("data")
    paths = "" if default else f" {quote(train)} --out {quote(out / 'patches.h5')}"
    print_next(f"unetseg patch{paths}")
