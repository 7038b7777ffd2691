"""Random augmentation of whole batches in torch: drawn on the CPU, applied where the batch is.

A stored patch has a margin m of real pixels around its core of S x S. So the pixels that turn,
shift or zoom into view are real:

    P = S + 2 m    +-----------+        every pixel of the core asks, through one composed map
                   |   +---+   |        (symmetry, rotation, zoom, shear, shift, elastic), where in
                   | m | S |   |  -->   the patch it comes from; the image is read there once,
                   |   +---+   |        bilinear, the mask once, nearest
                   +-----------+
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from unetseg import plugins
from unetseg.classes import IGNORED
from unetseg.devices import to_device
from unetseg.errors import InputError, arg
from unetseg.settings import SYMMETRIES

_SPANS = 4  # spans of the elastic spline across the core, on each axis
_POINTS = _SPANS + 3  # control points on each axis: four of them shape a cubic span


@dataclass(frozen=True)
class Augmentation:
    """How far each random change may go; the default changes nothing.

    Lengths are shares of the patch's core size S. Intensities are in standard deviations of the
    set, of which images are normalised to mean 0 and deviation 1. A factor f means a change
    drawn log-uniformly from 1/f to f; other ranges are uniform and, but for noise and blur,
    symmetric about 0.

    Attributes:
        hflip: Mirror left and right in half of the images.
        vflip: Mirror top and bottom in half of the images.
        quarter_turns: Turn by 0, 90, 180 or 270 degrees.
        warp: Share of the images that are resampled at all, by the next five together.
        rotate: Largest angle in degrees.
        zoom: Largest factor of magnification.
        shift: Largest shift on each axis.
        shear: Largest angle in degrees.
        elastic: Largest shift of a control point of the elastic deformation, at most 0.1. Below
            0.12 (0.48 of their distance) a cubic B-spline cannot fold (Choi & Lee 2000).
        brightness: Largest value added.
        contrast: Largest factor on the difference from the set's mean.
        gamma: Largest exponent, on the image rescaled to 0..1 by its own extremes.
        blur: Largest deviation in pixels of a Gaussian blur, at most 4; the smallest is half.
        noise: Largest standard deviation of Gaussian noise in every pixel.

    Raises:
        InputError: A value out of range.
    """

    hflip: bool = False
    vflip: bool = False
    quarter_turns: bool = False
    warp: float = 0.0
    rotate: float = 0.0
    zoom: float = 1.0
    shift: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "warp": (0, 1), "rotate": (0, 180), "zoom": (1, 4), "shift": (0, 0.5),
            "shear": (0, 60), "elastic": (0, 0.1), "brightness": (0, 10), "contrast": (1, 10),
            "gamma": (1, 10), "blur": (0, 4), "noise": (0, 10),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:  # nan fails too
                raise InputError(
                    f"augmentation: {name}", f"{value}", f"{low} to {high} is possible"
                )


# These are the shares of the images that get each change of intensity. They are close to those of
# nnU-Net and its batchgenerators pipeline (Isensee et al. 2021). Its shares are 0.1 for noise, 0.2
# for blur, 0.15 for brightness and contrast, and 0.3 for gamma. nnU-Net rescales each image by its
# own mean and deviation, so that another light changes little. Here all images are rescaled alike,
# as absolute values can matter, and brightness and contrast vary more.
_SHARES = {"brightness": 0.3, "contrast": 0.3, "gamma": 0.3, "blur": 0.2, "noise": 0.1}

PRESETS = {
    "none": Augmentation(),
    "light": Augmentation(
        warp=0.2, rotate=15, zoom=1.2, shift=0.1, brightness=1.0, contrast=2.0, noise=0.1
    ),
    "strong": Augmentation(
        warp=0.7, rotate=30, zoom=1.4, shift=0.1, shear=10, elastic=0.03,
        brightness=1.0, contrast=2.0, gamma=1.5, blur=1.0, noise=0.3,
    ),
}  # fmt: skip


def preset(name: str, symmetries: frozenset[str] = frozenset()) -> Augmentation:
    """Return the augmentation called ``name`` (a key of `PRESETS`) with ``symmetries`` on.

    With "turn" no direction is special, so images that are rotated are rotated by up to 45 degrees.
    Together with quarter turns, every angle occurs. "none" has no symmetries either.

    Raises:
        InputError: An unknown name or symmetry.
    """
    if name not in PRESETS:
        raise InputError(arg("augment"), f"{name!r} is unknown", f"choose of {', '.join(PRESETS)}")
    if unknown := sorted(symmetries - set(SYMMETRIES)):
        known = ", ".join(SYMMETRIES)
        raise InputError("symmetries", f"{unknown[0]!r} is unknown", f"choose of {known}")
    base = PRESETS[name]
    if name == "none":
        return base
    return replace(
        base,
        hflip="hflip" in symmetries,
        vflip="vflip" in symmetries,
        quarter_turns="turn" in symmetries,
        rotate=45 if "turn" in symmetries else base.rotate,
    )


@dataclass(frozen=True)
class Draw:
    """The random draw for each of N images: small tensors on the CPU; a part is ``draw[a:b]``.

    Attributes:
        symmetry: ``(N,)`` int64, 0 to 7: ``symmetry % 4`` quarter turns, mirrored if 4 or more.
        warped: ``(N,)`` bool: resampled by ``matrix``, ``shift`` and ``elastic``.
        matrix: ``(N, 2, 2)`` float64: from (row, column) in the output to that in the patch, both
            from the centre; without the symmetry.
        shift: ``(N, 2)`` float64, shares of S, added after the matrix.
        elastic: ``(N, 2, G, G)`` float64: shifts of the G x G control points, shares of S.
        gain: ``(N,)`` float32: the image is multiplied by it ...
        offset: ``(N,)`` float32: ... and this is added.
        gamma: ``(N,)`` float32: exponent, 1 for none.
        blur: ``(N,)`` float32: deviation in pixels, 0 for none.
        noise: ``(N,)`` float32: standard deviation, 0 for none.
        seed: ``(N,)`` int64: of the image's own noise.
    """

    symmetry: Tensor
    warped: Tensor
    matrix: Tensor
    shift: Tensor
    elastic: Tensor
    gain: Tensor
    offset: Tensor
    gamma: Tensor
    blur: Tensor
    noise: Tensor
    seed: Tensor

    def __len__(self) -> int:
        return len(self.symmetry)

    def __getitem__(self, part: slice | Tensor) -> "Draw":
        return Draw(*(getattr(self, field.name)[part] for field in fields(self)))


Change = Callable[[Tensor, Tensor, Draw], tuple[Tensor, Tensor]]


def draw(count: int, augmentation: Augmentation, generator: torch.Generator) -> Draw:
    """Draw the changes of ``count`` images from ``generator`` (CPU).

    With several ranks, each draws for the total batch and applies its own slice. So the changes of
    an image do not depend on the rank that computes it.
    """
    a = augmentation
    columns = iter(torch.rand(19, count, generator=generator, dtype=torch.float64).unbind())

    def symmetric(limit: float) -> Tensor:
        return (next(columns) * 2 - 1) * limit

    def factor(limit: float) -> Tensor:
        return symmetric(math.log(limit)).exp()

    def some(name: str) -> Tensor:
        return next(columns) < _SHARES[name]

    hflip = (next(columns) < 0.5) & a.hflip
    vflip = (next(columns) < 0.5) & a.vflip  # mirrored left and right, then turned by 180 degrees
    turns = (next(columns) * 4).long().clamp_max(3) * a.quarter_turns + 2 * vflip
    angle = torch.deg2rad(symmetric(a.rotate))
    cos, sin = torch.cos(angle), torch.sin(angle)
    shear = torch.tan(torch.deg2rad(symmetric(a.shear)))
    rotation = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)
    zero, one = torch.zeros_like(shear), torch.ones_like(shear)
    slant = torch.stack([one, shear, zero, one], 1).view(-1, 2, 2)
    moves = a.rotate or a.zoom > 1 or a.shift or a.shear or a.elastic
    elastic = torch.rand(count, 2, _POINTS, _POINTS, generator=generator, dtype=torch.float64)
    return Draw(
        symmetry=turns % 4 + 4 * (hflip ^ vflip),
        warped=next(columns) < (a.warp if moves else 0),
        matrix=rotation @ slant / factor(a.zoom)[:, None, None],
        shift=torch.stack([symmetric(a.shift), symmetric(a.shift)], 1),
        gain=torch.where(some("contrast"), factor(a.contrast), 1).float(),
        offset=torch.where(some("brightness"), symmetric(a.brightness), 0).float(),
        gamma=torch.where(some("gamma"), factor(a.gamma), 1).float(),
        blur=torch.where(some("blur"), (next(columns) + 1) * (a.blur / 2), 0).float(),
        noise=torch.where(some("noise"), next(columns) * a.noise, 0).float(),
        elastic=(elastic * 2 - 1) * a.elastic,
        seed=torch.randint(2**62, (count,), generator=generator),
    )


def apply(images: Tensor, masks: Tensor, params: Draw, size: int) -> tuple[Tensor, Tensor]:
    """Cut the cores of patches, changed as drawn; an image drawn unchanged is its centre crop.

    Args:
        images: ``(N, C, P, P)`` float32, normalised, on any device; P - ``size`` is even.
        masks: ``(N, P, P)`` uint8 class indices, on the same device.
        params: The parameters of the N images.
        size: S, rows and columns of the result.

    Returns:
        Images ``(N, C, S, S)`` float32, channels last in memory; beyond the patch it is reflected.
        Masks ``(N, S, S)`` int64; beyond the patch they are `IGNORED`.
    """
    pixels = images.new_empty(*images.shape[:2], size, size)
    labels = masks.new_empty(len(masks), size, size, dtype=torch.int64)
    for read, chosen in ((_read_exactly, ~params.warped), (_read_warped, params.warped)):
        if len(index := chosen.nonzero()[:, 0]):
            at = to_device(index, images.device)
            # index_select: several times faster than images[at]
            part = images.index_select(0, at), masks.index_select(0, at)
            core = read(*part, params[index], size)
            pixels.index_copy_(0, at, core[0])
            labels.index_copy_(0, at, core[1])
    pixels = _change_intensities(pixels, params)
    return pixels.contiguous(memory_format=torch.channels_last), labels


def load_plugin(name: str) -> Change:
    """Return the augmentation that an entry point in the group ``unetseg.augmentations`` offers.

    Its function takes images (N, C, S, S) float32, normalised, masks (N, S, S) int64 with
    `IGNORED`, and a generator on their device. It returns images and masks of the same shapes and
    types. The generator is seeded by seed, epoch and step, and under several ranks by the rank's
    part of the batch.

    Raises:
        InputError: A name that nobody offers.
        MachineError: The plug-in cannot be imported, or (when called) fails.
    """
    plugin = plugins.offered(plugins.AUGMENTATIONS, name)
    function = plugins.load(plugin)

    def change(images: Tensor, masks: Tensor, params: Draw) -> tuple[Tensor, Tensor]:
        generator = torch.Generator(images.device)
        generator.manual_seed(int(params.seed[0]) ^ 1)  # not the stream of the image's own noise
        before = [(t.shape, t.dtype) for t in (images, masks)]
        with plugins.plugin_errors(plugin):
            changed, labels = function(images, masks, generator)
            found = [(t.shape, t.dtype) for t in (changed, labels)]
            if found != before:
                raise TypeError(f"images and masks became {found}, they were {before}")
        return changed.contiguous(memory_format=torch.channels_last), labels

    return change


def _symmetry_matrices() -> Tensor:
    """Return the 8 matrices, ``(8, 2, 2)`` float64, that `Draw.symmetry` numbers.

    Each turns (row, column) in the output into (row, column) in the patch, from the centre.
    """
    turn = torch.tensor(
        [[0, 1], [-1, 0]], dtype=torch.float64
    )  # the output's top row is the last column
    mirror = torch.tensor([[1, 0], [0, -1]], dtype=torch.float64)
    turns = [torch.linalg.matrix_power(turn, k) for k in range(4)]
    return torch.stack([*turns, *(mirror @ t for t in turns)])


@lru_cache(maxsize=8)
def _sources(size: int, padded: int, device: torch.device) -> Tensor:
    """Return where the pixels of a core come from under every symmetry.

    ``(8, S * S)`` int64: flat indices into a patch of ``padded`` x ``padded``.
    """
    steps = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    places = torch.cartesian_prod(steps, steps)  # (S * S, 2) from the centre
    found = (places @ _symmetry_matrices().mT + (padded - 1) / 2).long()  # sums of halves are exact
    return (found[..., 0] * padded + found[..., 1]).to(device)


def _read_exactly(images: Tensor, masks: Tensor, params: Draw, size: int) -> tuple[Tensor, Tensor]:
    """Read the cores through their symmetry alone: every value is one of the patch's own."""
    count, channels, padded, _ = images.shape
    sources = _sources(size, padded, images.device)[to_device(params.symmetry, images.device)]
    pixels = images.flatten(2).gather(2, sources[:, None].expand(-1, channels, -1))
    labels = masks.flatten(1).gather(1, sources)
    return pixels.view(count, channels, size, size), labels.view(count, size, size).long()


