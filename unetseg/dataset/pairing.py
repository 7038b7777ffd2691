"""Folders of labelled images: which mask belongs to which image, and the classes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetseg.classes import ClassTable, read_classes
from unetseg.dataset.exports.class_lists import class_table, describe_other_names
from unetseg.dataset.exports.export import Export
from unetseg.dataset.exports.search import find_export
from unetseg.dataset.exports.unread import refuse_by_name
from unetseg.dataset.findings.finding import Commands
from unetseg.dataset.naming import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    MASK_SUFFIXES,
    OME,
    Pair,
    list_folder,
    list_images,
    match_files,
    place_masks,
    stem_of,
)
from unetseg.dataset.parts import find_parts, join_parts, name_one
from unetseg.errors import InputError, arg, either
from unetseg.files import write_bytes
from unetseg.pictures import reading, writing
from unetseg.settings import WHOLE, Selection
from unetseg.text import plural, quote, show

_CONVERT = "one mask for each class: " + either(
    "unetseg convert SOURCE FOLDER", "unetseg.convert_folder(SOURCE, FOLDER)"
)


def find_pairs(
    folder: str | os.PathLike[str],
    selection: Selection = WHOLE,
    line_width: float | None = None,
) -> tuple[Pair, ...]:
    """Return the images of a folder with their masks, in natural order.

    The function looks for ``images/`` and ``masks/``, or for folders of other usual names; the
    images may also lie in ``folder`` itself. Else it looks for masks beside their images, which it
    recognises by the end of their stems (``a.png`` and ``a_mask.png``). The stems of image and mask
    are equal, or one prefix and suffix differ in the whole folder: ``Img_3`` and ``Mask_3``,
    ``21_training`` and ``21_manual1``. Where ``selection`` takes all pages, each picture of a TIFF
    is an image. The parts of a divided set, such as ``train/`` and ``valid/``, are joined. Lines of
    shapes are drawn as `read_set` draws them.

    Raises:
        InputError: The folder is not found or holds nothing to pair. Or it holds two candidates for
            the masks, files without a partner, or two files of one stem.
        MachineError: No permission to read.
    """
    pairs, problem = match_pairs(folder, selection, line_width)
    if problem:
        raise problem
    return pairs


def match_pairs(
    folder: str | os.PathLike[str],
    selection: Selection = WHOLE,
    line_width: float | None = None,
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs of a folder as `find_pairs` does, and the problems of the other files.

    Args:
        folder: The folder.
        selection: The part of each file that is taken, as `find_pairs` takes it.
        line_width: The width of drawn lines, as `read_set` takes it.

    Raises:
        InputError: The folder is not found or holds nothing to pair. Or it holds two candidates for
            the masks, or two files of one stem.
        MachineError: No permission to read.
    """
    if isinstance(folder, LabelledSet):
        return folder.pairs, folder.problem
    home = Path(folder)
    return _by_page(*_match(home, find_export(home, line_width), "", _CONVERT), selection)


