"""The settings of each piece of work: frozen, checked when made, and written as TOML."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from unetseg.arguments import as_declared, settings_class
from unetseg.errors import InputError, arg
from unetseg.text import nearest

NETWORKS = ("fused", "compact", "classic")
LOSSES = ("ce", "weighted-ce", "dice", "ce+dice", "weighted-ce+dice")
OPTIMIZERS = ("muon", "adamw", "sgd")
SCHEDULES = ("one-cycle", "cosine", "steps")
AUGMENTS = ("auto", "none", "light", "strong")
PRECISIONS = ("auto", "float32", "bfloat16")
SYMMETRIES = ("hflip", "vflip", "turn")
MODES = ("auto", "seamless", "blend")
WEIGHTS = ("gaussian", "uniform")
DEFAULT_EPOCHS = 100
DEFAULT_VAL = 0.2
PROJECTIONS = ("max", "mean")
PAGES = ("middle", *PROJECTIONS, "all")
SIDES = ("top", "bottom", "left", "right")
RUNS = Path("runs")  # the folder of all runs that are given by a bare name
DEFAULT_STRIDE = "50%"


@dataclass(frozen=True)
class Selection:
    """The part of image files that is used.

    Attributes:
        page: The picture that is taken of a TIFF that holds several. It is a number from 0,
            "middle", or "max" or "mean" of all pictures. "all" makes an image of each picture, and
            None is for files that hold one.
        channels: Numbers of the channels, from 0, in the order in which they are taken; empty takes
            all.
        crop: Rows and columns at the edges that show no scene, such as "bottom=64" or
            "top=10,left=5"; they are ignored.

    Raises:
        InputError: A value out of its range; the message names the argument.
    """

    page: int | str | None = None
    channels: tuple[int, ...] = ()
    crop: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.page, str):
            check_choice("page", self.page, PAGES)
        elif self.page is not None:
            _check("page", self.page, 0, 9999)
        for channel in self.channels:
            _check("channels", channel, 0, 4095)
        self.inner(1, 1)

    def inner(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and the columns inside ``crop``; they may be empty."""
        left_out = dict.fromkeys(SIDES, 0)
        for part in self.crop.split(",") if self.crop else ():
            match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d{1,9})\s*", part)
            if not match:
                text = f"{self.crop!r} names no edge and its rows or columns"
                raise InputError(arg("crop"), text, "write bottom=64, or top=10,left=5")
            check_choice("crop", match[1], SIDES)
            left_out[match[1]] = int(match[2])
        rows = slice(left_out["top"], max(height - left_out["bottom"], 0))
        return rows, slice(left_out["left"], max(width - left_out["right"], 0))

    def or_else(self, other: "Selection") -> "Selection":
        """Return this selection, completed from another one where it leaves something open."""
        page = other.page if self.page is None else self.page
        return Selection(page, self.channels or other.channels, self.crop or other.crop)


WHOLE = Selection()


class _Selecting:
    """Settings with the fields of a `Selection`."""

    page: int | str | None
    channels: str | None
    crop: str | None

    @property
    def selection(self) -> Selection:
        """The part that is taken of each image file.

        Raises:
            InputError: A value out of its range; the message names the argument.
        """
        channels = () if self.channels is None else self.channels.split(",")
        if not all(re.fullmatch(r"\s*\d{1,4}\s*", channel) for channel in channels):
            text = f"{self.channels!r} are no numbers of channels"
            raise InputError(arg("channels"), text, "write 0, or 0,2")
        return Selection(self.page, tuple(map(int, channels)), self.crop)


@settings_class
@dataclass(frozen=True)
class SynthSettings:
    """How the images of a synthetic set look, and how hard they are.

    Attributes:
        height: Rows of an image, 1 to 10,000.
        width: Columns of an image, 1 to 10,000.
        seed: The seed of all random numbers, 0 to 2^63 - 1.
        noise: Standard deviation of the background before truncation, 0 to 1, where 1 is white.
        contrast: Share of a shape's distance in grey from the mean of the background that is kept,
            0 to 1. At 0 a shape shows by its missing noise alone.
        max_shapes: The largest number of ellipses, and of lines, in an image, 1 to 1,000.
        touching: Whether to draw ellipses alone, as many as find room. Most of them touch others.

    Raises:
        InputError: A value out of its range; the message names the argument.
    """

    height: int = 400
    width: int = 200
    seed: int = 0
    noise: float = 0.1
    contrast: float = 1.0
    max_shapes: int = 9
    touching: bool = False

    def __post_init__(self) -> None:
        _take_types(self)
        _check("height", self.height, 1, 10_000)
        _check("width", self.width, 1, 10_000)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("noise", self.noise, 0, 1)
        _check("contrast", self.contrast, 0, 1)
        _check("max_shapes", self.max_shapes, 1, 1000)


