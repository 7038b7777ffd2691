"""Folders of labelled images: which mask belongs to which image, and the classes."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable, read_classes
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError, MachineError
from unetseg.files import write_bytes
from unetseg.pictures import reading, writing
from unetseg.pictures.masks import RawMask
from unetseg.pictures.opening import ImageInfo

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
_CONVERT = "one mask for each class: unetseg convert SOURCE FOLDER"
_FEW = 5  # names shown in a message
_MOST_RULES = 1000  # rules of naming tried where none fits two images


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: The image's stem as `stem_of` gives it.
        image: The file.
        mask: The file of the mask, or of the labels that ``drawn`` is from.
        drawn: Where the labels are shapes: the class of each and the shape, the topmost last.
    """

    name: str
    image: Path
    mask: Path
    drawn: tuple[tuple[int, Draw], ...] | None = None

    def mask_info(self, page: int | None = None) -> ImageInfo:
        """Return the header of the mask; of a drawn one that of the image, as it is seen."""
        if self.drawn is None:
            return reading.read_info(self.mask, page)
        return replace(reading.read_info(self.image, page), format="shapes", channels=1)

    def read_mask(self, page: int | None = None) -> RawMask:
        """Read the mask, or draw it: pixels of no shape are 0.

        Raises:
            InputError: As `reading.read_mask`, or a shape that does not fit the image.
        """
        if self.drawn is None:
            return reading.read_mask(self.mask, page)
        info = reading.read_info(self.image, page)
        mask = np.zeros((info.height, info.width), np.uint8)
        for index, draw in self.drawn:
            try:
                mask[draw(mask.shape)] = index
            except ValueError as error:
                text = f"a shape of {self.image.name} that is not drawn ({error})"
                raise InputError(self.mask, text, "export it again") from None
        return RawMask(mask)


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
    found = _scan(Path(folder))[0]
    if not found:
        raise InputError(folder, "no images (*.png, *.jpg, *.tif, *.bmp, *.gif)", "check the name")
    return found


def find_pairs(folder: str | os.PathLike[str]) -> tuple[Pair, ...]:
    """Return the images of a folder with their masks, in natural order.

    The function looks for ``images/`` and ``masks/``, or for folders of other usual names; the
    images may also lie in ``folder`` itself. Else it looks for masks beside their images, which it
    recognises by the end of their stems (``a.png`` and ``a_mask.png``). The stems of image and mask
    are equal, or one prefix and suffix differ in the whole folder: ``Img_3`` and ``Mask_3``,
    ``21_training`` and ``21_manual1``.

    Raises:
        InputError: The folder is not found or holds nothing to pair. Or it holds two candidates for
            the masks, files without a partner, or two files of one stem.
        MachineError: No permission to read.
    """
    pairs, problem = match_pairs(folder)
    if problem:
        raise problem
    return pairs


