"""Tables of classes beside masks: ``labelmap.txt`` and ``_classes.csv``."""

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from unetseg.classes import ClassTable, SegmentationClass, named_classes
from unetseg.dataset.exports.export import Reading
from unetseg.dataset.exports.values import head_of
from unetseg.errors import InputError
from unetseg.text import show

_LABELMAP, _TABLE = "labelmap.txt", "_classes.csv"
VOID = "#e0e0c0"  # Pascal VOC paints outlines in this colour and leaves them out of scores


def class_table(folder: Path) -> ClassTable | None:
    """Return the classes that ``labelmap.txt`` or ``_classes.csv`` declare; None without either."""
    return _labelmap(folder / _LABELMAP) or _roboflow_classes(folder / _TABLE)


def describe_other_names(homes: Iterable[Path], table: ClassTable) -> list[str]:
    """Say where a ``classes.toml`` names a class otherwise than a list beside the masks does.

    Args:
        homes: The folders that may hold such lists.
        table: The classes of the ``classes.toml``.
    """
    names = {table.key(i): name for i, name in enumerate(table.names)}
    for home in homes:
        try:
            listed = class_table(home)
        except InputError:
            continue  # the classes.toml stands in for a damaged list
        for i, one in enumerate(listed or ()):
            name = names.get(listed.key(i), one.name) if listed else one.name
            if name.casefold() != one.name.casefold():
                file = next(f for f in (_LABELMAP, _TABLE) if (home / f).is_file())
                text = f"{file} calls a class {show(one.name)!r}, and classes.toml calls it "
                return [f"{text}{show(name)!r}, which counts"]
    return []


def _labelmap(path: Path) -> ClassTable | None:
    """Return the classes of a CVAT or Pascal VOC ``labelmap.txt``: ``name:r,g,b:parts:actions``."""
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
        classes.append(SegmentationClass(match[1].strip(), None, colour))
    void = () if VOID in {c.colour for c in classes} else (VOID,)
    return ClassTable(tuple(classes), void)


def _roboflow_classes(path: Path) -> ClassTable | None:
    """Return the classes of Roboflow's semantic masks: a table ``Pixel Value, Class``."""
    if not path.is_file():
        return None
    if [c.strip().lower() for c in head_of(path).split(",")] != ["pixel value", "class"]:
        return None  # the table of another kind of export
    with Reading(path, "Roboflow"):
        rows = [r for r in csv.reader(path.read_text("utf-8-sig").splitlines()) if r]
        values, names = zip(*((int(value), name.strip()) for value, name in rows[1:]), strict=True)
    return ClassTable(named_classes(names, values=values))
