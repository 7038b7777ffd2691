"""``unetseg evaluate``."""

import math
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line
from unetseg.settings import PredictSettings

# These options change the masks that a model makes. --predictions are made already.
_OF_A_MODEL = {"curves", *options.OPTIONS[PredictSettings]} - {
    *("page", "channels", "crop", "whole", "batch_size", "device"),
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
            help="Score these masks, made by any program, instead of a model. With --model, they "
            "are read with its encoding, and images that it was trained on are left out.",
        ),
    ] = None,
    include_trained: options.IncludeTrained = False,
    group: options.Groups = None,
    settings: PredictSettings,
    confusion: Annotated[
        bool, options.output("--confusion", help="Print the confusion matrix.")
    ] = False,
    boundary: Annotated[
        float | None,
        options.output(
            "--boundary",
            metavar="PIXELS",
            min=0,
            help="Score borders, too: the share within this distance, and the 95 % Hausdorff "
            "distance.",
        ),
    ] = None,
    objects: Annotated[
        list[str] | None,
        options.output(
            "--objects",
            metavar="CLASS",
            help="Score the objects of this class, or of all, too: panoptic quality, F1, count; "
            "may be repeated.",
        ),
    ] = None,
    curves: Annotated[
        bool,
        options.output(
            "--curves",
            help="Score every threshold, too: the areas under the ROC and the precision-recall "
            "curve of each class.",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        options.output(
            "--html",
            metavar="FILE",
            help="Write a page with the scores, and the worst and best images.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, options.output("--json", metavar="FILE", help="Write all scores.")
    ] = None,
    csv_file: Annotated[
        Path | None,
        options.output(
            "--csv",
            metavar="FILE",
            help="Write one row an image: IoU, Dice, precision, recall and specificity of each "
            "class, and the figures of --boundary and --curves.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", help="Replace the files that are written.")
    ] = False,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    line_width: options.TrainedLineWidth = None,
) -> None:
    """Score masks against the truth, class by class.

    Scores come from one confusion matrix pooled over all images. The column "95 %" says how far
    they may lie from the scores of all images of the kind. Images that the model was trained on are
    left out, under any name.

    Example:
        unetseg evaluate
        unetseg evaluate MYTEST --model wide --confusion --html report.html
        unetseg evaluate MYTEST --group '^(.*)_' --csv scores.csv
        unetseg evaluate MYTEST --predictions MASKS --json scores.json
    """
    from unetseg.cli.tables import print_confusion, show_tables, write_json
    from unetseg.errors import InputError, arg
    from unetseg.prediction.summary import write_table
    from unetseg.ranks import join
    from unetseg.reports.gathering import report_evaluation
    from unetseg.scoring.evaluation import evaluate as evaluate_images

    no_model = {"include_trained"} if model is None else set()
    for name in _OF_A_MODEL | no_model if predictions else ():
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
            line_width=line_width,
            group=group,
            boundary=boundary,
            objects=objects or (),
            curves=curves,
            keep=bool(html),
            on_progress=display,
        )
        if not ranks.is_writer:
            return
        if html:
            report_evaluation(html, found, overwrite, display)
    show_tables(found)
    if confusion:
        print_confusion(found.scores)
    if html:
        print_line(f"Wrote {html}: open it in a browser.")
    write_json(json_file, found.to_dict())
    if csv_file:
        rows = found.image_records()
        cells = [["inf" if v == math.inf else v for v in row.values()] for row in rows]
        write_table(csv_file, list(rows[0]), cells)
        print_line(f"Wrote {csv_file}.")