def match_pairs(
    folder: str | os.PathLike[str], without: str = ""
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs of a folder as `find_pairs` does, and what is wrong with the other files.

    Args:
        folder: The folder.
        without: Name of a folder in it that holds neither images nor masks.

    Raises:
        InputError: The folder is not found or holds nothing to pair. Or it holds two candidates for
            the masks, or two files of one stem.
        MachineError: No permission to read.
    """
    from unetseg.dataset import exports  # which pairs files as this module does

    folder = Path(folder)
    files, folders = _scan(folder)
    if export := exports.find_export(folder):
        return export.pairs, None
    folders = [f for f in folders if f.name != without]
    masks = _only(folder, folders, MASK_FOLDERS, "masks")
    if masks is None:
        if not any(_mask_suffix(stem_of(file)) for file in files):
            exports.refuse_by_name(folder)
        image_paths, mask_paths = _divide_flat(folder, files)
    else:
        if not _scan(masks)[0]:
            exports.refuse_by_name(folder)
        home = _only(folder, folders, IMAGE_FOLDERS, "images") or folder
        if not _scan(masks)[0] and _scan(masks)[1]:
            raise InputError(masks, "holds folders, no pictures", _CONVERT)
        image_paths, mask_paths = list_images(home), list_images(masks)
    return match_files(folder, image_paths, mask_paths)


def load_classes(
    folder: str | os.PathLike[str], file: str | os.PathLike[str] | None = None
) -> ClassTable | None:
    """Return the classes in ``file``, else those that the folder declares; None without either.

    A folder declares them in ``classes.toml``, in the ``labelmap.txt`` of CVAT, in the
    ``_classes.csv`` of Roboflow, or in what another tool exported.

    Raises:
        InputError: ``file`` is missing, or the file is not valid.
    """
    from unetseg.dataset import exports  # which pairs files as this module does

    path = Path(folder) / "classes.toml" if file is None else Path(file)
    if file is not None or path.exists():
        return read_classes(path)
    if not Path(folder).is_dir():
        return None
    if table := exports.class_table(Path(folder)):
        return table
    export = exports.find_export(Path(folder))
    return export.classes if export else None


def write_classes(folder: str | os.PathLike[str], table: ClassTable) -> None:
    """Write ``classes.toml`` into a folder (see `files.write_bytes` for what it raises)."""
    write_bytes(Path(folder) / "classes.toml", table.to_toml().encode())


def write_labelled(
    folder: str | os.PathLike[str],
    name: str,
    image: NDArray[Any],
    mask: NDArray[np.uint8],
    table: ClassTable,
) -> None:
    """Write ``masks/<name>.png``, then ``images/<name>.png``, so that no image lacks its mask.

    Args:
        folder: The folder; it is made where it is missing.
        name: The stem of both files.
        image: ``(H, W, 1)`` or ``(H, W, 3)``, uint8 or uint16.
        mask: ``(H, W)`` class indices, 255 ignored.
        table: How the mask is encoded.

    Raises:
        InputError: As `writing.write_mask`.
        MachineError: The disk is full or read-only, and the like.
    """
    writing.write_mask(Path(folder) / "masks" / f"{name}.png", mask, table)
    writing.write_picture(Path(folder) / "images" / f"{name}.png", image)


# --- finding and pairing ---------------------------------------------------------------------


def _scan(folder: Path) -> tuple[list[Path], list[Path]]:
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
    files = [folder / n for n, is_dir in entries if not is_dir and _is_picture(n)]
    return files, [folder / n for n, is_dir in entries if is_dir]


def _is_picture(name: str) -> bool:
    return name.lower().endswith(reading.SUFFIXES)


def _only(folder: Path, folders: Sequence[Path], names: Sequence[str], kind: str) -> Path | None:
    """Return the one folder that bears one of ``names``; refuse two with a question."""
    found = [f for f in folders if f.name.lower() in names]
    if len(found) > 1:  # Pascal VOC keeps boxes, no pictures, in Annotations/
        found = [f for f in found if _scan(f)[0]]
    if len(found) > 1:
        text = "which of " + " and ".join(f"{f.name}/" for f in found) + f" holds the {kind}?"
        remedy = f"rename the others, such as {found[-1].name}.unused"
        if kind == "masks":
            remedy += "; a field of view: unetseg convert SOURCE FOLDER --fov " + found[-1].name
        raise InputError(folder, text, remedy)
    return found[0] if found else None


def _divide_flat(folder: Path, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Divide the files of one folder into images and masks by how their stems end."""
    ends = {file: _mask_suffix(stem_of(file)) for file in files}
    kinds = sorted({end for end in ends.values() if end})
    if not kinds:
        text = "no folders images/ and masks/, and no files such as a.png with a_mask.png"
        remedy = "put images into images/ and masks into masks/; " + _CONVERT
        raise InputError(folder, text, remedy)
    if len(kinds) > 1:
        text = "which files are the masks: " + " or ".join(f"*{k}" for k in kinds) + "?"
        raise InputError(folder, text, "move the others out of the folder")
    return [f for f in files if not ends[f]], [f for f in files if ends[f]]


def _mask_suffix(stem: str) -> str:
    found = [s for s in MASK_SUFFIXES if stem.lower().endswith(s) and len(stem) > len(s)]
    return max(found, key=len, default="")


def _by_stem(files: Sequence[Path]) -> dict[str, Path]:
    stems: dict[str, Path] = {}
    for file in files:
        stem = stem_of(file)
        if stem in stems:
            text = f"{stems[stem].name} has the same stem"
            raise InputError(file, text, "keep one of the two")
        stems[stem] = file
    return stems


@dataclass(frozen=True)
class _Renaming:
    """A rule that makes a mask's stem of an image's: it replaces prefix and suffix."""

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
    """Return the pairs among files by their stems, and what is wrong with the other files.

    Raises:
        InputError: There are no images, or two files of one stem.
    """
    image_of, mask_of = _by_stem(image_paths), _by_stem(mask_paths)
    if not image_of:
        raise InputError(folder, "masks, but no images", "put the images beside them")
    # The first of several best rules wins: that of equal stems comes first.
    rule = max(
        _renamings(list(image_of), list(mask_of)),
        key=lambda r: len(_partners(r, image_of, mask_of)),
    )
    best = _partners(rule, image_of, mask_of)
    pairs = tuple(
        Pair(stem, path, mask_of[best[stem]]) for stem, path in image_of.items() if stem in best
    )
    if len(best) < max(len(image_of), len(mask_of)):
        return pairs, _unpaired(folder, image_of, mask_of, rule, best)
    return pairs, None


def _partners(
    rule: _Renaming, image_of: Collection[str], mask_of: Collection[str]
) -> dict[str, str]:
    masks = ((stem, rule.mask_of(stem)) for stem in image_of)
    return {stem: mask for stem, mask in masks if mask is not None and mask in mask_of}


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
            rules += _rules(_tokens(image), _tokens(mask))
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
        text = f"no mask fits an image: images {_few(image_of)}; masks {_few(mask_of)}"
        return InputError(folder, text, "give the masks the names of their images")
    lonely = [
        f"{path.name} (expected: {rule.mask_of(stem) or 'the same stem'})"
        for stem, path in image_of.items()
        if stem not in best
    ]
    orphans = [path.name for stem, path in mask_of.items() if stem not in best.values()]
    parts = [f"{len(lonely)} images without mask: {_few(lonely)}"] if lonely else []
    parts += [f"{len(orphans)} masks without image: {_few(orphans)}"] if orphans else []
    return InputError(folder, "; ".join(parts), "add what is missing or move these out")


def _few(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
