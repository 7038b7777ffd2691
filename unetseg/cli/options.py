"""Options that are fields of settings, and options that several commands share.

A command that takes settings has a parameter of their class. `takes_settings` turns it into one
option for each field. The default of the option is the default of the field.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from typer import BadParameter, Context, Option

from unetseg import plugins
from unetseg.settings import (
    DEFAULT_EPOCHS,
    DEFAULT_STRIDE,
    DEFAULT_VAL,
    MODES,
    OPTIMIZERS,
    PAGES,
    PRECISIONS,
    RUNS,
    SCHEDULES,
    SYMMETRIES,
    WEIGHTS,
    PatchSettings,
    PredictSettings,
    SynthSettings,
    TrainSettings,
    parse_duration,
)

_MASKS = "Masks (of a folder)"


# --- completion: the values that a shell offers --------------------------------------------------


def _words(*choices: str) -> Callable[[], tuple[str, ...]]:
    """Return a completion that always offers the same words."""
    return lambda: choices


def _names(group: str) -> Callable[[], tuple[str, ...]]:
    """Return a completion that offers the built-in names of a group and those of plug-ins."""
    return lambda: plugins.names(group)


def _runs() -> tuple[str, ...]:
    """Return the names of the runs in ``runs/``."""
    return tuple(sorted(path.name for path in RUNS.glob("*") if path.is_dir()))


# --- options that are fields of settings ---------------------------------------------------------


def _number_or_auto(text: str) -> int | None:
    """Return the whole number in ``text``, or None for "auto"."""
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > 12:
        raise BadParameter(f"{text!r} is neither a whole number nor auto")
    return int(text)


def _share(value: str | float) -> float:
    """Return a share that is typed as 0.2 or as 20%; Typer also gives the default, a number."""
    written = str(value).strip()
    try:
        share = float(written.removesuffix("%"))
    except ValueError:
        text = f"{value!r} is neither a number nor a percentage, such as 20%"
        raise BadParameter(text) from None
    return share / 100 if written.endswith("%") else share


def _panel(title: str, **options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one panel of the help by the names of their fields."""

    def option(name: str, typed: str | None = None, **given: Any) -> Any:
        typed = typed or f"--{name.replace('_', '-')}"
        return Option(typed, rich_help_panel=title, **given)

    return {name: option(name, **given) for name, given in options.items()}


def _number_or_word(text: str) -> int | str:
    """Return the whole number in ``text``, else the text."""
    return int(text) if text.isdecimal() and len(text) <= 12 else text


_AUTO: dict[str, Any] = {"parser": _number_or_auto, "show_default": "auto"}
SHARE: dict[str, Any] = {"parser": _share, "metavar": "SHARE"}
_CONVERT_DEPTH = "Take 8 bits where the model was trained on 16, or 16 for 8, by their ranges."


def _selecting(unset: str, **more: dict[str, Any]) -> dict[str, Any]:
    """Return the options that choose the part of an image file.

    Args:
        unset: The word for the part that is taken where an option is not given.
        more: Further options of the same panel.
    """
    return _panel(
        "Images",
        page={
            "metavar": "N",
            "parser": _number_or_word,
            "help": "Which picture of TIFFs that hold several: a number from 0, middle, max or "
            "mean (of all), or all (each is an image).",
            "show_default": unset or "such files are refused",
            "autocompletion": _words(*PAGES),
        },
        channels={
            "metavar": "N,N",
            "help": "Which channels, from 0: 0 is the first alone.",
            "show_default": unset or "all",
        },
        crop={
            "metavar": "EDGE=N",
            "help": "Ignore rows or columns at the edges, such as a scale bar: bottom=64, or "
            "top=10,left=5.",
            "show_default": unset or "none",
        },
        **more,
    )


_LINE_WIDTH: dict[str, Any] = {
    "metavar": "PIXELS",
    "help": "Draw lines and points among shapes so wide.",
    "show_default": "left out",
}
_DEVICE: dict[str, Any] = {
    "help": "auto, cpu, cuda, cuda:1 or mps.",
    "autocompletion": _words("auto", "cpu", "cuda", "mps"),
}

