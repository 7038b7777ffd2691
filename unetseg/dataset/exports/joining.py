"""Parts of a divided set, joined into one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unetseg.classes import IGNORED, ClassTable, named_classes
from unetseg.dataset.exports.export import Export
from unetseg.dataset.parts import join_parts, name_one
from unetseg.errors import InputError


def join_exports(folder: Path, parts: Sequence[str], found: Mapping[str, Export]) -> Export:
    """Return the set of all parts. Classes with one name are one class.

    Raises:
        InputError: A part was exported otherwise than another, or not at all.
    """
    first, remedy = next(iter(found)), name_one(folder / part for part in parts)
    tool, table = found[first].tool, found[first].classes
    for part in parts:
        if part not in found or found[part].tool != tool:
            text = f"holds no {tool}, as {first}/ does"
            raise InputError(folder / part, text, remedy)
    if any(export.classes != table for export in found.values()):
        if any(pair.drawn is None for export in found.values() for pair in export.pairs):
            text = "its parts declare other classes than each other"
            raise InputError(folder, text, remedy)
        names = dict.fromkeys(n for export in found.values() for n in export.classes.names)
        table = ClassTable(named_classes(list(names)), (IGNORED,))
    pairs = {part: export.pairs_under(table, folder) for part, export in found.items()}
    left_out = [f"{part}/: {e.left_out}" for part, e in found.items() if e.left_out]
    return Export(tool, join_parts(pairs), table, "; ".join(left_out))
