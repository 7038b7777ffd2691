"""Folders of labelled images: which mask belongs to which image, and the classes."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable, read_classes
from unetseg.errors import InputError, MachineError
from unetseg.files import write_bytes
from unetseg.pictures import reading, writing

IMAGE_FOLDERS = (
    *("images", "image", "imgs", "img", "raw", "inputs", "input", "originals", "jpegimages"),
)
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "ground_truth"),
    *("groundtruth", "1st_manual", "manual", "manual1", "seg", "segmentation", "segmentations"),
    "segmentationclass",
)
# The longest that fits is what a stem ends in: x_cp_masks is a mask of x.
MASK_SUFFIXES = (
    *("_mask", "_masks", "_label", "_labels", "_labelled", "-labelled", "_annotation", "_gt"),
    *("_manual", "_manual1", "_seg", "_segmentation", "_cp_masks"),
)
_CONVERT = "one mask a class, polygons of LabelMe: unetseg convert SOURCE FOLDER"
_FEW = 5  # names shown in a message
_MOST_RULES = 1000  # of naming, where none turns two images' names into masks'


@dataclass(frozen=True)
class Pair:
    """An image and its mask; ``name`` is the image's stem as `stem_of` gives it."""

    name: str
    image: Path
    mask: Path


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which numbers count as numbers: "Img_2" before "Img_10"."""
    parts = re.split(r"(\d+)", text)
    # An odd place holds digits; the text behind keeps "01" and "1" apart.
    return tuple((i % 2, int(p) if i % 2 else 0, p) for i, p in enumerate(parts))


def stem_of(path: Path) -> str:
    """Return a file's stem in composed letters (NFC); macOS may keep an accent on its own."""
    return unicodedata.normalize("NFC", path.stem)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the pictures of a folder in natural order, by their endings; not searched deeper.

    Hidden files are left out.

    Raises:
        InputError: Not found, not a folder, or without pictures.
        MachineError: No permission to read it.
    """
    found = _scan(Path(folder))[0]
    if not found:
        raise InputError(folder, "no images (*.png, *.jpg, *.tif, *.bmp, *.gif)", "check the name")
    return found


def find_pairs(folder: str | os.PathLike[str]) -> tuple[Pair, ...]:
    """Return the images of a folder with their masks, in natural order.

    Looks for ``images/`` and ``masks/`` or folders of the usual other names (the images may also
    lie in ``folder`` itself), else for masks beside their images, told by the end of their stems
    (``a.png`` and ``a_mask.png``). Stems are equal, or differ by one prefix and suffix in the
    whole folder: ``Img_3`` and ``Mask_3``, ``21_training`` and ``21_manual1``.

    Raises:
        InputError: Not found, nothing to pair, two candidates for the masks, files without a
            partner, two files of one stem.
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
        folder: Where to look.
        without: Name of a folder in it that holds neither images nor masks.

    Raises:
        InputError: Not found, nothing to pair, two candidates for the masks, two files of one
            stem.
        MachineError: No permission to read.
    """
    folder = Path(folder)
    files, folders = _scan(folder)
    folders = [f for f in folders if f.name != without]
    masks = _only(folder, folders, MASK_FOLDERS, "masks")
    if masks is None:
        image_paths, mask_paths = _divide_flat(folder, files)
    else:
        home = _only(folder, folders, IMAGE_FOLDERS, "images") or folder
        if not _scan(masks)[0] and _scan(masks)[1]:
            raise InputError(masks, "holds folders, no pictures", _CONVERT)
        image_paths, mask_paths = list_images(home), list_images(masks)
    return match_files(folder, image_paths, mask_paths)


def load_classes(
    folder: str | os.PathLike[str], file: str | os.PathLike[str] | None = None
) -> ClassTable | None:
    """Return the classes in ``file``, else in the folder's ``classes.toml``; None without either.

    Raises:
        InputError: ``file`` is missing, or what is there is not valid.
    """
    path = Path(folder) / "classes.toml" if file is None else Path(file)
    return None if file is None and not path.exists() else read_classes(path)


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
    """Write ``images/<name>.png`` and ``masks/<name>.png``; an image never lacks its mask.

    Args:
        folder: Made where missing.
        name: The stem of both.
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
    """Return the one folder that bears one of ``names``; two are asked about."""
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
    """How mask stems come from image stems: another prefix and another suffix."""

    image_start: str
    image_end: str
    mask_start: str
    mask_end: str

    def mask_of(self, stem: str) -> str | None:
        """Return the mask's stem, or None where the image's does not follow the rule."""
        start, end = len(self.image_start), len(stem) - len(self.image_end)
        if end < start or not (stem.startswith(self.image_start) and stem.endswith(self.image_end)):
            return None
        return self.mask_start + stem[start:end] + self.mask_end


def match_files(
    folder: Path, image_paths: Sequence[Path], mask_paths: Sequence[Path]
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs among files by their stems, and what is wrong with the other files.

    Raises:
        InputError: No images, or two files of one stem.
    """
    image_of, mask_of = _by_stem(image_paths), _by_stem(mask_paths)
    if not image_of:
        raise InputError(folder, "masks, but no images", "put the images beside them")
    rule = max(  # of several the first, which is equal stems; two that pair all pair them alike
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

    The others turn the names of the first, middle and last image into those of masks: two of the
    three, where any rule does.
    """
    same = _Renaming("", "", "", "")
    if set(image_stems) == set(mask_stems):
        return [same]
    rules: list[_Renaming] = []
    for image in (image_stems[0], image_stems[len(image_stems) // 2], image_stems[-1]):
        for mask in mask_stems:
            rules += _rules(_tokens(image), _tokens(mask))
    if len(image_stems) == 1:  # which proves nothing unless its number is what the two share
        rules = [r for r in rules if not re.search(r"\d", r.image_start + r.image_end)]
    counts = Counter(rules)
    # Each is tried on all images: of tens of thousands of files that do not pair, not each rule.
    return [same, *([r for r, n in counts.items() if n > 1] or list(counts)[:_MOST_RULES])]


def _tokens(stem: str) -> list[str]:
    """Cut a stem into numbers, words and single other characters."""
    return re.findall(r"\d+|[^\W\d_]+|.", stem, re.DOTALL)


def _rules(image: list[str], mask: list[str]) -> Iterator[_Renaming]:
    """Yield the renamings that keep the longest run of tokens that two names share."""
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
    """Return the error that names what has no partner under the rule that fits most."""
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
