"""Options that several commands share, and how their text becomes settings."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from unetseg.cli import completion
from unetseg.errors import InputError

if TYPE_CHECKING:
    from unetseg.settings import PatchSettings, PredictSettings

_PATCHES = "Patches (of a folder)"
_SPLIT = "Held-out images (of a folder)"
_MASKS = "Masks (of a folder)"
_COVER = "How an image is covered"
_MEND = "What is mended in a mask"

Size = Annotated[
    str,
    Option("--size", metavar="PIXELS", help="Side of a patch, or auto.", rich_help_panel=_PATCHES),
]
PerImage = Annotated[
    str,
    Option(
        "--per-image",
        metavar="N",
        help="Patches from an image; auto stores each labelled pixel about once.",
        rich_help_panel=_PATCHES,
    ),
]
Rare = Annotated[
    float,
    Option(
        "--rare",
        metavar="SHARE",
        help="Share of the patches drawn so that rare classes are in them.",
        rich_help_panel=_PATCHES,
        show_default="a third",
    ),
]
Scale = Annotated[
    float,
    Option("--scale", help="Resize images first; masks come back whole.", rich_help_panel=_PATCHES),
]
Page = Annotated[
    int | None,
    Option(
        "--page",
        metavar="N",
        help="Which picture of TIFFs that hold several, from 0.",
        show_default="such files are refused",
        rich_help_panel="Images",
    ),
]
Val = Annotated[
    float,
    Option("--val", metavar="SHARE", help="Share of images held out.", rich_help_panel=_SPLIT),
]
Group = Annotated[
    str | None,
    Option(
        "--group",
        metavar="REGEX",
        help="Images with the same match in their name stay together.",
        rich_help_panel=_SPLIT,
    ),
]
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
        help="Mask value or colour '#rrggbb' to leave out; may be repeated.",
        rich_help_panel=_MASKS,
    ),
]
Models = Annotated[
    list[str] | None,
    Option(
        "--model",
        metavar="MODEL",
        help="A run's name or folder, or a model file; repeated: an ensemble.",
        autocompletion=completion.runs,
        show_default="default",
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
Mode = Annotated[
    str,
    Option(
        "--mode",
        help="blend averages overlapping windows; seamless, twice as fast and sometimes a little "
        "worse, gives what one pass over the whole image would.",
        autocompletion=completion.modes,
        rich_help_panel=_COVER,
    ),
]
Stride = Annotated[
    str | None,
    Option(
        "--stride",
        help="Pixels between blended windows, or a share of them.",
        show_default="50%",
        rich_help_panel=_COVER,
    ),
]
Weights = Annotated[
    str,
    Option(
        "--weights",
        help="gaussian trusts the middle of a window most; or uniform.",
        autocompletion=completion.weights,
        rich_help_panel=_COVER,
    ),
]
Tta = Annotated[
    bool,
    Option(
        "--tta",
        help="Average over the mirror images that training used: slower, a little better.",
        rich_help_panel=_COVER,
    ),
]
WindowBatch = Annotated[
    int | None,
    Option(
        "--batch-size",
        help="Windows computed at once.",
        show_default="as many as pay",
        rich_help_panel=_COVER,
    ),
]
Largest = Annotated[
    list[str] | None,
    Option(
        "--largest",
        metavar="CLASS",
        help="Keep only the largest object of this class; may be repeated.",
        rich_help_panel=_MEND,
    ),
]
MinSize = Annotated[
    int,
    Option(
        "--min-size",
        metavar="PIXELS",
        help="Give smaller objects to what surrounds them.",
        show_default="keep all",
        rich_help_panel=_MEND,
    ),
]
FillHoles = Annotated[
    list[str] | None,
    Option(
        "--fill-holes",
        metavar="CLASS",
        help="Fill what this class encloses; may be repeated.",
        rich_help_panel=_MEND,
    ),
]
Device = Annotated[
    str,
    Option(
        "--device",
        help="auto, cpu, cuda, cuda:1 or mps.",
        autocompletion=completion.devices,
        rich_help_panel="Machine",
    ),
]


def number_or_auto(option: str, text: str) -> int | None:
    """Return the whole number in ``text``, or None for "auto".

    Raises:
        InputError: Anything else.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > 12:
        raise InputError(option, f"{text!r} is no whole number", "write a number, or auto")
    return int(text)


def patch_settings(
    size: str,
    per_image: str,
    rare: float,
    val: float,
    group: str | None,
    scale: float,
    seed: int,
    page: int | None,
) -> "PatchSettings":
    """Return the settings that a command line gave."""
    from unetseg.settings import PatchSettings

    return PatchSettings(
        number_or_auto("--size", size),
        number_or_auto("--per-image", per_image),
        val,
        group,
        rare,
        scale,
        seed,
        page,
    )


def predict_settings(
    mode: str,
    stride: str | None,
    weights: str,
    tta: bool,
    batch_size: int | None,
    device: str,
    page: int | None,
    largest: list[str] | None,
    min_size: int,
    fill_holes: list[str] | None,
) -> "PredictSettings":
    """Return the settings that a command line gave."""
    from unetseg.settings import PredictSettings

    kept, filled = tuple(largest or ()), tuple(fill_holes or ())
    return PredictSettings(
        mode, stride, weights, tta, batch_size, device, page, kept, min_size, filled
    )


def ignored(texts: list[str] | None) -> tuple[int | str, ...]:
    """Return the values and colours given by ``--ignore``."""
    from unetseg.classes import parse_ignored

    return tuple(parse_ignored(text) for text in texts or ())


def refuse_existing(overwrite: bool, *paths: Path | None) -> None:
    """Raise `InputError` where one of the files to write is there; None is a file not asked for."""
    from unetseg import files

    for path in filter(None, paths):
        files.refuse_existing(path, overwrite)
