"""``unetseg compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_table
from unetseg.settings import PredictSettings

if TYPE_CHECKING:
    from unetseg.scoring.comparison import Comparison, Difference

_OUT = "What is written"


@options.takes_settings
def compare(
    a: Annotated[
        str, Argument(metavar="A", help="A run, a model file, or a folder of masks of any program.")
    ],
    b: Annotated[str, Argument(metavar="B", help="The same; is it better than A?")],
    folder: Annotated[
        Path | None,
        Argument(
            metavar="FOLDER",
            help="Labelled images.",
            show_default="data/test, else the images the stores of both models held out",
        ),
    ] = None,
    *,
    include_trained: options.IncludeTrained = False,
    group: options.Groups = None,
    settings: PredictSettings,
    json_file: Annotated[
        Path | None,
        Option("--json", metavar="FILE", help="Write all numbers.", rich_help_panel=_OUT),
    ] = None,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Replace the file of --json.", rich_help_panel=_OUT)
    ] = False,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Say whether one model is better than another, or whether it is chance.

    Both are scored on the same images, without those that either was trained on. The interval is of
    the difference, image by image: where it holds 0, no difference is shown.

    Example:
        unetseg compare default wide
        unetseg compare default OTHER_MASKS MYTEST --json difference.json
    """
    from unetseg.cli.tables import write_json
    from unetseg.scoring.comparison import compare as compare_models

    options.check_writable(overwrite, json_file)
    with ProgressDisplay() as display:
        found = compare_models(
            a,
            b,
            folder,
            settings=settings,
            include_trained=include_trained,
            classes=classes,
            ignore=options.ignored(ignore),
            group=group,
            on_progress=display,
        )
    _print(found)
    write_json(json_file, found.to_dict())


def _print(found: "Comparison") -> None:
    from unetseg.cli.tables import cut
    from unetseg.text import plural, show

    columns = ["IoU", "A", "B", "B - A", "95 %", "won", "lost", "tied"]
    rows = [(cut(name), *_cells(one)) for name, one in found.classes.items()]
    title = f"A: {show(found.a)}; B: {show(found.b)}; {plural(len(found.scores_a.names), 'image')}"
    print_table(title, columns, [*rows, ("mean", *_cells(found.mean))])
    print_line(f"mean IoU: {_verdict(found.mean)} (over {found.scores_a.units_in_words})")
    for better, words in (("B", "B is better"), ("A", "A is better"), ("", "no difference shown")):
        names = [show(name) for name, one in found.classes.items() if one.better == better]
        if names:
            print_line(f"  {words}: {', '.join(names)}")
    if found.losses:
        print_line("B loses most in:")
    for loss in found.losses:
        text = f"{show(loss.name)}: {loss.a:.3f} -> {loss.b:.3f}, most of it {show(loss.weakest)}"
        print_line(f"  {text}")


def _cells(one: "Difference") -> tuple[object, ...]:
    difference = None if one.difference is None else f"{one.difference:+.3f}"
    ends = f"{one.ci95[0]:+.3f} to {one.ci95[1]:+.3f}" if one.ci95 else None
    return one.a, one.b, difference, ends, one.won, one.lost, one.tied


def _verdict(mean: "Difference") -> str:
    """Return the result of comparing the means, in words."""
    if mean.better == "":
        return "no difference shown"
    if mean.better is None or mean.ci95 is None:
        return "too few images for an interval"
    low, high = sorted(map(abs, mean.ci95))
    return f"{mean.better} is better, by {low:.3f} to {high:.3f} at 95 % confidence"