def _by_page(
    pairs: tuple[Pair, ...], problem: InputError | None, selection: Selection
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return a pair for each page where all are taken, and the problems of the files."""
    if selection.page != "all":
        return pairs, problem
    pages: list[Pair] = []
    for pair in pairs:
        try:
            pages += _pages_of(pair)
        except InputError as error:
            problem = problem or error
    return tuple(pages), problem


def _pages_of(pair: Pair) -> list[Pair]:
    """Return a pair for each picture of a TIFF that holds several, else the pair itself."""
    count = reading.read_info(pair.image).pages
    if count == 1:
        return [pair]
    masks = 1 if pair.drawn is not None else reading.read_info(pair.mask).pages
    if masks != count:
        text = f"holds {plural(masks, 'mask')} for {count} pages of {show(pair.image.name)}"
        remedy = f"make a mask of each page, or pass {arg('page', 'max')} to join the pages"
        raise InputError(pair.mask, text, remedy)
    digits = len(str(count - 1))
    return [replace(pair, name=f"{pair.name}-{k:0{digits}}", page=k) for k in range(count)]


@dataclass(frozen=True)
class LabelledSet:
    """The pairs and classes of a folder of labelled images.

    It stands for its folder wherever a path is taken. Functions that would pair the files of the
    folder take these pairs instead.

    Attributes:
        folder: The folder.
        pairs: Images and masks.
        problem: The fault of files that belong to no pair, in words.
        classes: The classes, where they are given or declared.
        warnings: Doubts about the masks of an export, as in `exports.export.Export`, and about the
            names of classes.
    """

    folder: Path
    pairs: tuple[Pair, ...]
    problem: InputError | None
    classes: ClassTable | None
    warnings: tuple[str, ...]

    def __fspath__(self) -> str:
        return str(self.folder)


def read_set(
    folder: str | os.PathLike[str],
    classes: str | os.PathLike[str] | None = None,
    *,
    without: str = "",
    converts: bool = False,
    selection: Selection = WHOLE,
    line_width: float | None = None,
) -> LabelledSet:
    """Return the pairs and the classes of a folder, for which an export is read once.

    Args:
        folder: The folder. A set that was read with the same arguments is returned as it is.
        classes: The file of the classes; None takes those that the folder declares.
        without: Name of a folder in it that holds neither images nor masks.
        converts: Whether a conversion asks, which is then no remedy.
        selection: The part of each file that is taken, as `find_pairs` takes it.
        line_width: The width in pixels at which lines and points of LabelMe, VIA and QuPath are
            drawn; None draws none.

    Raises:
        InputError: `match_pairs` or `load_classes` refuses the folder.
        MachineError: No permission to read.
    """
    if isinstance(folder, LabelledSet):
        return folder
    home = Path(folder)
    export, advice = find_export(home, line_width), "" if converts else _CONVERT
    table = declared_classes(home, classes, export)
    if export and table:
        source = Path(classes) if classes else home / "classes.toml"
        export = replace(export, pairs=export.pairs_under(table, source))
    pairs, problem = _by_page(*_match(home, export, without, advice), selection)
    warnings = export.warnings if export else ()
    if table and classes is None and (home / "classes.toml").exists():
        warnings = (*warnings, *describe_other_names([home, *find_parts(home)], table))
    return LabelledSet(home, pairs, problem, table, warnings)


def find_images(
    folder: str | os.PathLike[str], commands: Commands | None = None
) -> tuple[Pair, ...]:
    """Return the images of a folder, labelled or not, each with the file of its mask.

    A mask that is missing has the place and the name in which `find_pairs` would look for it. Where
    no image has a mask, that is ``masks/<stem>.png``.

    Args:
        folder: The folder.
        commands: The command lines to suggest; None takes those without options.

    Raises:
        InputError: The folder is not found or holds no images. Or it holds two candidates for the
            masks, masks without an image, two files of one stem, or labels that are no masks.
        MachineError: No permission to read.
    """
    folder = Path(folder)
    files, folders = list_folder(folder)
    if export := find_export(folder):
        if any(pair.drawn is not None for pair in export.pairs):
            remedy = f"make masks of them: {either(*(commands or Commands(folder)).convert())}"
            raise InputError(folder, f"holds labels of {export.tool}, no masks", remedy)
        return export.pairs
    masks = _only(folder, folders, MASK_FOLDERS, "masks")
    home = _only(folder, folders, IMAGE_FOLDERS, "images")
    if masks is None and home is None and any(_mask_suffix(stem_of(file)) for file in files):
        return place_masks(folder, *_divide_flat(folder, files), home=folder)
    mask_paths, parts = list_folder(masks) if masks else ([], [])
    if masks and parts and not mask_paths:
        raise InputError(masks, "holds folders, no pictures", _CONVERT)
    return place_masks(folder, list_images(home or folder), mask_paths, masks or folder / "masks")


def load_classes(
    folder: str | os.PathLike[str], file: str | os.PathLike[str] | None = None
) -> ClassTable | None:
    """Return the classes in ``file``, else those that the folder declares; None without either.

    A folder declares them in ``classes.toml``, in the ``labelmap.txt`` of CVAT, in the
    ``_classes.csv`` of Roboflow, or in the export of another tool.

    Raises:
        InputError: ``file`` is missing, or the file is not valid.
    """
    home = Path(folder)
    return declared_classes(home, file, find_export(home) if home.is_dir() else None)


def write_classes(folder: str | os.PathLike[str], table: ClassTable) -> None:
    """Write ``classes.toml`` into a folder (see `files.write_bytes` for the errors)."""
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
        InputError: `writing.write_mask` refuses the mask.
        MachineError: The disk is full or read-only, and the like.
    """
    writing.write_mask(Path(folder) / "masks" / f"{name}.png", mask, table)
    writing.write_picture(Path(folder) / "images" / f"{name}.png", image)


# --- finding and pairing ---------------------------------------------------------------------


def _match(
    folder: Path, export: Export | None, without: str, advice: str
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs of a folder in any layout, and the problems of its other files."""
    if export:
        return export.pairs, None
    if parts := find_parts(folder):
        return _match_parts(parts, without, advice)
    files, folders = list_folder(folder)
    folders = [f for f in folders if f.name != without]
    masks = _only(folder, folders, MASK_FOLDERS, "masks")
    home = _only(folder, folders, IMAGE_FOLDERS, "images") or folder
    if masks is None:
        if not any(_mask_suffix(stem_of(file)) for file in files):
            refuse_by_name(folder)
            _refuse_half(folder, home, advice)
        return match_files(folder, *_divide_flat(folder, files, advice))
    mask_paths, parts = list_folder(masks)
    image_paths = list_folder(home)[0] if mask_paths else []
    if not image_paths:
        refuse_by_name(folder)
    if parts and not mask_paths:
        raise InputError(masks, "holds folders, no pictures", advice)
    # `list_images` says what is wrong with a folder that holds none.
    return match_files(folder, image_paths or list_images(home), mask_paths or list_images(masks))


def _match_parts(
    parts: Sequence[Path], without: str, advice: str
) -> tuple[tuple[Pair, ...], InputError | None]:
    """Return the pairs of all parts of a set, and a problem of their other files."""
    found, problems = dict[str, tuple[Pair, ...]](), list[InputError]()
    for part in parts:
        try:
            found[part.name], problem = _match(part, None, without, advice)
        except InputError as error:
            remedies = "; or ".join(filter(None, [error.remedy, name_one(parts)]))
            raise InputError(error.subject, error.problem, remedies, give=error.give) from None
        problems += [problem] if problem else []
    return join_parts(found), problems[0] if problems else None


def _only(folder: Path, folders: Sequence[Path], names: Sequence[str], kind: str) -> Path | None:
    """Return the one folder that bears one of ``names``; refuse two with a question."""
    found = [f for f in folders if f.name.lower() in names]
    if len(found) > 1:  # Pascal VOC keeps boxes, no pictures, in Annotations/
        found = [f for f in found if list_folder(f)[0]]
    if len(found) > 1:
        text = "which of " + " and ".join(f"{f.name}/" for f in found) + f" holds the {kind}?"
        remedy = f"rename the others, such as {found[-1].name}.unused"
        if kind == "masks":
            view = found[-1].name
            remedy += "; a field of view: " + either(
                f"unetseg convert SOURCE FOLDER --fov {view}",
                f"unetseg.convert_folder(SOURCE, FOLDER, fov={view!r})",
            )
        raise InputError(folder, text, remedy)
    return found[0] if found else None


def declared_classes(
    folder: Path, file: str | os.PathLike[str] | None, export: Export | None
) -> ClassTable | None:
    """Return the classes of `load_classes` for a folder whose export was read already."""
    path = folder / "classes.toml" if file is None else Path(file)
    if file is not None or path.exists():
        return read_classes(path)
    if folder.is_dir() and (table := class_table(folder)):
        return table
    return export.classes if export else _declared_by_parts(folder)


def _declared_by_parts(folder: Path) -> ClassTable | None:
    """Return the classes that the parts of a set declare; None where none of them does.

    Raises:
        InputError: Two parts declare other classes.
    """
    parts = find_parts(folder) if folder.is_dir() else []
    tables = {part: table for part in parts if (table := declared_classes(part, None, None))}
    for part, table in tables.items():
        first = next(iter(tables))
        if table != tables[first]:
            text = f"declares other classes than {first.name}/"
            raise InputError(part, text, name_one(parts))
    return next(iter(tables.values()), None)


def _refuse_half(folder: Path, home: Path, advice: str) -> None:
    """Refuse a folder of images or masks alone, and say where the other half is, or is made.

    Args:
        folder: The folder.
        home: The folder of its images, if it holds any.
        advice: Another remedy.
    """
    others = {IMAGE_FOLDERS: MASK_FOLDERS, MASK_FOLDERS: IMAGE_FOLDERS}
    around = folder.resolve().parent
    for names, partners in others.items():
        if folder.resolve().name.lower() in names:
            beside = [d for d in list_folder(around)[1] if d.name.lower() in partners]
            if beside:
                text = f"is half of a set; {folder.parent} holds {beside[0].name}/, too"
                raise InputError(folder, text, f"name {folder.parent}")
    if images := list_folder(home)[0]:
        text = f"holds {plural(len(images), 'picture')} and no masks"
        remedy = f"put masks into {folder / 'masks'}, or paint them: unetseg label {quote(folder)}"
        raise InputError(folder, text, "; ".join(filter(None, [remedy, advice])))


def _divide_flat(
    folder: Path, files: Sequence[Path], advice: str = _CONVERT
) -> tuple[list[Path], list[Path]]:
    """Divide the files of one folder into images and masks by how their stems end."""
    ends = {file: _mask_suffix(stem_of(file)) for file in files}
    kinds = sorted({end for end in ends.values() if end})
    if not kinds:
        text = "no folders images/ and masks/, and no files such as a.png with a_mask.png"
        remedy = "; ".join(filter(None, ["put images into images/ and masks into masks/", advice]))
        raise InputError(folder, text, remedy)
    if len(kinds) > 1:
        text = "which files are the masks: " + " or ".join(f"*{k}" for k in kinds) + "?"
        raise InputError(folder, text, "move the others out of the folder")
    return [f for f in files if not ends[f]], [f for f in files if ends[f]]


def _mask_suffix(stem: str) -> str:
    stem = stem.lower().removesuffix(OME)
    found = [s for s in MASK_SUFFIXES if stem.endswith(s) and len(stem) > len(s)]
    return max(found, key=len, default="")
