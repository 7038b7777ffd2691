"""``unetseg synth``."""

from pathlib import Path
from typing import Annotated

from typer import Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next
from unetseg.settings import SynthSettings
from unetseg.text import plural, quote


@options.takes_settings
def synth(
    *,
    n: Annotated[int, Option("--n", help="Images in OUT/train.")] = 100,
    n_test: Annotated[int, Option("--n-test", help="Images in OUT/test.")] = 10,
    settings: SynthSettings,
    out: Annotated[Path, Option("--out", metavar="FOLDER", help="Where the set goes.")] = Path(
        "data"
    ),
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a set that is there.")] = False,
) -> None:
    """Make a synthetic set with a known answer: lines and ellipses on a noisy background.

    Image i depends on the seed and on i alone, so that a longer set begins with the shorter one.
    No test image is ever a training image.

    Example:
        unetseg synth --n 100
        unetseg synth --n 20 --contrast 0.3 --out hard
    """
    from unetseg.dataset.synthesis import synthesize

    with ProgressDisplay() as display:
        train, test = synthesize(
            out,
            n=n,
            n_test=n_test,
            settings=settings,
            overwrite=overwrite,
            on_progress=display,
        )
    print_line(f"Wrote {plural(n, 'image')} to {train} and {n_test:,} to {test}, with their masks.")
    default = out == Path("data")
    paths = "" if default else f" {quote(train)} --out {quote(out / 'patches.h5')}"
    print_next(f"unetseg patch{paths}")
