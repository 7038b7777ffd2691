"""``unetseg train``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from unetseg.cli import completion, options
from unetseg.cli.console import Reporter, print_line, print_next

if TYPE_CHECKING:
    from unetseg.training.folds import CrossValidation
    from unetseg.training.loop import TrainResult

_LENGTH = "How long"
_HOW = "How"
_NET = "Network"
_RUN = "The run"


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
    epochs: Annotated[
        int | None,
        Option(
            "--epochs",
            help="Passes over all patches.",
            show_default="100",
            rich_help_panel=_LENGTH,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        Option(
            "--budget",
            metavar="TIME",
            help="Wall time of the whole command instead of epochs: 90s, 10m, 1h.",
            rich_help_panel=_LENGTH,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        Option(
            "--patience",
            metavar="N",
            help="Stop after N validations without a better one; the best epoch is kept.",
            rich_help_panel=_LENGTH,
        ),
    ] = None,
    folds: Annotated[
        int | None,
        Option(
            "--folds",
            metavar="K",
            help="Train K models on a folder, each without one part of the images: every image "
            "gets a mask and a score by a model that never saw it. Epochs are those of each, "
            "the budget is for all.",
            show_default="one model",
            rich_help_panel=_LENGTH,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        Option(
            "--batch-size",
            help="Patches a step.",
            show_default="by patch size",
            rich_help_panel=_HOW,
        ),
    ] = None,
    lr: Annotated[
        float | None,
        Option(
            "--lr",
            help="Highest learning rate.",
            show_default="by optimizer",
            rich_help_panel=_HOW,
        ),
    ] = None,
    loss: Annotated[
        str,
        Option(
            "--loss",
            help="ce (cross-entropy), weighted-ce (by class), dice, ce+dice, weighted-ce+dice or a "
            "plug-in's.",
            autocompletion=completion.losses,
            rich_help_panel=_HOW,
        ),
    ] = "weighted-ce",
    optimizer: Annotated[
        str,
        Option(
            "--optimizer",
            help="muon, adamw or sgd.",
            autocompletion=completion.optimizers,
            rich_help_panel=_HOW,
        ),
    ] = "muon",
    schedule: Annotated[
        str,
        Option(
            "--schedule",
            help="one-cycle, cosine or steps.",
            autocompletion=completion.schedules,
            rich_help_panel=_HOW,
        ),
    ] = "one-cycle",
    weight_decay: Annotated[
        float | None,
        Option(
            "--weight-decay",
            help="Pull of the weights to zero.",
            show_default="by optimizer",
            rich_help_panel=_HOW,
        ),
    ] = None,
    augment: Annotated[
        str,
        Option(
            "--augment",
            help="none, light, strong, a plug-in's (after light) or strong+PLUGIN; auto is light.",
            autocompletion=completion.augments,
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    symmetries: Annotated[
        str,
        Option(
            "--symmetries",
            help="none, or some of hflip,vflip,turn; auto: by where the classes lie.",
            autocompletion=completion.symmetries,
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    ema: Annotated[
        float,
        Option(
            "--ema",
            metavar="SHARE",
            help="Share of the training that the averaged weights look back over; 0 is off.",
            rich_help_panel=_HOW,
        ),
    ] = 0.05,
    network: Annotated[
        str,
        Option(
            "--network",
            help="compact, fused (compact with what a million photographs taught), classic or a "
            "plug-in's.",
            autocompletion=completion.networks,
            rich_help_panel=_NET,
        ),
    ] = "compact",
    width: Annotated[
        int | None,
        Option(
            "--width",
            help="Channels at full resolution.",
            show_default="by network",
            rich_help_panel=_NET,
        ),
    ] = None,
    depth: Annotated[
        int | None,
        Option(
            "--depth",
            help="Times the image is halved.",
            show_default="by network",
            rich_help_panel=_NET,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        Option(
            "--weights",
            metavar="FILE",
            help="Weights of the pretrained part of fused: safetensors or a state dict.",
            show_default="those installed",
            rich_help_panel=_NET,
        ),
    ] = None,
    start_from: Annotated[
        str | None,
        Option(
            "--from",
            metavar="MODEL",
            help="Start from a model's weights.",
            autocompletion=completion.runs,
            rich_help_panel=_NET,
        ),
    ] = None,
    run: Annotated[
        str,
        Option(
            "--run",
            metavar="NAME",
            help="wide means runs/wide.",
            autocompletion=completion.runs,
            rich_help_panel=_RUN,
        ),
    ] = "default",
    resume: Annotated[
        bool, Option("--resume", help="Go on where the run stopped.", rich_help_panel=_RUN)
    ] = False,
    overwrite: Annotated[
        bool, Option("--overwrite", help="Start again in its folder.", rich_help_panel=_RUN)
    ] = False,
    seed: Annotated[
        int, Option("--seed", help="Of weights, order and augmentation.", rich_help_panel=_RUN)
    ] = 0,
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
    device: options.Device = "auto",
    precision: Annotated[
        str,
        Option(
            "--precision",
            help="float32, bfloat16 or auto (the faster here), in training.",
            autocompletion=completion.precisions,
            rich_help_panel="Machine",
        ),
    ] = "auto",
    size: options.Size = "auto",
    per_image: options.PerImage = "auto",
    rare: options.Rare = 1 / 3,
    scale: options.Scale = 1.0,
    page: options.Page = None,
    val: options.Val = 0.2,
    group: options.Group = None,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Train a U-Net; the run's folder holds the model, its history and pictures.

    The model so far is saved as training goes, and the final one has a score from whole images that
    training never saw. Ctrl-C saves; --resume goes on exactly there.

    Example:
        unetseg train --epochs 100
        unetseg train MYFOLDER --budget 10m
        unetseg train MYFOLDER --folds 5 --budget 10m --html report.html
        unetseg train --run wide --width 32
        unetseg train --resume --run wide
    """
    from unetseg.cli.tables import TrainingView, print_store
    from unetseg.dataset.cutting import StoreSummary
    from unetseg.errors import InputError
    from unetseg.prediction.run_folder import RunFolder
    from unetseg.progress import Plan
    from unetseg.settings import parse_duration

    settings: dict[str, Any] = {
        name: ctx.params[name] for name in _SETTINGS if _is_given(ctx, name)
    }
    if budget is not None:
        settings["budget"] = parse_duration(budget)
    cut = None
    if any(_is_given(ctx, name) for name in _CUTTING):
        cut = options.patch_settings(size, per_image, rare, val, group, scale, 0, page)
    options.refuse_existing(overwrite, html)
    if folds is not None and _is_given(ctx, "val"):
        text = "excludes --val, as each image is held out once"
        raise InputError("--folds", text, "leave --val out")
    views = [TrainingView()]

    def view(record: object) -> Any:
        if isinstance(record, Plan):  # of the next fold: the table begins anew
            views[0] = TrainingView()
        return views[0](record)

    report = Reporter(view)

    def show(record: object) -> None:
        if isinstance(record, StoreSummary):
            report.pause()
            print_store(record)
        else:
            report(record)

    settings |= {
        "run": run,
        "patches": cut,
        "classes": classes,
        "ignored": options.ignored(ignore),
        "start_from": start_from,
        "resume": resume,
        "overwrite": overwrite,
        "started": _STARTED - (_REPORT_SHARE * settings.get("budget", 0) if html else 0),
        "on_progress": show,
    }
    if folds is None and not (resume and RunFolder(run).folds.exists()):
        _train_one(source, settings, html, report)
    else:
        _train_folds(source, folds, settings, html, report)