# The options of each class of settings by field, as the help shows them. A field that is not here
# has no option.
OPTIONS: dict[type, dict[str, Any]] = {
    SynthSettings: {
        **_panel(
            "Options",
            height={"help": "Rows of an image."},
            width={"help": "Columns of an image."},
            seed={"help": "The same seed draws the same images."},
        ),
        **_panel(
            "How hard the set is",
            noise={"help": "Standard deviation of the background."},
            contrast={"help": "How far shapes stand out from the background, 0 to 1.", **SHARE},
            max_shapes={"help": "Largest number of lines, and of ellipses."},
            touching={"help": "Draw touching ellipses, and label images in objects/."},
        ),
    },
    PatchSettings: {
        **_panel(
            "Patches (of a folder)",
            size={"metavar": "PIXELS", "help": "Side of a patch, or auto.", **_AUTO},
            per_image={
                "metavar": "N",
                "help": "Patches from an image; auto stores each labelled pixel about once.",
                **_AUTO,
            },
            rare={
                **SHARE,
                "help": "Share of the patches drawn so that rare classes are in them.",
                "show_default": f"{PatchSettings.rare:.2g}",
            },
            scale={"help": "Resize images first; masks come back whole."},
        ),
        **_selecting(""),
        **_panel(
            "Held-out images (of a folder)",
            val={
                **SHARE,
                "help": "Share of images held out, such as 0.3 or 30%.",
                "show_default": f"{DEFAULT_VAL}, or the parts of a divided set",
            },
            group={
                "metavar": "REGEX",
                "help": "Images with the same match in their name stay together.",
            },
        ),
        **_panel(
            _MASKS,
            line_width=_LINE_WIDTH,
            spread={
                "typed": "--spread/--no-spread",
                "help": "Where under half of the pixels are labelled, as by strokes, train on "
                "labels spread from them, too.",
                "show_default": "spread",
            },
        ),
        **_panel("Options", seed={"help": "Seed of the split and of the corners."}),
    },
    TrainSettings: {
        **_panel(
            "How long",
            epochs={"help": "Passes over all patches.", "show_default": str(DEFAULT_EPOCHS)},
            budget={
                "metavar": "TIME",
                "parser": parse_duration,
                "help": "Wall time of the whole command instead of epochs: 90s, 10m, 1h.",
            },
            patience={
                "metavar": "N",
                "help": "Stop after N validations without a better score; the best epoch is kept.",
            },
        ),
        **_panel(
            "How",
            batch_size={"help": "Patches a step.", "show_default": "by patch size"},
            lr={"help": "Highest learning rate.", "show_default": "by optimizer"},
            loss={
                "help": "ce (cross-entropy), weighted-ce (by class), dice, ce+dice, "
                "weighted-ce+dice or a plug-in's.",
                "autocompletion": _names(plugins.LOSSES),
            },
            optimizer={"help": "muon, adamw or sgd.", "autocompletion": _words(*OPTIMIZERS)},
            schedule={"help": "one-cycle, cosine or steps.", "autocompletion": _words(*SCHEDULES)},
            weight_decay={"help": "Pull of the weights to zero.", "show_default": "by optimizer"},
            augment={
                "help": "none, light, strong, a plug-in's (after light) or strong+PLUGIN; auto is "
                "light.",
                "autocompletion": _names(plugins.AUGMENTATIONS),
            },
            symmetries={
                "help": "none, or some of hflip,vflip,turn; auto goes by where the classes lie.",
                "autocompletion": _words("auto", "none", *SYMMETRIES),
            },
            ema={
                **SHARE,
                "help": "Share of the training that the averaged weights look back over; 0 is off.",
            },
            seed={"help": "Seed of weights, order and augmentation."},
        ),
        **_panel(
            "Network",
            network={
                "help": "fused (compact with features learned from a million photographs), "
                "compact, classic or a plug-in's.",
                "autocompletion": _names(plugins.NETWORKS),
            },
            width={"help": "Channels at full resolution.", "show_default": "by network"},
            depth={"help": "How often the image is halved.", "show_default": "by network"},
            weights={
                "metavar": "FILE",
                "help": "Weights of the pretrained part of fused: safetensors or a state dict.",
                "show_default": "those installed",
            },
        ),
        **_panel(
            "Machine",
            device=_DEVICE,
            precision={
                "help": "Precision of training: float32, bfloat16 or auto (the faster here).",
                "autocompletion": _words(*PRECISIONS),
            },
        ),
    },
    PredictSettings: {
        **_panel(
            "How an image is covered",
            mode={
                "help": "seamless passes over the whole image once. auto averages two passes, "
                "the second over the image moved by a few pixels. blend averages overlapping "
                "windows, which takes longest.",
                "autocompletion": _words(*MODES),
            },
            stride={
                "help": "Pixels between blended windows, or a share of them.",
                "show_default": DEFAULT_STRIDE,
            },
            weights={
                "help": "gaussian trusts the middle of a window most, uniform all of it alike.",
                "autocompletion": _words(*WEIGHTS),
            },
            tta={
                "help": "Average over the mirror images that training used: slower, a little "
                "better.",
            },
            batch_size={"help": "Windows computed at once.", "show_default": "chosen for speed"},
        ),
        **_selecting(
            "as in training",
            convert_depth={"help": _CONVERT_DEPTH},
            whole={"help": "Give a class to all pixels, also where training ignored every image."},
        ),
        **_panel(
            "Mending of masks",
            largest={
                "metavar": "CLASS",
                "help": "Keep only the largest object of this class; may be repeated.",
            },
            min_size={
                "metavar": "PIXELS",
                "help": "Give smaller objects to the classes around them; 0 keeps all.",
            },
            fill_holes={
                "metavar": "CLASS",
                "help": "Fill the holes of this class; may be repeated.",
            },
        ),
        **_panel("Machine", device=_DEVICE),
    },
}