@settings_class
@dataclass(frozen=True)
class PatchSettings(_Selecting):
    """How a folder of labelled images is cut into a patch store.

    Attributes:
        size: Side S of a square patch in pixels (after ``scale``); None picks it from the images.
        per_image: Patches from each training image; None stores each labelled pixel about once.
        val: Share of the images held out, 0 (none) to below 1. None holds out the parts ``valid/``
            and ``test/`` of a set that is divided so, and 0.2 of any other set.
        group: Regular expression searched in each stem; images of one group stay on one side.
        rare: Share of the patches placed on a pixel of a class drawn evenly among those present.
        scale: Factor by which images and masks are resized first, 0.01 to 16.
        seed: Seed of split and corners.
        page: The picture of files that hold several: a number from 0, or one of `PAGES`.
        channels: Numbers of the channels to take, such as "0" or "0,2"; None takes all.
        crop: Rows and columns at the edges that are ignored, such as "bottom=64,left=5".
        line_width: The width in pixels at which lines and points of LabelMe, VIA and QuPath are
            drawn, 1 to 1,000; None draws none.
        spread: Whether training learns from labels that were spread from strokes, where under half
            of the pixels to train on are labelled.

    Raises:
        InputError: A value out of its range; the message names the argument.
    """

    size: int | None = None
    per_image: int | None = None
    val: float | None = None
    group: str | None = None
    rare: float = 1 / 3
    scale: float = 1.0
    seed: int = 0
    page: int | str | None = None
    channels: str | None = None
    crop: str | None = None
    line_width: float | None = None
    spread: bool = True

    def __post_init__(self) -> None:
        _take_types(self)
        self.selection  # noqa: B018 - raises where a value is out of its range
        check_line_width(self.line_width)
        if self.size is not None:
            _check("size", self.size, 16, 4096)
        if self.per_image is not None:
            _check("per_image", self.per_image, 1, 10**6)
        _check("val", self.held_out_share, 0, 0.95)
        _check("rare", self.rare, 0, 1)
        _check("scale", self.scale, 0.01, 16)
        _check("seed", self.seed, 0, 2**63 - 1)
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                text = f"{self.group!r} is no regular expression ({error})"
                raise InputError(arg("group"), text, "quote it, as in '^(.*)_'") from None

    @property
    def held_out_share(self) -> float:
        """The share of images held out of a set that is not divided already."""
        return DEFAULT_VAL if self.val is None else self.val


