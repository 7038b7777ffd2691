"""Repairing a set of labelled images into ``images/``, ``masks/`` and ``classes.toml``.

Every source is read into class indices first; what is written is always the same: images as they
were, masks of values 0, 1, 2, ... with a palette, 255 where a pixel is to be ignored.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg import atomic, drawing, folder, images, masks
from unetseg.classes import IGNORED, ClassTable, SegmentationClass, colour_to_rgb, default_colour
from unetseg.errors import InputError, show
from unetseg.interrupts import catching
from unetseg.masks import NOISE, RawMask, is_between
from unetseg.progress import OnProgress, Progress, ignore

LIMIT = 0.05  # share of blended pixels over which a mask is no mask with smooth edges any more

_CLUSTER = 0.001  # share of all pixels that makes a colour of a noisy set a class
_SOLID = 0.05  # of its pixels: a class that is more than thin lines fills patches with as many
_COMMON = 0.01  # share of all pixels over which a colour is not passed over as noise
_VOID = "#e0e0c0"  # the outlines that Pascal VOC leaves out
_LISTS = ("train", "val", "test")
_ADVICE = "list the classes in a file and pass it with --classes"


@dataclass(frozen=True)
class Conversion:
    """What `convert_folder` wrote.

    Attributes:
        folders: The folders of labelled images: one, or one a list (``train``, ``val``).
        images: How many labelled images are in each.
        left_out: Images that no list names.
        classes: As written.
        pixels: Pixels of all masks.
        snapped: Of them, moved to the nearest class.
        blended: Of these, farther from it than noise.
        ignored: Pixels to be ignored.
    """

    folders: tuple[Path, ...]
    images: tuple[int, ...]
    left_out: tuple[str, ...]
    classes: ClassTable
    pixels: int
    snapped: int
    blended: int
    ignored: int


@dataclass
class _Source:
    """A set as it was found: where its images are, and how the mask of each is had.

    ``mask(name, shape)`` returns class indices ``(H, W)`` and counts in ``tally``.
    """

    images: dict[str, Path]
    classes: tuple[SegmentationClass, ...]
    mask: Callable[[str, tuple[int, int]], NDArray[np.uint8]]
    problem: InputError | None = None
    tally: Counter[str] = field(default_factory=Counter)


def convert_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    classes: Path | None = None,
    ignored: Sequence[int | str] = (),
    instances: bool = False,
    fov: str | None = None,
    order: Sequence[str] = (),
    limit: float = LIMIT,
    overwrite: bool = False,
    on_progress: OnProgress = ignore,
) -> Conversion:
    """Write a repaired copy of a set of labelled images; the original is not touched.

    Read are: LabelMe files (polygons, rectangles, circles); one mask a class (``x_line.png`` or
    ``masks/line/x.png``); Pascal VOC and CVAT masks with their ``labelmap.txt``; and all that
    `unetseg.folder.find_pairs` reads, with masks that are blended or noisy, or saved as JPEG.
    ``train.txt``, ``val.txt`` and ``test.txt`` become folders of these names.

    Args:
        source: The set.
        out: A new or empty folder outside of it.
        classes: A ``classes.toml`` that says what the masks hold; None takes the set's own, or
            the values and colours found.
        ignored: Mask values or colours that are no class.
        instances: Masks number objects: make background, foreground and border of them, the
            border one pixel wide inside each object.
        fov: Folder (in ``source``, or a path) of masks of the field of view; outside is ignored.
        order: Where masks of one class each overlap: all classes, the topmost last.
        limit: Share of a mask's pixels, 0 to 1, that may lie farther from the nearest class than
            noise.
        overwrite: Replace what an earlier conversion wrote.
        on_progress: Receives `Progress`.

    Raises:
        InputError: A set that cannot be read safely in one way.
        MachineError: The disk is full, or writing is not permitted.
        Interrupted: A signal came.
    """
    root, target = Path(source), Path(out)
    _check_places(root, target, overwrite)
    found = (
        _labelme(root)
        or _class_masks(root, tuple(order))
        or _paired(root, classes, tuple(ignored), instances, fov, limit)
    )
    views = _fields_of_view(root, fov, found.images) if fov else {}
    parts, left_out = _parts(root, found)
    # Values are indices; colours stay, so that predictions look like the masks people know.
    written = tuple(SegmentationClass(c.name, i, c.colour) for i, c in enumerate(found.classes))
    table = ClassTable(written, (IGNORED,))
    total, done = sum(map(len, parts.values())), 0
    _clear(target)  # not sooner: what is wrong with the source shows first
    with catching() as caught:
        for part, names in parts.items():
            for name in names:
                caught.check(target, "run the same line again with --overwrite")
                mask = _mask_of(found, name, views.get(name))
                _write(target / part, name, found.images[name], mask, table)
                found.tally["pixels"] += mask.size
                found.tally["ignored"] += int((mask == IGNORED).sum())
                done += 1
                on_progress(Progress("converting", done, total, "images", show(name)))
            folder.write_classes(target / part, table)
    tally = found.tally
    return Conversion(
        tuple(target / part for part in parts),
        tuple(map(len, parts.values())),
        left_out,
        table,
        tally["pixels"],
        tally["snapped"],
        tally["blended"],
        tally["ignored"],
    )


def _check_places(root: Path, target: Path, overwrite: bool) -> None:
    """Refuse a target that is, holds or lies in the source, or holds other things."""
    if not root.is_dir():
        raise InputError(
            root, "not found" if not root.exists() else "is no folder", "name a folder"
        )
    ours, theirs = target.resolve(), root.resolve()
    if ours == theirs or theirs in ours.parents or ours in theirs.parents:
        raise InputError(target, f"lies in {root} or around it", "name a folder elsewhere")
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(target, "is a file; a folder is due here", "choose another")
    if any(target.iterdir()) and not overwrite:
        raise InputError(target, "is not empty", "choose another, or --overwrite")


def _clear(target: Path) -> None:
    """Remove what an earlier conversion wrote."""
    for part in ("", *_LISTS):
        for pattern in ("images/*", "masks/*.png", "classes.toml"):
            for old in (target / part).glob(pattern):
                if old.is_file():
                    old.unlink()


def _mask_of(found: _Source, name: str, view: Path | None) -> NDArray[np.uint8]:
    """Return the class indices of an image, ignored outside its field of view."""
    info = images.read_info(found.images[name])
    shape = (info.height, info.width)
    mask = found.mask(name, shape)
    _check_shape(found.images[name], shape, mask.shape)
    if view:
        inside = _is_set(view, found.tally)
        _check_shape(view, shape, inside.shape)
        mask = np.where(inside, mask, np.uint8(IGNORED))
    return mask


def _check_shape(path: Path, due: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if due != shape:
        text = f"image of {due[0]} x {due[1]} pixels, mask of {shape[0]} x {shape[1]}"
        raise InputError(path, text, "make image and mask the same size")


def _write(part: Path, name: str, image: Path, mask: NDArray[np.uint8], table: ClassTable) -> None:
    """Write a labelled image, the mask first; the image byte by byte, but for one to be turned."""
    images.write_mask(part / "masks" / f"{name}.png", mask, table)
    if images.read_info(image).orientation == 1:
        atomic.write_bytes(part / "images" / image.name, image.read_bytes())
        return
    pixels = images.read_image(image)
    if pixels.shape[2] not in (1, 3) or pixels.dtype.kind == "f":
        text = "is turned by its EXIF orientation and holds more than a PNG can"
        raise InputError(image, text, "save it upright")
    images.write_picture(part / "images" / f"{name}.png", pixels)


# --- splits and fields of view ---------------------------------------------------------------


def _parts(root: Path, found: _Source) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return the names of each part ("" where there are no lists), and those in no list."""
    lists = {}
    for home in (root, root / "ImageSets" / "Segmentation"):
        lists = {n: home / f"{n}.txt" for n in _LISTS if (home / f"{n}.txt").is_file()}
        if lists:
            break
    if len(lists) < 2:
        if found.problem:
            raise found.problem
        return {"": list(found.images)}, ()
    parts: dict[str, list[str]] = {}
    owner: dict[str, Path] = {}
    for part, path in lists.items():
        parts[part] = []
        for line in path.read_text("utf-8-sig", "replace").splitlines():
            if not line.strip():
                continue
            # a name, a path, or the paths of image and mask
            words = (Path(line.strip()), Path(line.split()[0]))
            known = [n for w in words for n in (w.name, w.stem) if n in found.images]
            if not known:
                text = f"names {show(line.strip())}, which has no image or no mask"
                raise InputError(path, text, "mend the list")
            if known[0] in owner:
                text = f"names {show(known[0])}, which {owner[known[0]].name} names, too"
                raise InputError(path, text, "an image stands on one side only")
            owner[known[0]] = path
            parts[part].append(known[0])
    return parts, tuple(n for n in found.images if n not in owner)


