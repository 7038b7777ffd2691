"""Shapes that an annotation tool exported, drawn into masks."""

from pathlib import Path

import numpy as np

from unetseg.dataset import pairing
from unetseg.dataset.conversion.annotations import Annotations, ConvertedMask
from unetseg.dataset.exports.search import find_export
from unetseg.objects.borders import draw_objects, with_borders
from unetseg.pictures import masks
from unetseg.pictures.masks import RawMask


def read_drawn(
    root: Path,
    classes_file: Path | None = None,
    instances: bool = False,
    line_width: float | None = None,
) -> tuple[str, Annotations] | None:
    """Read labels that a tool exported as shapes; None of other sets.

    Args:
        root: The set.
        classes_file: The file of the classes; None takes the ``classes.toml`` of the set, else the
            classes of the labels. Shapes are matched by name.
        instances: Whether each shape is an object: its class, as the labels name it, is followed by
            that of its border.
        line_width: The width in pixels of lines and points; None draws none.

    Returns:
        The name of the tool, and the labels.

    Raises:
        InputError: The export is not readable (`search.find_export`), or a shape cannot be drawn.
    """
    export = find_export(root, line_width)
    if export is None or any(p.drawn is None for p in export.pairs):
        return None
    table, pairs = export.classes, export.pairs
    if not instances:
        table = pairing.declared_classes(root, classes_file, export) or table
        pairs = export.pairs_under(table, classes_file or root / "classes.toml")
    pair_of = {p.name: p for p in pairs}

    def read(name: str, shape: tuple[int, int]) -> ConvertedMask:
        pair = pair_of[name]
        drawn = pair.read_shapes()  # 1 to n
        masks.check_same_size(pair.mask, drawn.shape, shape)
        hidden = table.names_of(pair.hidden(drawn, instances))
        if not instances:
            labels = pair.labels_of(RawMask(pair.values[drawn]), table)
            return ConvertedMask(labels, hidden=hidden)
        kinds = np.array([kind for kind, _ in pair.drawn or ()], int)
        mask, numbers = draw_objects(drawn, kinds)
        return ConvertedMask(mask, numbers=numbers, hidden=hidden)

    classes = table.classes
    if instances:
        colours = {c.name: c.colour for c in classes[1:]}
        classes = with_borders(list(colours), colours)
    return export.tool, Annotations.of_pairs(pairs, classes, read, warnings=export.warnings)
