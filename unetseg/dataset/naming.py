"""Names of images and masks: stems, natural order, and which mask has the name of which image."""

import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import IGNORED, ClassTable
from unetseg.dataset.shapes import Draw, Frame
from unetseg.errors import InputError, MachineError
from unetseg.pictures import bands, masks, reading, transforms
from unetseg.pictures.georeference import Georeference
from unetseg.pictures.masks import RawMask
from unetseg.pictures.opening import ImageInfo, name_foreign
from unetseg.settings import WHOLE, Selection
from unetseg.text import few, plural

IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "raw", "inputs", "input", "originals", "jpegimages"),
)
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth"),
    *("groundtruth", "1st_manual", "manual", "manual1", "seg", "segmentation", "segmentations"),
    "segmentationclass",
)
# The longest suffix that fits counts: x_cp_masks is a mask of x.
MASK_SUFFIXES = (
    *("_mask", "_masks", "_label", "_labels", "_labelled", "-labelled", "_annotation", "_gt"),
    *("_manual", "_manual1", "_seg", "_segmentation", "_cp_masks"),
)
OME = ".ome"  # the end of the stem of an OME-TIFF; a mask of another format has no such end
_FEW = 5  # names shown in a message
_MOST_RULES = 1000  # rules of naming tried where none fits two images


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: The image's stem as `stem_of` gives it.
        image: The file.
        mask: The file of the mask, or of the labels that ``drawn`` is from.
        drawn: The mask value and the shape of each label, where labels are shapes.
        has_order: Whether a later shape covers earlier ones; else a smaller one covers larger ones.
        page: The number of the picture in both files, where each of several is an image.
        part: The part of a divided set, "train", "val" or "test"; empty in any other set.
        frame: The picture on which ``drawn`` was drawn, as far as it is known.
    """

    name: str
    image: Path
    mask: Path
    drawn: tuple[tuple[int, Draw], ...] | None = None
    has_order: bool = True
    page: int | None = None
    part: str = ""
    frame: Frame = field(default_factory=Frame)

    @property
    def named(self) -> Path:
        """The file that messages about the mask name; one of shapes may hold all images' labels."""
        return self.mask if self.drawn is None else self.image

    @property
    def labelled_as(self) -> Path:
        """`named`, with the page where the file holds several: it is unique in a set."""
        return with_page(self.named, self.page)

    @property
    def file_stem(self) -> str:
        """The name that all pages of one file share: they stay on one side of a split."""
        return self.name if self.page is None else stem_of(self.image)

    @property
    def file_name(self) -> str:
        """The name of the image's file; where that is not unique, as if it were `name`."""
        is_unique = self.name == stem_of(self.image)
        return self.image.name if is_unique else self.name + self.image.suffix

    def taken(self, selection: Selection) -> Selection:
        """Return a selection that takes this page, where the image is a page."""
        return selection if self.page is None else replace(selection, page=self.page)

    def read_info(self, selection: Selection = WHOLE) -> ImageInfo:
        """Return the header of the image; see `reading.read_info`."""
        return reading.read_info(self.image, self.taken(selection))

    def read_image(self, selection: Selection = WHOLE) -> NDArray[Any]:
        """Return the image (H, W, C), as `read_known` does."""
        return self.read_known(selection)[0]

    def read_known(
        self, selection: Selection = WHOLE
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the image (H, W, C), and which pixels lack data; see `bands.read_filled`."""
        return bands.read_filled(self.image, self.taken(selection))

    def read_labelled(
        self, table: ClassTable, selection: Selection = WHOLE
    ) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the image (H, W, C) and its `labels` (H, W); the image is decoded once.

        Raises:
            InputError: `read_known` refuses the image, or `labels` the mask.
        """
        image, missing = self.read_known(selection)
        labels = decode_inside(self.read_mask(selection), table, selection, self.mask)
        return image, _without(missing, labels)

    def scaled(self, image: NDArray[Any], channels: int, scale: float) -> NDArray[Any]:
        """Return the image as it was read, with its channels fitted by `fit_channels`, scaled.

        Raises:
            InputError: `fit_channels` refuses the image.
        """
        image = transforms.fit_channels(image, channels, self.image)
        height, width = image.shape[:2]
        return transforms.rescale_image(image, transforms.scaled_size(height, width, scale))

    def mask_info(self, selection: Selection = WHOLE) -> ImageInfo:
        """Return the header of the mask; of a drawn one that of the image, as it is seen."""
        if self.drawn is None:
            return reading.read_info(self.mask, Selection(self.taken(selection).page))
        return replace(self.read_info(selection), format="shapes", channels=1)

    def places(self, selection: Selection = WHOLE) -> tuple[Georeference, Georeference]:
        """Return the places of the image and of its mask on a map, as their files state them."""
        with bands.open_raster(self.image, self.taken(selection)) as raster:
            image = raster.georeference
        if self.drawn is not None or not image.is_on_map:
            return image, Georeference()
        with bands.open_raster(self.mask, Selection(page=0)) as raster:  # all pages have one place
            return image, raster.georeference

    def read_mask(self, selection: Selection = WHOLE) -> RawMask:
        """Read the mask, or draw it: pixels of no shape are 0.

        Raises:
            InputError: `reading.read_mask` refuses the file, or a shape does not fit the image.
        """
        if self.drawn is None:
            return reading.read_mask(self.mask, self.taken(selection))
        return RawMask(self.values[self.read_shapes(selection)])

    def read_mask_and_hidden(self, selection: Selection = WHOLE) -> tuple[RawMask, list[int]]:
        """Return the mask as `read_mask` does, and the mask values of its `hidden` shapes."""
        if self.drawn is None:
            return self.read_mask(selection), []
        shapes = self.read_shapes(selection)
        return RawMask(self.values[shapes]), self.hidden(shapes)

    @property
    def values(self) -> NDArray[np.unsignedinteger]:
        """``(n + 1,)`` the mask values of no shape and of each drawn one."""
        values = np.array([0, *(value for value, _ in self.drawn or ())], np.uint16)
        return values.astype(np.min_scalar_type(values.max()))

    def read_shapes(self, selection: Selection = WHOLE) -> NDArray[np.int32]:
        """Draw the shapes ``(H, W)``: the place of the topmost one, from 1, and 0 where none is.

        Raises:
            InputError: The labels are of a picture of another size, or a shape does not fit.
        """
        info = self.read_info(selection)
        shapes = np.zeros((info.height, info.width), np.int32)
        if self.drawn and (misfit := self.frame.describe_misfit(shapes.shape)):
            remedy = "put the image there that was labelled"
            if info.orientation >= 5:  # EXIF exchanges rows and columns
                remedy += ", or remove the orientation by which EXIF turns this one"
            raise InputError(self.image, misfit, remedy)
        areas = np.zeros(len(self.values), np.int64)
        areas[0] = shapes.size
        for place, (_, draw) in enumerate(self.drawn or (), 1):
            try:
                inside = draw(shapes.shape)
            except ValueError as error:
                text = f"a shape in {self.mask.name} that is not drawn ({error})"
                raise InputError(self.image, text, "export it again") from None
            areas[place] = 0 if self.has_order else inside.sum()
            below = shapes[inside]
            shapes[inside] = np.where(areas[below] < areas[place], below, place)
        return shapes

    def hidden(self, shapes: NDArray[np.int32], are_objects: bool = False) -> list[int]:
        """Return the mask values of shapes whose pixels all belong to shapes of other values.

        Args:
            shapes: ``(H, W)`` as `read_shapes` returns them.
            are_objects: Whether shapes of the same value hide each other, too.
        """
        is_seen = np.zeros(len(self.values), bool)
        for row in shapes:
            is_seen[row] = True
        hidden = []
        for value, draw in itertools.compress(self.drawn or (), ~is_seen[1:]):
            above = self.values[shapes[draw(shapes.shape)]]
            if above.size and (are_objects or (above != value).all()):
                hidden.append(value)
        return hidden

    def labels(self, table: ClassTable, selection: Selection = WHOLE) -> NDArray[np.uint8]:
        """Return the class indices ``(H, W)`` of the mask; 255 is ignored.

        Cropped edges are ignored, and pixels where the image has no data.

        Raises:
            InputError: `read_mask` or `masks.decode` refuses the mask.
        """
        return self.labels_of(self.read_mask(selection), table, selection)

    def labels_of(
        self, raw: RawMask, table: ClassTable, selection: Selection = WHOLE
    ) -> NDArray[np.uint8]:
        """Return the class indices as `labels` does, of a mask that was read already."""
        labels = decode_inside(raw, table, selection, self.mask)
        return _without(self.missing(selection), labels)

    def missing(self, selection: Selection = WHOLE) -> NDArray[np.bool_] | None:
        """Return which pixels (H, W) of the image have no data; None where all may have some."""
        with bands.open_raster(self.image, self.taken(selection)) as raster:
            valid = raster.valid(slice(0, raster.shape[0]))
        return None if valid is None else ~valid


def decode_inside(
    raw: RawMask, table: ClassTable, selection: Selection, path: Path
) -> NDArray[np.uint8]:
    """Return the class indices of a mask; the pixels of its cropped edges are ignored.

    Raises:
        InputError: `masks.decode` refuses the mask.
    """
    inner = selection.inner(*raw.values.shape[:2])
    labels = np.full(raw.values.shape[:2], IGNORED, np.uint8)
    if labels[inner].size:
        labels[inner] = masks.decode(raw.inside(inner), table, path)
    return labels


def _without(missing: NDArray[np.bool_] | None, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Ignore the pixels that lack data in labels of the same size, and return the labels."""
    if missing is not None and missing.shape == labels.shape:
        labels[missing] = IGNORED
    return labels


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which numbers count as numbers: "Img_2" before "Img_10"."""
    parts = re.split(r"(\d+)", text)
    # Every second part is a number. The text beside it keeps "01" and "1" apart.
    return tuple((i % 2, int(p) if i % 2 else 0, p) for i, p in enumerate(parts))


def stem_of(path: Path) -> str:
    """Return a file's stem with composed accents (NFC); macOS may store an accent separately."""
    return unicodedata.normalize("NFC", path.stem)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures of a folder, recognised by their endings, in natural order.

    Hidden files and folders inside are left out.

    Raises:
        InputError: The folder is not found, is no folder, or holds no pictures.
        MachineError: No permission to read it.
    """
    found = list_folder(Path(folder))[0]
    if not found and (foreign := name_foreign(_names_in(Path(folder)))):
        raise InputError(folder, *foreign)
    if not found:
        raise InputError(folder, "no images (*.png, *.jpg, *.tif, *.bmp, *.gif)", "check the name")
    return found


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return pictures and folders in ``folder``, in natural order, hidden ones left out."""
    try:
        entries = [(e.name, e.is_dir()) for e in os.scandir(folder) if e.name[:1] != "."]
    except FileNotFoundError:
        raise InputError(folder, "not found", "check the name") from None
    except NotADirectoryError:
        raise InputError(folder, "is a file; a folder is due here", "check the name") from None
    except PermissionError:
        raise MachineError(folder, "no permission to read", "change its permissions") from None
    except (OSError, ValueError) as error:
        raise InputError(folder, f"not readable: {error}", "check the name") from None
    entries.sort(key=lambda entry: natural_key(entry[0]))
    files = [folder / n for n, is_dir in entries if not is_dir and is_picture(n)]
    return files, [folder / n for n, is_dir in entries if is_dir]


def _names_in(folder: Path) -> list[str]:
    return sorted((e.name for e in os.scandir(folder)), key=natural_key)


def is_picture(name: str) -> bool:
    """Return whether a file is a picture by the ending of its name."""
    return name.lower().endswith(reading.SUFFIXES)


def by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """Return files by their stems; two of one stem are an `InputError`."""
    stems: dict[str, Path] = {}
    for file in files:
        stem = stem_of(file)
        if stem in stems:
            text = f"{stems[stem].name} has the same stem"
            raise InputError(file, text, "keep one of the two")
        stems[stem] = file
    return stems


def with_page(path: Path, page: int | None) -> Path:
    """Return a path that names a page of a file, for messages alone; None is the whole file."""
    return path if page is None else path.with_name(f"{path.name}, page {page}")


@dataclass(frozen=True)
class _Renaming:
    """A rule that turns the stem of an image into that of its mask, by prefix and suffix."""

    image_start: str
    image_end: str
    mask_start: str
    mask_end: str

    def mask_of(self, stem: str) -> str | None:
        """Return the stem of the mask; None where the stem of the image does not fit the rule."""
        start, end = len(self.image_start), len(stem) - len(self.image_end)
        if end < start or not (stem.startswith(self.image_start) and stem.endswith(self.image_end)):
            return None
        return self.mask_start + stem[start:end] + self.mask_end


def match_files(
    folder: Path, image_paths: Sequence[Path], mask_paths: Sequence[Path]
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs among files by their stems, and the problems of the other files.

    Raises:
        InputError: There are no images, or two files of one stem.
    """
    image_of, mask_of, rule = _rule_of(folder, image_paths, mask_paths)
    best = _partners(rule, image_of, mask_of)
    pairs = tuple(
        Pair(stem, path, mask_of[best[stem]]) for stem, path in image_of.items() if stem in best
    )
    if len(best) < max(len(image_of), len(mask_of)):
        return pairs, _unpaired(folder, image_of, mask_of, rule, best)
    return pairs, None


def place_masks(
    folder: Path, image_paths: Sequence[Path], mask_paths: Sequence[Path], home: Path
) -> tuple[Pair, ...]:
    """Return every image with its mask, or with the file in ``home`` that its mask is to be.

    A new mask is a PNG, and it is named as the masks of the other images are.

    Raises:
        InputError: There are no images, two files of one stem, or masks without an image.
    """
    image_of, mask_of, rule = _rule_of(folder, image_paths, mask_paths)
    there = _partners(rule, image_of, mask_of)
    stems = {stem: there.get(stem) or rule.mask_of(stem) or stem for stem in image_of}
    if text := _without_image(mask_of, stems.values()):
        raise InputError(folder, text, "add their images or move these out")
    return tuple(
        Pair(stem, path, mask_of.get(stems[stem], home / f"{stems[stem]}.png"))
        for stem, path in image_of.items()
    )


def _rule_of(
    folder: Path, image_paths: Sequence[Path], mask_paths: Sequence[Path]
) -> tuple[dict[str, Path], dict[str, Path], _Renaming]:
    """Return images and masks by their stems, and the rule that pairs most of them.

    Among rules that pair equally many, the first one is taken; the rule of equal stems is first.
    """
    image_of, mask_of = by_stem(image_paths), by_stem(mask_paths)
    if not image_of:
        raise InputError(folder, "masks, but no images", "put the images beside them")
    rules = _renamings(list(image_of), list(mask_of))
    return image_of, mask_of, max(rules, key=lambda r: len(_partners(r, image_of, mask_of)))


def _partners(
    rule: _Renaming, image_of: Collection[str], mask_of: Collection[str]
) -> dict[str, str]:
    """Return the stem of each image's mask; ".ome" counts where no mask fits without it."""
    masks = {stem: rule.mask_of(stem) for stem in image_of}
    found = {stem: mask for stem, mask in masks.items() if mask is not None and mask in mask_of}
    taken = set(found.values())
    for stem in image_of:
        short = rule.mask_of(stem.removesuffix(OME))
        others = [m for mask in (short, masks[stem]) if mask for m in (mask, f"{mask}{OME}")]
        free = [mask for mask in others if mask in mask_of and mask not in taken]
        if stem not in found and free:
            found[stem] = free[0]
            taken.add(free[0])
    return found


def _renamings(image_stems: list[str], mask_stems: list[str]) -> list[_Renaming]:
    """Return the rules by which masks may be named, equal stems first.

    The other rules turn the stems of the first, middle and last image into stems of masks. If any
    rule fits two of these three images, only such rules are returned.
    """
    same = _Renaming("", "", "", "")
    if set(image_stems) == set(mask_stems):
        return [same]
    rules: list[_Renaming] = []
    for image in (image_stems[0], image_stems[len(image_stems) // 2], image_stems[-1]):
        for mask in mask_stems:
            rules += _rules(*(_tokens(stem.removesuffix(OME)) for stem in (image, mask)))
    if len(image_stems) == 1:  # one image proves a rule only if image and mask share its number
        rules = [r for r in rules if not re.search(r"\d", r.image_start + r.image_end)]
    counts = Counter(rules)
    # Every rule is tried on all images, so there must not be as many rules as files.
    return [same, *([r for r, n in counts.items() if n > 1] or list(counts)[:_MOST_RULES])]


def _tokens(stem: str) -> list[str]:
    """Cut a stem into numbers, words and single other characters."""
    return re.findall(r"\d+|[^\W\d_]+|.", stem, re.DOTALL)


def _rules(image: list[str], mask: list[str]) -> Iterator[_Renaming]:
    """Yield the rules that keep the longest run of tokens shared by two stems."""
    size = 0
    runs: list[tuple[int, int]] = []
    for i in range(len(image)):
        for j in range(len(mask)):
            length = 0
            while image[i + length : i + length + 1] == mask[j + length : j + length + 1] != []:
                length += 1
            if length > size:
                size, runs = length, []
            if length == size > 0:
                runs.append((i, j))
    for i, j in runs:
        yield _Renaming(
            "".join(image[:i]),
            "".join(image[i + size :]),
            "".join(mask[:j]),
            "".join(mask[j + size :]),
        )


def _unpaired(
    folder: Path,
    image_of: dict[str, Path],
    mask_of: dict[str, Path],
    rule: _Renaming,
    best: dict[str, str],
) -> InputError:
    """Return the error that names the files without a partner under the best rule."""
    if not best:
        text = f"no mask fits an image: images {few(image_of, _FEW)}; masks {few(mask_of, _FEW)}"
        return InputError(folder, text, "give the masks the names of their images")
    lonely = [
        f"{path.name} (expected: {rule.mask_of(stem) or 'the same stem'})"
        for stem, path in image_of.items()
        if stem not in best
    ]
    parts = [f"{plural(len(lonely), 'image')} without mask: {few(lonely, _FEW)}"] if lonely else []
    parts.append(_without_image(mask_of, best.values()))
    remedy = "add the missing files or move these out"
    return InputError(folder, "; ".join(filter(None, parts)), remedy)


def _without_image(mask_of: Mapping[str, Path], used: Iterable[str]) -> str:
    """Say which masks have a stem that no image uses; empty where there is none."""
    known = set(used)
    orphans = [path.name for stem, path in mask_of.items() if stem not in known]
    return f"{plural(len(orphans), 'mask')} without image: {few(orphans, _FEW)}" if orphans else ""
