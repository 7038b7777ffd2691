"""The search for the tool that exported a folder."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from unetseg.dataset.exports.beside import describe_beside, find_beside, is_mask
from unetseg.dataset.exports.coco import read_coco
from unetseg.dataset.exports.export import Export, join_exports
from unetseg.dataset.exports.extent import describe_extent
from unetseg.dataset.exports.label_studio import read_label_studio
from unetseg.dataset.exports.labelme import read_labelme
from unetseg.dataset.exports.nnunet import read_nnunet
from unetseg.dataset.exports.qupath import read_qupath
from unetseg.dataset.exports.supervisely import read_supervisely
from unetseg.dataset.exports.values import JsonFiles
from unetseg.dataset.exports.via import read_via
from unetseg.dataset.exports.yolo import read_yolo
from unetseg.dataset.naming import list_folder
from unetseg.dataset.parts import find_parts
from unetseg.errors import InputError
from unetseg.text import show


def find_export(folder: Path, line_width: float | None = None) -> Export | None:
    """Return the set of a folder that a known tool exported; None of any other folder.

    The parts of a divided set, such as ``train/`` and ``valid/``, are joined.

    Args:
        folder: The folder.
        line_width: The width in pixels of lines and points; None draws none.

    Raises:
        InputError: Labels that cannot be read exactly, parts that do not belong together, or
            labels of two kinds.
    """
    parts = find_parts(folder)
    found = {part.name: export for part in parts if (export := find_export(part, line_width))}
    if found:
        return join_exports(folder, [part.name for part in parts], found)
    files = JsonFiles(folder)
    # Each reader returns None where a folder is not of its tool.
    readers: tuple[Callable[[Path], Export | None], ...] = (
        partial(read_labelme, files=files, line_width=line_width),
        partial(read_coco, files=files),
        read_nnunet,
        read_supervisely,
        partial(read_label_studio, files=files),
        partial(read_via, files=files, line_width=line_width),
        partial(read_qupath, line_width=line_width),
        read_yolo,
    )
    export = next((export for read in readers if (export := read(folder))), None)
    if export is None or any(pair.drawn is None for pair in export.pairs):
        return export
    beside = find_beside(folder, export)
    _refuse_second_kind(folder, export, beside)
    texts = (*describe_beside(folder, export, beside), *describe_extent(export.pairs))
    return replace(export, warnings=(*export.warnings, *texts))


def _refuse_second_kind(folder: Path, export: Export, beside: Sequence[Path]) -> None:
    """Refuse a folder in which pictures beside the labelled ones have labels of another kind."""
    used = [path for pair in export.pairs for path in (pair.image, pair.mask)]
    for home in list_folder(folder)[1]:
        if any(home in path.parents for path in used):
            continue
        are_masks = [is_mask(path, folder) for path in beside if home in path.parents]
        if all(are_masks):
            continue
        other = find_export(home)
        kind = other.tool if other else "masks" if any(are_masks) else ""
        if kind:
            text = f"holds {export.tool}, and {kind} in {show(home.name)}/"
            raise InputError(folder, text, "name one folder, or export all from one tool")