def takes_settings(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take settings: a parameter of a class of `OPTIONS` becomes an option a field.

    The options stand in the place of the parameter. The command receives the settings made from
    their values. ``Annotated[PatchSettings, ("size", "val")]`` takes only these two fields.
    """
    parameters: list[inspect.Parameter] = []
    taken: dict[str, tuple[type, list[str]]] = {}  # parameter -> its class and fields
    for parameter in inspect.signature(function).parameters.values():
        kind, *names = get_args(parameter.annotation) or [parameter.annotation]
        if kind in OPTIONS:
            taken[parameter.name] = kind, list(*names or [OPTIONS[kind]])
            parameters += _options_of(*taken[parameter.name])
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(function)
    def command(**values: Any) -> None:
        for name, (kind, names) in taken.items():
            given = {field: values.pop(field) for field in names}
            values[name] = kind(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            )
        function(**values)

    # Typer reads the parameters from the signature and from the annotations.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def _options_of(kind: type, names: list[str]) -> Iterable[inspect.Parameter]:
    """Yield a parameter for each named field of settings, with the default of the field."""
    known: dict[str, Any] = {field.name: field for field in fields(kind)}
    for name in names:
        field = known[name]
        annotation = list[str] if get_origin(field.type) is tuple else field.type
        if OPTIONS[kind][name].parser:
            annotation = str | None  # Typer takes no union of types; the parser makes the value
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[annotation, OPTIONS[kind][name]],
        )


def given(ctx: Context, names: Iterable[str]) -> set[str]:
    """Return the named parameters that the command line or the settings file gives."""
    sources = {name: ctx.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


# --- other options that several commands share ---------------------------------------------------


def output(flag: str, **given: Any) -> Any:
    """Return an option about the output of a command, as `Option` does."""
    return Option(flag, rich_help_panel="Output", **given)


Classes = Annotated[
    Path | None,
    Option(
        "--classes",
        metavar="FILE",
        help="A classes.toml; by default the folder's own, or the values found.",
        rich_help_panel=_MASKS,
    ),
]
Ignore = Annotated[
    list[str] | None,
    Option(
        "--ignore",
        metavar="VALUE",
        help="Mask values or colours '#rrggbb' to leave out, such as 11,255.",
        rich_help_panel=_MASKS,
    ),
]
LineWidth = Annotated[float | None, Option("--line-width", rich_help_panel=_MASKS, **_LINE_WIDTH)]
TrainedLineWidth = Annotated[
    float | None,
    Option(
        "--line-width",
        rich_help_panel=_MASKS,
        **_LINE_WIDTH | {"show_default": "as in training"},
    ),
]
Models = Annotated[
    list[str] | None,
    Option(
        "--model",
        metavar="MODEL",
        help="A run's name or folder, or a model file; repeated: an ensemble.",
        autocompletion=_runs,
        show_default="default",
    ),
]
From = Annotated[
    str | None,
    Option(
        "--from",
        metavar="MODEL",
        help="Start from a model's weights.",
        autocompletion=_runs,
        rich_help_panel="Network",
    ),
]
FirstModel = Annotated[
    str | None,
    Option(
        "--from",
        metavar="MODEL",
        help="A run or a model file. It predicts images before anybody painted, and the first "
        "round starts from its weights.",
        autocompletion=_runs,
        rich_help_panel="The network",
    ),
]
Run = Annotated[
    str,
    Option(
        "--run",
        metavar="NAME",
        help="Name of the run; wide means runs/wide.",
        autocompletion=_runs,
        rich_help_panel="The run",
    ),
]
IncludeTrained = Annotated[
    bool, Option("--include-trained", help="Score images that a model was trained on, too.")
]
Groups = Annotated[
    str | None,
    Option(
        "--group",
        metavar="REGEX",
        help="Take intervals over groups: images with the same match in their name.",
        show_default="a store's own groups, else single images",
    ),
]


def ignored(texts: list[str] | None) -> tuple[int | str, ...]:
    """Return the values and colours given by ``--ignore``."""
    from unetseg.classes import parse_ignored

    return tuple(parse_ignored(part) for text in texts or () for part in text.split(","))


def check_writable(overwrite: bool, *paths: Path | None) -> None:
    """Check before the work that each file can be written; None stands for no file."""
    from unetseg import files

    for path in filter(None, paths):
        files.check_writable(path, overwrite)