@settings_class
@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained. Values for fields that are None are chosen when training starts.

    Names of losses, augmentations and networks are looked up when training starts
    (`unetseg.plugins.check_names`). So the record of a run can be read without its plug-ins.

    Attributes:
        epochs: Passes over all patches; None means 100, or as many as ``budget`` allows.
        budget: Wall time of the whole command in seconds, instead of ``epochs``; "10m" is 600.
        batch_size: Patches a step, over all devices together. None takes as many pixels as 8
            patches of 96 x 96 have, and eight times as many on a GPU.
        lr: Highest learning rate; None takes the optimizer's default.
        loss: One of `LOSSES`, or a plug-in's loss.
        optimizer: One of `OPTIMIZERS`; "sgd" has Nesterov momentum 0.9.
        schedule: One of `SCHEDULES`; "steps" is x 0.1 at each 30 % of the training.
        weight_decay: Pull of the weights to zero; None takes the optimizer's default.
        augment: One of `AUGMENTS`, where "auto" is light. A plug-in's name follows light;
            "strong+mine" lets it follow another preset; see `split_augment`.
        symmetries: "auto" (by where the classes of the training images lie), "none", or some of
            "hflip", "vflip" and "turn", joined by commas.
        network: One of `NETWORKS`, or a plug-in's network.
        width: Channels at full resolution; None takes the network's own.
        depth: Times the resolution is halved; None takes the network's own.
        weights: File of the pretrained part's weights; None takes those installed with unetseg.
        ema: Share of the training over which the averaged weights look back; 0 averages none.
        patience: Validations without a better mean IoU after which training stops.
        validate: Epochs between validations; None keeps validation under a tenth of the time.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: Number format of convolutions in training, one of `PRECISIONS`. "auto" is
            bfloat16 where the device computes it faster. Weights are always float32.
        seed: Seed of weights, order and augmentation.

    Raises:
        InputError: A value out of its range; the message names the argument.
    """

    epochs: int | None = None
    budget: float | None = None
    batch_size: int | None = None
    lr: float | None = None
    loss: str = "weighted-ce"
    optimizer: str = "muon"
    schedule: str = "one-cycle"
    weight_decay: float | None = None
    augment: str = "auto"
    symmetries: str = "auto"
    network: str = "fused"
    width: int | None = None
    depth: int | None = None
    weights: str | None = None
    ema: float = 0.05
    patience: int | None = None
    validate: int | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.budget, str):
            object.__setattr__(self, "budget", parse_duration(self.budget))
        _take_types(self)
        if self.epochs is not None and self.budget is not None:
            raise InputError(arg("epochs"), f"excludes {arg('budget')}", "give one of them")
        for option, value, low, high in (
            ("epochs", self.epochs, 1, 10**6),
            ("budget", self.budget, 1, 10**8),
            ("batch_size", self.batch_size, 1, 65536),
            ("lr", self.lr, 1e-12, math.inf),
            ("weight_decay", self.weight_decay, 0, 1e6),
            ("width", self.width, 1, 1024),
            ("depth", self.depth, 1, 8),
            ("ema", self.ema, 0, 1),
            ("patience", self.patience, 1, 10**6),
            ("validate", self.validate, 1, 10**6),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if value is not None:
                _check(option, value, low, high)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        if self.symmetries not in ("auto", "none"):
            for name in self.symmetries.split(","):
                check_choice("symmetries", name, SYMMETRIES)


@settings_class
@dataclass(frozen=True)
class PredictSettings(_Selecting):
    """How a model covers an image, and how its mask is mended.

    Attributes:
        mode: "seamless" passes over the whole image once, with networks that say how far they see.
            "auto" averages two such passes, the second over the image moved by `shifts`. "blend"
            averages overlapping windows, as "auto" does with all other networks.
        stride: Pixels between blended windows (48 or "48") or a share of the window; None is "50%".
            With it, "auto" is "blend".
        weights: "gaussian" trusts the middle of a blended window most, "uniform" all pixels alike.
        tta: Average over the symmetries that the model was trained with.
        batch_size: Windows computed at once; None chooses for speed.
        device: The device that computes, as in `TrainSettings`.
        page: The picture of files that hold several, as in `PatchSettings`. None takes the
            selection of the training, here and in the next two.
        channels: Numbers of the channels to take, as in `PatchSettings`.
        crop: Rows and columns at the edges that are ignored, as in `PatchSettings`.
        convert_depth: Take images of another depth than the training images: 8 bits become 16, or
            16 become 8, by the ratio of their ranges.
        whole: Give a class to all pixels, also to those that training ignored in every image, or
            cropped.
        largest: Classes of which only the largest object is kept.
        min_size: Objects of fewer pixels are removed; 0 keeps all.
        fill_holes: Classes whose holes are filled.

    Raises:
        InputError: A value out of its range; the message names the argument.
    """

    mode: str = "auto"
    stride: str | None = None
    weights: str = "gaussian"
    tta: bool = False
    batch_size: int | None = None
    device: str = "auto"
    page: int | str | None = None
    channels: str | None = None
    crop: str | None = None
    convert_depth: bool = False
    whole: bool = False
    largest: tuple[str, ...] = ()
    min_size: int = 0
    fill_holes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _take_types(self)
        check_choice("mode", self.mode, MODES)
        check_choice("weights", self.weights, WEIGHTS)
        if self.batch_size is not None:
            _check("batch_size", self.batch_size, 1, 65536)
        self.selection  # noqa: B018 - raises where a value is out of its range
        _check("min_size", self.min_size, 0, 2**31)
        if self.mode == "seamless" and self.stride is not None:
            raise InputError(
                arg("stride"), "is for blended windows", f"leave it or {arg('mode')} out"
            )
        self._blended_stride(96)

    def stride_for(self, size: int, can_be_seamless: bool) -> int | None:
        """Return the pixels between blended windows of ``size``, 1 to ``size``; None is seamless.

        Raises:
            InputError: The mode is "seamless", and the networks cannot cover an image so.
        """
        if self.mode == "seamless":
            if not can_be_seamless:
                text = "this network does not say how far it sees (halo, multiple)"
                raise InputError(arg("mode"), text, "leave it out, or use blend")
            return None
        is_seamless = self.mode == "auto" and self.stride is None and can_be_seamless
        return None if is_seamless else self._blended_stride(size)

    @property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """The rows and the columns by which each seamless pass moves the image.

        Odd ones let the second pass pool every pixel with other neighbours than the first.
        """
        return ((0, 0), (5, 11)) if self.mode == "auto" else ((0, 0),)

    def _blended_stride(self, size: int) -> int:
        text = DEFAULT_STRIDE if self.stride is None else self.stride.strip()
        match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)(%?)", text)
        if not match or (not match[2] and "." in match[1]):
            problem = f"{self.stride!r} is neither pixels nor a share"
            raise InputError(arg("stride"), problem, "write 48 or 50%")
        number = float(match[1])
        if match[2]:
            _check("stride", number, 1, 100)
            return max(1, round(size * number / 100))
        if number < 1:
            raise InputError(arg("stride"), "is 0", "at least 1 pixel")
        return min(size, int(number))


def split_augment(text: str) -> tuple[str, str | None]:
    """Return the preset of an augmentation, and the plug-in's name that follows it or None.

    "auto" is ("light", None), "mine" is ("light", "mine"), "none+mine" is ("none", "mine").

    Raises:
        InputError: The part before a "+" is no preset, or the part after it is a preset.
    """
    preset, plus, own = text.rpartition("+")
    if plus and own in ("", *AUGMENTS):
        raise InputError(arg("augment"), f"{text!r} names no plug-in after the '+'", "name one")
    if own in AUGMENTS:
        preset, own = own, ""
    check_choice("augment", preset or "auto", AUGMENTS)
    return ("light" if preset in ("", "auto") else preset), own or None


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise `InputError` naming the nearest choice unless ``value`` is one of ``choices``."""
    choices = tuple(choices)
    if value not in choices:
        text = f"{value!r} is not known"
        raise InputError(arg(name), text, nearest(value, choices) + "one of " + ", ".join(choices))


