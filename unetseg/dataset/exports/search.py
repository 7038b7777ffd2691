"""The search for the tool that exported a folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from unetseg.dataset.exports.coco import read_coco
from unetseg.dataset.exports.export import Export
from unetseg.dataset.exports.joining import join_exports
from unetseg.dataset.exports.label_studio import read_label_studio
from unetseg.dataset.exports.labelme import read_labelme
from unetseg.dataset.exports.nnunet import read_nnunet
from unetseg.dataset.exports.qupath import read_qupath
from unetseg.dataset.exports.supervisely import read_supervisely
from unetseg.dataset.exports.via import read_via
from unetseg.dataset.exports.yolo import read_yolo
from unetseg.dataset.parts import find_parts


def find_export(folder: Path, line_width: float | None = None) -> Export | None:
    """Return the set of a folder that a known tool exported; None of any other folder.

    The parts of a divided set, such as ``train/`` and ``valid/``, are joined.

    Args:
        folder: The folder.
        line_width: The width in pixels of lines and points; None draws none.

    Raises:
        InputError: Labels that cannot be read exactly, or parts that do not belong together.
    """
    parts = find_parts(folder)
    found = {part.name: export for part in parts if (export := find_export(part, line_width))}
    if found:
        return join_exports(folder, [part.name for part in parts], found)
    # Each reader returns None where a folder is not of its tool.
    readers: tuple[Callable[[Path], Export | None], ...] = (
        partial(read_labelme, line_width=line_width),
        read_coco,
        read_nnunet,
        read_supervisely,
        read_label_studio,
        partial(read_via, line_width=line_width),
        partial(read_qupath, line_width=line_width),
        read_yolo,
    )
    return next((export for read in readers if (export := read(folder))), None)