def _fields_of_view(root: Path, fov: str, paths: Mapping[str, Path]) -> dict[str, Path]:
    home = root / fov if (root / fov).is_dir() else Path(fov)
    pairs, problem = folder.match_files(home, list(paths.values()), folder.list_images(home))
    if problem:
        raise problem
    return {pair.name: pair.mask for pair in pairs}


# --- pairs of images and masks ---------------------------------------------------------------


def _paired(
    root: Path,
    file: Path | None,
    ignored: tuple[int | str, ...],
    instances: bool,
    fov: str | None,
    limit: float,
) -> _Source:
    pairs, problem = folder.match_pairs(root, without=Path(fov).name if fov else "")
    mask_of = {p.name: p.mask for p in pairs}
    source = _Source({p.name: p.image for p in pairs}, (), _unread, problem)
    if instances:
        source.classes = tuple(
            SegmentationClass(name, i, default_colour(i))
            for i, name in enumerate(("background", "foreground", "border"))
        )
        source.mask = lambda name, _: _regions(mask_of[name])
        return source
    table = _labelmap(root) or folder.load_classes(root, file)
    table = _table_found(mask_of, ignored) if table is None else _with(table, ignored)
    source.classes = table.classes

    def read(name: str, _: tuple[int, int]) -> NDArray[np.uint8]:
        path = mask_of[name]
        raw = _read(path)
        try:
            return masks.decode(raw, table, path)
        except InputError as error:
            return _snap(raw, table, path, limit, source.tally, error)

    source.mask = read
    return source