def _read_warped(images: Tensor, masks: Tensor, params: Draw, size: int) -> tuple[Tensor, Tensor]:
    """Read the cores through the whole map, the image bilinear, the mask nearest."""
    grid = _grid(params, size, images.shape[-1], images.device)
    pixels = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # Beyond the patch grid_sample gives 0, and so IGNORED after the difference; exact in float32.
    lack = (IGNORED - masks[:, None]).float()
    lack = F.grid_sample(lack, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return pixels, IGNORED - lack[:, 0].long()


def _grid(params: Draw, size: int, padded: int, device: torch.device) -> Tensor:
    """Return the places that `grid_sample` reads: ``(N, S, S, 2)`` float32, (x, y), -1 to 1.

    The map is a surface of uniform cubic B-splines. These splines reproduce linear functions: if
    the matrix maps the control points, it maps every pixel. The elastic shifts of the control
    points are added. So two small matrix products per image are enough.
    """
    # float64 is kept from TF32 and autocast, which would misplace pixels; MPS lacks all three.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    matrix = params.matrix @ _symmetry_matrices()[params.symmetry]
    steps = (torch.arange(_POINTS, dtype=torch.float64) - 1) / _SPANS - 0.5  # one beyond each side
    places = torch.cartesian_prod(steps, steps).T  # (2, G * G), shares of S from the centre
    controls = (matrix @ places).view(-1, 2, _POINTS, _POINTS) + params.elastic
    controls = controls + params.shift[:, :, None, None]
    pixels = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    basis = to_device(_cubic((pixels[:, None] - steps) * _SPANS).to(dtype), device)  # (S, G)
    controls = to_device((controls.flip(1) * (2 * size / padded)).to(dtype), device)  # (x, y)
    return (basis @ (controls @ basis.T)).float().permute(0, 2, 3, 1)


def _cubic(x: Tensor) -> Tensor:
    """Return the uniform cubic B-spline around 0, which is 0 from a distance of 2 on."""
    x = x.abs()
    return torch.where(x < 1, 2 / 3 - x**2 + x**3 / 2, (2 - x).clamp_min(0) ** 3 / 6)


def _change_intensities(images: Tensor, params: Draw) -> Tensor:
    """Blur, gain and offset, gamma, noise: the order in which a camera adds them."""
    for i in params.blur.nonzero()[:, 0].tolist():
        images[i] = _blur(images[i], float(params.blur[i]))
    gain, offset = (
        to_device(p, images.device)[:, None, None, None] for p in (params.gain, params.offset)
    )
    images = torch.addcmul(offset, images, gain)
    for i in (params.gamma != 1).nonzero()[:, 0].tolist():
        low, high = images[i].aminmax()
        span = (high - low).clamp_min(1e-6)
        images[i] = ((images[i] - low) / span) ** float(params.gamma[i]) * span + low
    for i in params.noise.nonzero()[:, 0].tolist():
        own = torch.Generator(images.device).manual_seed(int(params.seed[i]))
        noise = torch.randn(images.shape[1:], generator=own, device=images.device)
        images[i] += noise * float(params.noise[i])
    return images


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur ``(C, S, S)`` by a Gaussian; at the border its weights are shared out inside.

    Two products with an S x S matrix: short, and no slower than convolving one image.
    """
    steps = torch.arange(image.shape[-1], device=image.device) / sigma
    distance = (steps - steps[:, None]).abs()
    # Cut at 4 deviations: weights near the smallest float would slow the products tenfold.
    weights = torch.where(distance <= 4, -0.5 * distance**2, -math.inf).softmax(1)
    return weights @ image @ weights.T
