"""``unetseg evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line
from unetseg.settings import PredictSettings
from unetseg.text import plural

if TYPE_CHECKING:
    from unetseg.scoring.metrics import Scores

_OUT = "What is written"
# These options change the masks that a model makes. --predictions are made already.
_OF_A_MODEL = {"include_trained", *options.OPTIONS[PredictSettings]} - {
    *("page", "channels", "crop", "batch_size", "device"),
}


@options.takes_settings
def evaluate(
    ctx: Context,
    folder: Annotated[
        Path | None,
        Argument(
            metavar="FOLDER",
            help="Labelled images.",
            show_default="data/test, else the images the model's store held out",
        ),
    ] = None,
    *,
    model: options.Models = None,
    predictions: Annotated[
        Path | None,
        Option(
            "--predictions",
            metavar="FOLDER",
            help="Score these masks, made by any program, instead of a model; with --model, "
            "in the encoding that it writes.",
        ),
    ] = None,
    include_trained: options.IncludeTrained = False,
    group: options.Groups = None,
    settings: PredictSettings,
    confusion: Annotated[
        bool, Option("--confusion", help="Print the confusion matrix.", rich_help_panel=_OUT)
    ] = False,
    boundary: Annotated[
        float | None,
        Option(
            "--boundary",
            metavar="PIXELS",
            min=0,
            help="Score borders, too: the share within so many pixels, and the 95 % Hausdorff "
            "distance.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    objects: Annotated[
        list[str] | None,
        Option(
            "--objects",
            metavar="CLASS",
            help="Score the objects of this class, or of all, too: panoptic quality, F1, count; "
            "may be repeated.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    html: Annotated[
        Path | None,
        Option(
            "--html",
            metavar="FILE",
            help="Write a page with the scores, and the worst and best images.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        Option("--json", metavar="FILE", help="Write all scores.", rich_help_panel=_OUT),
    ] = None,
    csv_file: Annotated[
        Path | None,
        Option("--csv", metavar="FILE", help="Write one row an image.", rich_help_panel=_OUT),
    ] = None,
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Replace the files that are written.", rich_help_panel=_OUT),
    ] = False,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Score masks against the truth, class by class.

    Scores come from one confusion matrix pooled over all images; the column "95 %" says how far
    they may lie from those of all images of the kind. Images that the model was trained on are left
    out, whatever they are called.

    Example:
        unetseg evaluate
        unetseg evaluate MYTEST --model wide --confusion --html report.html
        unetseg evaluate MYTEST --group '^(.*)_' --predictions MASKS --json scores.json
    """
    from unetseg.cli.tables import (
        print_boundaries,
        print_confusion,
        print_objects,
        print_scores,
        write_json,
    )
    from unetseg.errors import InputError, arg
    from unetseg.prediction.run_folder import RunFolder
    from unetseg.ranks import join
    from unetseg.reports.gathering import report_evaluation
    from unetseg.scoring.evaluation import (
        evaluate as evaluate_images,
        score_boundaries,
        score_objects,
    )

    for name in _OF_A_MODEL if predictions else ():
        source = ctx.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":  # a settings file may serve both
            raise InputError(arg(name), "is of no use with --predictions", "leave it out")
    options.check_writable(overwrite, json_file, csv_file, html)
    with ProgressDisplay() as display, join() as ranks:
        found = evaluate_images(
            folder,
            model=model,
            predictions=predictions,
            settings=settings,
            include_trained=include_trained,
            classes=classes,
            ignore=options.ignored(ignore),
            group=group,
            on_progress=display,
        )
        if not ranks.is_writer:
            return
        counted = score_objects(found, objects, display) if objects else None
        borders = None if boundary is None else score_boundaries(found, boundary, display)
        if html:
            one = RunFolder(model[0] if model else "default") if not predictions else None
            report_evaluation(html, found, one, overwrite, display)
    print_scores(found.scores, f"{found.subject.title}: {plural(len(found.scores.names), 'image')}")
    if confusion:
        print_confusion(found.scores)
    if borders:
        print_boundaries(borders)
    if counted:
        print_objects(counted)
    if html:
        print_line(f"Wrote {html}: open it in a browser.")
    scores = found.scores.to_dict() | ({"boundary": borders.to_dict()} if borders else {})
    scores |= {"objects": counted.to_dict()} if counted else {}
    write_json(json_file, scores)
    if csv_file:
        _write_per_image(csv_file, found.scores)
        print_line(f"Wrote {csv_file}.")


def _write_per_image(path: Path, scores: "Scores") -> None:
    """Write image, mean IoU, and IoU of each class; an absent class is an empty cell."""
    from unetseg.prediction.summary import write_table

    header = ["image", "mean_iou", *(f"iou_{name}" for name in scores.classes)]
    rows = [
        [row["name"], row["mean_iou"], *(row["iou"].get(name) for name in scores.classes)]
        for row in scores.to_dict()["per_image"]
    ]
    write_table(path, header, rows)