def check_line_width(width: float | None) -> None:
    """Raise `InputError` unless the width of drawn lines is None or 1 to 1,000 pixels."""
    if width is not None:
        _check("line_width", width, 1, 1000)


def check_share(name: str, value: float) -> None:
    """Raise `InputError` unless the value of an argument is 0 to 1."""
    _check(name, value, 0, 1)


def parse_duration(text: str) -> float:
    """Return the seconds of "90s", "10m", "10 min", "1h" or "1h30m".

    Raises:
        InputError: Anything else, a number without a unit, or nothing at all.
    """
    number, words = r"(\d+(?:\.\d+)?)\s*", text.strip().lower()
    if re.fullmatch(number, words):
        problem = f"{text!r} has no unit: seconds or minutes?"
        raise InputError(arg("budget"), problem, f"write {words}s or {words}m")
    match = re.fullmatch(
        rf"(?:{number}(?:h|hrs?|hours?)\s*)?"
        rf"(?:{number}(?:m|mins?|minutes?)\s*)?"
        rf"(?:{number}(?:s|secs?|seconds?)\s*)?",
        words,
    )
    if not match or not any(match.groups()):
        raise InputError(arg("budget"), f"{text!r} is no time", "write 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _check(name: str, value: float, low: float, high: float) -> None:
    """Raise `InputError` unless ``value`` is finite and lies from ``low`` to ``high``."""
    if math.isnan(value) or math.isinf(value) or not low <= value <= high:
        top = "" if math.isinf(high) else f" to {high:g}"
        raise InputError(arg(name), f"{value:g} is out of range", f"{low:g}{top or ' or more'}")


def _take_types(settings: Any) -> None:
    """Give the fields of settings the types that they declare, as far as that is safe.

    Raises:
        InputError: The value of a field is of another type; see `as_declared`.
    """
    for field in fields(settings):
        given = getattr(settings, field.name)
        value = as_declared(field.name, given, field.type)
        if value is not given:
            object.__setattr__(settings, field.name, value)
