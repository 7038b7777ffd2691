"""``unetseg train``."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Context, Option

from unetseg.cli import options
from unetseg.cli.console import Reporter, print_line, print_next

if TYPE_CHECKING:
    from unetseg.trainer import TrainResult

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
            help="ce (cross-entropy), weighted-ce (by class), dice, ce+dice or weighted-ce+dice.",
            rich_help_panel=_HOW,
        ),
    ] = "weighted-ce",
    optimizer: Annotated[
        str, Option("--optimizer", help="muon, adamw or sgd.", rich_help_panel=_HOW)
    ] = "muon",
    schedule: Annotated[
        str, Option("--schedule", help="one-cycle, cosine or steps.", rich_help_panel=_HOW)
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
        str, Option("--augment", help="none, light, strong; auto is light.", rich_help_panel=_HOW)
    ] = "auto",
    symmetries: Annotated[
        str,
        Option(
            "--symmetries",
            help="none, or some of hflip,vflip,turn; auto: by where the classes lie.",
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
        Option("--network", help="compact, classic or a plug-in's.", rich_help_panel=_NET),
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
    start_from: Annotated[
        str | None,
        Option(
            "--from", metavar="MODEL", help="Start from a model's weights.", rich_help_panel=_NET
        ),
    ] = None,
    run: Annotated[
        str, Option("--run", metavar="NAME", help="wide means runs/wide.", rich_help_panel=_RUN)
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
    device: options.Device = "auto",
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
        unetseg train --run wide --width 32
        unetseg train --resume --run wide
    """
    from unetseg.cli.tables import TrainingView, print_store
    from unetseg.config import parse_duration
    from unetseg.preparation import StoreSummary
    from unetseg.training import train as train_run

    settings: dict[str, Any] = {
        name: ctx.params[name] for name in _SETTINGS if _is_given(ctx, name)
    }
    if budget is not None:
        settings["budget"] = parse_duration(budget)
    cut = None
    if any(_is_given(ctx, name) for name in _CUTTING):
        cut = options.patch_settings(size, per_image, rare, val, group, scale, 0, page)
    with Reporter(TrainingView()) as report:

        def show(record: object) -> None:
            if isinstance(record, StoreSummary):
                report.pause()
                print_store(record)
            else:
                report(record)

        result = train_run(
            source,
            run=run,
            patches=cut,
            classes=classes,
            ignored=options.ignored(ignore),
            start_from=start_from,
            resume=resume,
            overwrite=overwrite,
            started=_STARTED,
            on_progress=show,
            **settings,
        )
    _print_result(result)


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
    "seed",
    "device",
)
_CUTTING = ("size", "per_image", "rare", "scale", "page", "val", "group")


def _is_given(ctx: Context, name: str) -> bool:
    """Tell whether an option stands on the command line or in the settings file."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _print_result(result: "TrainResult") -> None:
    from unetseg.cli.tables import print_scores
    from unetseg.config import format_duration

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