def _unread(name: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
    raise NotImplementedError


def _with(table: ClassTable, ignored: tuple[int | str, ...]) -> ClassTable:
    return table.with_ignored(ignored) if ignored else table


def _read(path: Path) -> RawMask:
    """Read a mask as `images.read_mask` does, and JPEG masks too."""
    if images.read_info(path).format != "JPEG":
        return images.read_mask(path)
    pixels = images.read_image(path)
    return RawMask(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _labelmap(root: Path) -> ClassTable | None:
    """Return the classes of a CVAT or Pascal VOC ``labelmap.txt``: ``name:r,g,b:parts:actions``."""
    path = root / "labelmap.txt"
    if not path.is_file():
        return None
    classes = []
    for line in path.read_text("utf-8-sig", "replace").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(.+?):(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})(:|$)", line)
        if not match or max(int(match[i]) for i in (2, 3, 4)) > 255:
            raise InputError(path, f"line {show(line[:60])!r}", "write name:red,green,blue::")
        colour = "#{:02x}{:02x}{:02x}".format(*(int(match[i]) for i in (2, 3, 4)))
        classes.append(SegmentationClass(match[1], None, colour))
    void = () if _VOID in {c.colour for c in classes} else (_VOID,)
    return ClassTable(tuple(classes), void)


def _table_found(mask_of: Mapping[str, Path], ignored: tuple[int | str, ...]) -> ClassTable:
    """Return the classes that masks hold, those of noisy masks by their commonest colours."""
    paths = sorted(set(mask_of.values()))
    found = {str(path): masks.find_keys(_read(path)) for path in paths}
    if any(f.colours.get(IGNORED) == _VOID for f in found.values()):
        ignored = (*ignored, IGNORED)
    try:
        return masks.discover(found, ignored)
    except InputError as error:
        if "looks like" not in error.problem or "per object" in error.problem:
            raise
    classes = tuple(SegmentationClass(c, None, c) for c in sorted(_centres(paths)))
    keep = tuple(i for i in ignored if isinstance(i, str))
    return _with(ClassTable(classes), keep)


def _centres(paths: Sequence[Path]) -> list[str]:
    """Return the colours "#rrggbb" that a noisy set is made of.

    The commonest colour takes all that lie within noise of it, then the commonest of the rest,
    and so on. A group that holds hardly any pixels, lies on the way between two others, or fills
    no patch of 3 x 3 pixels is noise or a blend.

    Raises:
        InputError: A group that may be a class of thin lines, or noise.
    """
    histogram: Counter[int] = Counter()
    for path in paths:
        codes, counts = np.unique(_codes(_colours(_read(path))), return_counts=True)
        histogram.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    points, shares, group = _groups(histogram)
    solid = np.zeros(len(points))
    for path in paths:
        solid += _solid_pixels(path, group, len(points))
    solid /= np.maximum(shares * histogram.total(), 1)
    centres: list[NDArray[np.int64]] = []
    for i in np.argsort(-shares):
        point = points[i]
        if shares[i] < _CLUSTER or any(
            is_between(point, a, b) for k, a in enumerate(centres) for b in centres[:k]
        ):
            continue
        if solid[i] >= _SOLID:
            centres.append(point)
        elif shares[i] >= _COMMON and all(np.abs(c - point).max() > 2 * NOISE for c in centres):
            text = f"{_clean(point)} in {100 * shares[i]:.1f} % of the pixels: thin lines or noise?"
            raise InputError("masks", text, _ADVICE)
    return [_clean(c) for c in centres]


def _groups(
    histogram: Counter[int],
) -> tuple[NDArray[np.int64], NDArray[np.float64], dict[int, int]]:
    """Return colours ``(G, 3)``, the share of pixels of each group, and the group of each code."""
    codes = np.array([c for c, _ in histogram.most_common()], np.int64)
    counts = np.array([n for _, n in histogram.most_common()], np.int64)
    points = _unpack(codes)
    group = np.full(len(codes), -1)
    firsts: list[int] = []
    while (group < 0).any() and len(firsts) < masks.MAX_FOUND:
        first = int((group < 0).argmax())
        near = (group < 0) & (np.abs(points - points[first]).max(1) <= NOISE)
        group[near] = len(firsts)
        firsts.append(first)
    shares = np.array([counts[group == i].sum() for i in range(len(firsts))]) / counts.sum()
    return points[firsts], shares, dict(zip(codes.tolist(), group.tolist(), strict=True))


def _solid_pixels(path: Path, group: Mapping[int, int], count: int) -> NDArray[np.int64]:
    """Return for each group the pixels whose eight neighbours are of it, too."""
    distinct, places = np.unique(_codes(_colours(_read(path))), return_inverse=True)
    height, width = images.read_info(path).height, images.read_info(path).width
    groups = np.array([group[c] for c in distinct.tolist()])[places].reshape(height, width)
    inside = _even(groups) & (groups >= 0)
    return np.bincount(groups[inside], minlength=count)


def _even(codes: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return where all eight neighbours are equal to a pixel."""
    from scipy import ndimage

    return np.asarray(ndimage.maximum_filter(codes, 3) == ndimage.minimum_filter(codes, 3))


def _clean(colour: NDArray[np.int64]) -> str:
    """Return "#rrggbb", with channels a few levels from 0, 128 or 255 moved there."""
    pure = np.array([0, 128, 255])
    nearest = pure[np.abs(colour[:, None] - pure).argmin(1)]
    channels = np.where(np.abs(colour - nearest) <= 8, nearest, colour)
    return "#{:02x}{:02x}{:02x}".format(*channels.tolist())


def _snap(
    raw: RawMask,
    table: ClassTable,
    path: Path,
    limit: float,
    tally: Counter[str],
    error: InputError,
) -> NDArray[np.uint8]:
    """Return the class nearest to each pixel's colour, where that is safe.

    It is where classes lie far apart, no blend of two looks like a third, no solid patch is far
    from all, and few pixels are blends.
    """
    if raw.values.ndim == 2 and raw.values.max() > 255:
        raise error
    keys = [table.key(i) for i in range(len(table.classes))] + list(table.ignore)
    indices = [*range(len(table.classes)), *(IGNORED for _ in table.ignore)]
    points = np.array(
        [colour_to_rgb(k) if isinstance(k, str) else (min(k, 255),) * 3 for k in keys]
    )
    apart = np.abs(points[:, None] - points[None]).max(-1)
    np.fill_diagonal(apart, 255)
    if apart.min() < 2 * NOISE:
        raise error
    codes = _codes(_colours(raw))
    distinct, places = np.unique(codes, return_inverse=True)
    distances = np.abs(_unpack(distinct)[:, None] - points[None]).max(-1)  # (codes, keys)
    nearest, distance = distances.argmin(1), distances.min(1)
    far = (distance > NOISE)[places].reshape(codes.shape)
    blended = int(far.sum())
    if blended:
        _check_blends(path, points, keys)
        _check_solid(path, codes, far)
    if blended > limit * codes.size:
        text = f"{100 * blended / codes.size:.1f} % of the pixels lie between classes"
        remedy = f"over the limit of {100 * limit:g} %: look at it, then pass a larger --limit"
        raise InputError(path, text, remedy)
    tally["snapped"] += int((distance > 0)[places].sum())
    tally["blended"] += blended
    snapped = np.array(indices, np.uint8)[nearest][places]
    return np.asarray(snapped.reshape(codes.shape))


def _check_blends(path: Path, points: NDArray[np.int64], keys: Sequence[int | str]) -> None:
    for i, point in enumerate(points):
        for j, a in enumerate(points):
            for k in range(j):
                if i not in (j, k) and is_between(point, a, points[k]):
                    text = f"blends of {keys[j]} and {keys[k]} look like class {keys[i]}"
                    raise InputError(path, text, "save the masks without smoothing")


def _check_solid(path: Path, codes: NDArray[np.int32], far: NDArray[np.bool_]) -> None:
    """Refuse a patch of 3 x 3 pixels of one colour that is no class: no blend is so wide."""
    solid = far & _even(codes)
    if solid.any():
        y, x = np.argwhere(solid)[0]
        text = f"colour #{int(codes[y, x]):06x} fills a patch at (x {x}, y {y}) and is no class"
        raise InputError(path, text, _ADVICE)


def _colours(raw: RawMask) -> NDArray[np.uint8]:
    """Return what a mask looks like, ``(H, W, 3)``."""
    if raw.values.ndim == 3:
        return raw.values.astype(np.uint8)
    if raw.palette is not None:
        return np.asarray(raw.palette[raw.values])
    if raw.values.max() > 255:
        raise InputError("masks", "values over 255 and no clear classes", _ADVICE)
    return np.repeat(raw.values.astype(np.uint8)[..., None], 3, axis=2)


def _codes(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = colours.astype(np.int32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def _unpack(codes: NDArray[Any]) -> NDArray[np.int64]:
    wide = codes.astype(np.int64)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=-1)


# --- numbered objects ------------------------------------------------------------------------


def _regions(path: Path) -> NDArray[np.uint8]:
    """Return 0 background, 1 foreground, 2 border of a mask that numbers objects.

    The border are the pixels of an object beside another number: one pixel wide along the
    background, two where objects touch.
    """
    raw = images.read_mask(path)
    # In a palette or RGB mask black is the background, in others 0.
    numbers = raw.values if raw.values.ndim == 2 else _codes(raw.values.astype(np.uint8))
    padded = np.pad(numbers, 1, mode="edge")
    height, width = numbers.shape
    border = np.zeros(numbers.shape, bool)
    for row in (0, 1, 2):
        for column in (0, 1, 2):
            border |= padded[row : row + height, column : column + width] != numbers
    inside = numbers != 0
    return np.where(inside, np.where(border, 2, 1), 0).astype(np.uint8)


# --- one mask a class ------------------------------------------------------------------------


def _class_masks(root: Path, order: tuple[str, ...]) -> _Source | None:
    """Read ``masks/line/x.png`` or ``x_line.png`` for each class; None where it is neither."""
    parts = _class_folders(root) or _class_suffixes(root)
    if parts is None:
        return None
    paths, files = parts  # image of a name; (class, file) of a name
    names = sorted({c for found in files.values() for c, _ in found}, key=folder.natural_key)
    if order and sorted(order) != sorted(names):
        raise InputError("--order", f"{', '.join(order)}", f"the classes are {', '.join(names)}")
    names = list(order) or names
    classes = [SegmentationClass("background", 0, default_colour(0))]
    classes += [SegmentationClass(n, i + 1, default_colour(i + 1)) for i, n in enumerate(names)]
    source = _Source(paths, tuple(classes), _unread)

    def read(name: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        mask = np.zeros(shape, np.uint8)
        for label, path in sorted(files[name], key=lambda item: names.index(item[0])):
            inside = _is_set(path, source.tally)
            _check_shape(path, shape, inside.shape)
            overlap = int((mask[inside] > 0).sum())
            if overlap and not order:
                other = names[int(mask[inside].max()) - 1]
                remedy = f"say which is on top, the last: --order {other},{label}"
                raise InputError(path, f"{overlap:,} pixels are {show(other)}, too", remedy)
            mask[inside] = names.index(label) + 1
        return mask

    source.mask = read
    return source


_Files = tuple[dict[str, Path], dict[str, list[tuple[str, Path]]]]


def _class_folders(root: Path) -> _Files | None:
    """Find ``images/x.png`` with ``masks/line/x.png``, ``masks/ellipse/x.png``."""
    home = next((d for d in _folders(root) if d.name.lower() in folder.MASK_FOLDERS), None)
    if home is None or _pictures(home) or not any(_pictures(d) for d in _folders(home)):
        return None
    inside = [d for d in _folders(root) if d.name.lower() in folder.IMAGE_FOLDERS]
    paths = {p.stem: p for p in folder.list_images(inside[0] if inside else root)}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for part in _folders(home):
        for path in _pictures(part):
            if path.stem not in files:
                raise InputError(path, "no image has this name", "name it like its image")
            files[path.stem].append((part.name, path))
    return paths, files


def _class_suffixes(root: Path) -> _Files | None:
    """Find ``x.png`` with ``x_line.png``, ``x_ellipse.png``, in one folder or in two."""
    inside = [d for d in _folders(root) if d.name.lower() in folder.IMAGE_FOLDERS]
    beside = [d for d in _folders(root) if d.name.lower() in folder.MASK_FOLDERS]
    pictures = _pictures(inside[0] if inside else root)
    others = _pictures(beside[0]) if beside else pictures
    stems = {p.stem for p in pictures}
    owner = {}
    for path in others:
        cuts = [m.start() for m in re.finditer(r"[-_ .]", path.stem)]
        known = [c for c in cuts if path.stem[:c] in stems]
        if known:
            owner[path] = max(known)
    paths = {p.stem: p for p in pictures if p not in owner}
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in paths}
    for path, cut in owner.items():
        if path.stem[:cut] not in files:
            return None
        files[path.stem[:cut]].append((path.stem[cut + 1 :], path))
    labels = Counter(label for found in files.values() for label, _ in found)
    are_masks = {f"_{label}".lower() in folder.MASK_SUFFIXES for label in labels}
    complete = len(owner) == len(others) - (0 if beside else len(paths)) and all(files.values())
    # A label of one image only is more likely a part of its name.
    if (
        len(labels) < 2
        or True in are_masks
        or not complete
        or max(labels.values()) * 2 < len(paths)
    ):
        return None
    return paths, files


def _folders(home: Path) -> list[Path]:
    return sorted(d for d in home.iterdir() if d.is_dir() and d.name[:1] != ".")


def _pictures(home: Path) -> list[Path]:
    try:
        return folder.list_images(home)
    except InputError:
        return []


def _is_set(path: Path, tally: Counter[str]) -> NDArray[np.bool_]:
    """Return where a mask of two values holds the higher; one of zeros only holds it nowhere."""
    raw = _read(path)
    colours = _colours(raw) if raw.values.max() <= 255 else np.repeat(raw.values[..., None], 3, 2)
    grey = colours.max(-1)
    levels = np.unique(grey)
    if len(levels) <= 2:
        return np.asarray(grey == levels[-1]) if levels[-1] > 0 else np.zeros(grey.shape, bool)
    table = ClassTable(
        (SegmentationClass("0", 0, "#000000"), SegmentationClass("1", int(levels[-1]), "#ffffff"))
    )
    error = InputError(
        path, f"{len(levels)} values where two are due", "save it as black and white"
    )
    return np.asarray(_snap(RawMask(grey), table, path, LIMIT, tally, error) == 1)


# --- LabelMe ---------------------------------------------------------------------------------


def _labelme(root: Path) -> _Source | None:
    """Read the shapes of LabelMe's JSON files, drawn in order; None where there are none."""
    homes = [root, *_folders(root)]
    shapes: dict[str, list[dict[str, Any]]] = {}
    paths: dict[str, Path] = {}
    for file in (f for home in homes for f in sorted(home.glob("*.json"))):
        data = _read_json(file)
        if data is None:
            continue
        name = re.split(r"[/\\]", str(data.get("imagePath", "")))[-1]
        image = next(
            (h / name for h in [file.parent, *homes] if name and (h / name).is_file()), None
        )
        if image is None:
            raise InputError(file, f"its image {show(name)} is not there", "put it beside the file")
        if image.stem in paths:
            raise InputError(file, f"a second file for {show(name)}", "keep one")
        paths[image.stem], shapes[image.stem] = image, data["shapes"]
    if not shapes:
        return None
    labels = {str(s.get("label", "")) for found in shapes.values() for s in found}
    names = sorted(labels - {"_background_", "background", "__ignore__"}, key=folder.natural_key)
    index = {"_background_": 0, "background": 0, "__ignore__": IGNORED}
    index |= {name: i + 1 for i, name in enumerate(names)}
    classes = [SegmentationClass("background", 0, default_colour(0))]
    classes += [SegmentationClass(n, i + 1, default_colour(i + 1)) for i, n in enumerate(names)]

    def read(name: str, shape: tuple[int, int]) -> NDArray[np.uint8]:
        mask = np.zeros(shape, np.uint8)
        for one in shapes[name]:
            kind = one.get("shape_type") or "polygon"
            try:
                points = [(float(x), float(y)) for x, y in one["points"]]
                mask[drawing.fill_shape(shape, kind, points)] = index[str(one.get("label", ""))]
            except (KeyError, TypeError, ValueError) as error:
                text = f"a shape that is not drawn ({error})"
                remedy = "polygons, rectangles and circles are; draw it as one of them"
                raise InputError(paths[name], text, remedy) from None
        return mask

    return _Source(paths, tuple(classes), read)


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return what a LabelMe file holds; None of other JSON."""
    try:
        data = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            file, f"not readable as JSON ({error})", "mend it or move it out"
        ) from None
    return data if isinstance(data, dict) and isinstance(data.get("shapes"), list) else None