_REPORT_SHARE = 0.1  # of a budget is left to floors and pictures
_STARTED = time.monotonic()  # the module is imported when the command is called
_SETTINGS = (
    "epochs",
    "patience",
    "batch_size",
    "lr",
    "loss",
    "optimizer",
    "schedule",
    "weight_decay",
    "augment",
    "symmetries",
    "ema",
    "network",
    "width",
    "depth",
    "weights",
    "seed",
    "device",
    "precision",
)
_CUTTING = ("size", "per_image", "rare", "scale", "page", "val", "group")


def _is_given(ctx: Context, name: str) -> bool:
    """Tell whether an option stands on the command line or in the settings file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _train_one(
    source: Path | None, settings: dict[str, Any], html: Path | None, report: Reporter
) -> None:
    """Train one model, write its page, and print how it did."""
    from unetseg.ranks import join
    from unetseg.reports.gathering import report_evaluation
    from unetseg.scoring.evaluation import evaluate_held_out
    from unetseg.training.run import train as train_run

    with report:
        with join() as ranks:
            result = train_run(source, **settings)
            if html and result.scores:
                held_out = evaluate_held_out([str(result.run.path)], on_progress=report)
        if not ranks.is_writer:
            return
        if html and result.scores:
            report_evaluation(html, held_out, result.run, settings["overwrite"], report)
    _print_result(result)
    if html and result.scores:
        _print_page(html)


def _train_folds(
    source: Path | None,
    folds: int | None,
    settings: dict[str, Any],
    html: Path | None,
    report: Reporter,
) -> None:
    """Train a model for each fold, write their page, and print how they did."""
    from unetseg.reports.gathering import floors_of_folds, report_folds
    from unetseg.scoring.baselines import compare_with_floors
    from unetseg.training.folds import cross_validate

    with report:
        result = cross_validate(source, folds=folds, **settings)
        floors = floors_of_folds(result, report)
        if html:
            report_folds(html, result, floors, settings["overwrite"], report)
    _print_folds(result, compare_with_floors(result.scores, floors))
    if html:
        _print_page(html)


def _print_page(html: Path) -> None:
    print_line(f"Wrote {html}: open it in a browser.")


def _print_result(result: "TrainResult") -> None:
    from unetseg.cli.tables import print_scores
    from unetseg.text import format_duration

    run = result.run
    model = run.option().replace("--run", "--model", 1)
    if result.already:
        print_line(f"{run.path}: this run is finished; nothing was done.")
    else:
        if result.scores:
            title = f"{len(result.names)} held-out images, whole ({result.kept} model)"
            print_scores(result.scores, title)
        else:
            print_line("No image was held out: there is no score.")
        trained = f"{result.patches:,} patches in {format_duration(result.seconds)}"
        pictures = f"{run.samples} and {run.validation}" if result.scores else run.samples
        print_line(f"Wrote {run.model} ({trained}); look at {pictures}.")
    print_next(f"unetseg predict IMAGE_OR_FOLDER{model}", f"unetseg evaluate{model}")


def _print_folds(result: "CrossValidation", floors: str) -> None:
    from unetseg.cli.tables import print_scores
    from unetseg.text import format_duration

    run = result.run
    if result.already:
        print_line(f"{run.path}: this run is finished; nothing was done.")
    title = f"{len(result.images)} images, each scored by a model that never saw it "
    print_scores(result.scores, f"{title}({result.folds} folds)", floors)
    trained = f"{result.patches:,} patches in {format_duration(result.seconds)}"
    print_line(f"Wrote {run.path} ({trained}): a mask for every image in {result.masks}.")
    option = run.option()
    print_next(
        f"unetseg suspects{option.replace(' --run', '', 1)}",
        f"unetseg predict NEWIMAGES{option.replace('--run', '--model', 1)}",
    )
