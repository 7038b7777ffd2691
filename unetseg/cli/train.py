"""``unetseg train``."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from unetseg.cli import options
from unetseg.cli.boundary import IS_SILENT
from unetseg.cli.console import ProgressDisplay, print_line, print_next, print_table
from unetseg.errors import InputError, arg
from unetseg.progress import Note
from unetseg.settings import PatchSettings, TrainSettings
from unetseg.text import format_duration, plural, show

if TYPE_CHECKING:
    from unetseg.dataset.pairing import LabelledSet
    from unetseg.training.folds import CrossValidation
    from unetseg.training.loop import TrainResult

_RUN = "The run"
_CUTTING = tuple(name for name in options.OPTIONS[PatchSettings] if name != "seed")


@options.takes_settings
def train(
    ctx: Context,
    source: Annotated[
        Path | None,
        Argument(
            metavar="STORE|FOLDER",
            help="A patch store, or a folder of labelled images, which is cut into patches first.",
            show_default="data/patches.h5",
        ),
    ] = None,
    *,
    settings: TrainSettings,
    folds: Annotated[
        int | None,
        Option(
            "--folds",
            metavar="K",
            help="Train K models on a folder, each without one part of the images. So every image "
            "gets a mask and a score by a model that never saw it. Epochs are those of each model; "
            "the budget is for all models.",
            show_default="one model",
            rich_help_panel="How long",
        ),
    ] = None,
    start_from: options.From = None,
    run: options.Run = "default",
    resume: Annotated[
        bool, Option("--resume", help="Go on where the run stopped.", rich_help_panel=_RUN)
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Start again in its folder.", rich_help_panel=_RUN)
    ] = False,
    html: Annotated[
        Path | None,
        Option(
            "--html",
            metavar="FILE",
            help="Write a page that shows the scores, the worst and best images, and with --folds "
            "the masks that are probably wrong.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    cutting: Annotated[PatchSettings, _CUTTING],
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Train a U-Net; the run's folder holds the model, its history and pictures.

    The model is saved as training goes on. The final model has a score from whole images that
    training never saw. Ctrl-C saves the run, and --resume goes on exactly there.

    Example:
        unetseg train --epochs 100
        unetseg train MYFOLDER --budget 10m
        unetseg train MYFOLDER --folds 5 --budget 10m --html report.html
        unetseg train --run wide --width 32
        unetseg train --resume --run wide
    """
    from unetseg.prediction.run_folder import RunFolder

    given = options.given(ctx, options.OPTIONS[TrainSettings])
    options.check_writable(overwrite, html)
    if folds is not None and options.given(ctx, ["val"]):
        text = f"excludes {arg('val')}, as each image is held out once"
        raise InputError(arg("folds"), text, f"leave {arg('val')} out")
    display, report = _display()
    place = RunFolder(run)
    found: Path | LabelledSet | None = source
    if not IS_SILENT and (overwrite or place.state() == "new"):
        found = _announce(source, cutting, classes, display)
    arguments: dict[str, Any] = {
        **{name: getattr(settings, name) for name in given},
        "run": run,
        "patches": cutting if options.given(ctx, _CUTTING) else None,
        "classes": classes,
        "ignore": options.ignored(ignore),
        "start_from": start_from,
        "resume": resume,
        "overwrite": overwrite,
        "started": ctx.find_object(float) or time.monotonic(),
        "on_progress": report,
    }
    if folds is None and not (resume and place.folds.exists()):
        _train_one(found, arguments, html, display)
    else:
        _train_folds(found, folds, arguments, html, display)


def _announce(
    source: Path | None, cutting: PatchSettings, classes: Path | None, display: ProgressDisplay
) -> "Path | LabelledSet | None":
    """Say which images or patches there are, by names and headers; return the source.

    It is the first line of the command, so this function does without the import of torch. A folder
    is returned with its pairs, so that the training need not pair its files again.

    Raises:
        InputError: The folder holds no images with masks, or the file is no patch store.
    """
    from unetseg.dataset.pairing import read_set
    from unetseg.dataset.store import open_store

    path = source or Path("data/patches.h5")
    if path.is_file():
        store = open_store(path, verify=False)  # it is verified when it is trained on
        display(Note(f"{store.line()}, from {plural(len(store.info.sources), 'image')}"))
    if not path.is_dir():
        return source
    selection = cutting.selection
    found = read_set(path, classes, selection=selection, line_width=cutting.line_width)
    if found.problem:
        raise found.problem
    first = found.pairs[0].read_info(selection)
    size = f"{first.height} x {first.width} pixels, {plural(first.channels, 'channel')}"
    count = plural(len(found.pairs), "image with a mask", "images with masks")
    display(Note(f"{show(path)}: {count}; the first has {size}"))
    return found


def _display() -> tuple[ProgressDisplay, Callable[[object], None]]:
    """Return the display of a training, and the function that shows one record on it."""
    from unetseg.cli.tables import print_store
    from unetseg.dataset.cutting import StoreSummary

    display = ProgressDisplay()

    def report(record: object) -> None:
        if isinstance(record, StoreSummary):
            display.pause()
            print_store(record)
        else:
            display(record)

    return display, report


def _train_one(
    source: "Path | LabelledSet | None",
    arguments: dict[str, Any],
    html: Path | None,
    display: ProgressDisplay,
) -> None:
    """Train one model, write its page, and print how it did."""
    from unetseg.ranks import join
    from unetseg.training.run import train as train_run

    with display:
        with join() as ranks:
            if html:
                from unetseg.reports.gathering import after_training, report_training

                arguments["after"] = after_training()
            result = train_run(source, **arguments)
        if not ranks.is_writer:
            return
        if html and result.scores:
            passed, overwrite = arguments["after"].passed, arguments["overwrite"]
            report_training(html, result.scores, result.run, passed, overwrite, display)
    _print_result(result)
    if html and result.scores:
        _print_page(html)


def _train_folds(
    source: "Path | LabelledSet | None",
    folds: int | None,
    arguments: dict[str, Any],
    html: Path | None,
    display: ProgressDisplay,
) -> None:
    """Train a model for each fold, write their page, and print how they did."""
    from unetseg.reports.gathering import baselines_of_folds, report_folds, seconds_after_folds
    from unetseg.scoring.baselines import compare_with_baselines
    from unetseg.training.folds import cross_validate

    with display:
        arguments["after"] = lambda record: seconds_after_folds(record, bool(html))
        budget = None if arguments["resume"] else arguments.get("budget")
        until = math.inf if budget is None else arguments["started"] + budget
        result = cross_validate(source, folds=folds, **arguments)
        baselines = baselines_of_folds(result, until, display)
        if html:
            report_folds(html, result, baselines, arguments["overwrite"], display)
    _print_folds(result, compare_with_baselines(result.scores, baselines))
    if html:
        _print_page(html)


def _print_page(html: Path) -> None:
    print_line(f"Wrote {html}: open it in a browser.")


def _amount(patches: int, seconds: float) -> str:
    """Return the amount that was learned, such as "3,200 patches in 1 min 5 s"."""
    return f"{plural(patches, 'patch', 'patches')} in {format_duration(seconds)}"


def _print_result(result: "TrainResult") -> None:
    from unetseg.cli.tables import show_tables
    from unetseg.objects.separation import is_border

    run = result.run
    model = run.option("--model")
    if result.already:
        print_line(f"{run.path}: this run is finished; nothing was done.")
    else:
        if result.scores:
            show_tables(result)
        else:
            print_line("No image was held out: there is no score.")
        trained = _amount(result.patches, result.seconds)
        pictures = f"{run.samples} and {run.validation}" if result.scores else run.samples
        print_line(f"Wrote {run.model} ({trained}); look at {pictures}.")
    classes = result.scores.classes if result.scores else ()
    told = " --objects all" * any(map(is_border, classes))
    print_next(f"unetseg predict IMAGE_OR_FOLDER{model}{told}", f"unetseg evaluate{model}{told}")


def _print_folds(result: "CrossValidation", baselines: str) -> None:
    run = result.run
    if result.already:
        print_line(f"{run.path}: this run is finished; nothing was done.")
    print_table(*result.table(baselines))
    trained = _amount(result.patches, result.seconds)
    print_line(f"Wrote {run.path} ({trained}): a mask for every image in {result.masks}.")
    print_next(
        f"unetseg suspects{run.option('')}", f"unetseg predict NEWIMAGES{run.option('--model')}"
    )
