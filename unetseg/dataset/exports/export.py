"""A set as a tool exported it, and the labels from which its reader makes it."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from unetseg.classes import IGNORED, ClassTable, named_classes
from unetseg.dataset import naming, shapes
from unetseg.dataset.exports.values import is_rectangle
from unetseg.dataset.naming import Pair
from unetseg.dataset.parts import join_parts, name_one
from unetseg.dataset.shapes import Draw, Frame, Points
from unetseg.errors import InputError, arg
from unetseg.text import few, nearest, plural, show

_BACKGROUND = "background"
_SPECIAL = {_BACKGROUND: 0, "_background_": 0, "__ignore__": IGNORED}  # the last two of LabelMe

_FEWEST_BOXES = 20  # with fewer, all objects may be rectangles by chance


@dataclass(frozen=True)
class Export:
    """A set as a tool exported it.

    Attributes:
        tool: The program that writes this format.
        pairs: Images and their masks, drawn ones where the labels are shapes.
        classes: The classes of the masks.
        warnings: The labels and images that are in no mask, and doubts about masks, in words.
    """

    tool: str
    pairs: tuple[Pair, ...]
    classes: ClassTable
    warnings: tuple[str, ...] = ()

    def pairs_under(self, table: ClassTable, source: Path) -> tuple[Pair, ...]:
        """Return the pairs with their shapes as the mask values of a table, matched by name.

        A class that the table does not name is ignored where the table ignores its value.

        Args:
            table: The classes.
            source: The file or folder of the table, for messages.

        Raises:
            InputError: The table leaves open which class a shape is of, or pixels of no shape.
        """
        if table == self.classes:
            return self.pairs
        drawn = {kind for pair in self.pairs for kind, _ in pair.drawn or ()}
        if not drawn:
            self._refuse_other_names(table, source)
            return self.pairs
        if IGNORED in drawn and IGNORED not in table.ignore:
            text = f"does not ignore {IGNORED}, the value of shapes that are no class"
            raise InputError(source, text, f"add ignore = [{IGNORED}]")
        value_of = {
            kind: _value_under(table, self.classes.names[kind], kind, source)
            for kind in sorted(drawn - {IGNORED})
        } | {IGNORED: IGNORED}
        below = next((c.name for c in table if c.value == 0), "")
        if below in self.classes.names[1:] or (below != _BACKGROUND and _BACKGROUND in table.names):
            text = f"gives the value 0, which pixels of no shape have, to {show(below)}"
            raise InputError(source, text, f"give it to {_BACKGROUND!r}")
        return tuple(
            replace(pair, drawn=tuple((value_of[kind], draw) for kind, draw in pair.drawn or ()))
            for pair in self.pairs
        )

    def _refuse_other_names(self, table: ClassTable, source: Path) -> None:
        """Refuse a table that gives another name to a mask value than the export gives."""
        own = {c.value: c.name for c in self.classes} | dict.fromkeys(self.classes.ignore, "ignore")
        for one in table:
            name = own.get(one.value, one.name)
            if name.casefold() != one.name.casefold():
                text = f"calls the value {one.value} {show(one.name)!r}, and "
                text += f"{self.tool} calls it {show(name)!r}"
                raise InputError(source, text, "give it one name in both")


def _value_under(table: ClassTable, name: str, value: int, source: Path) -> int:
    """Return the mask value that a table gives to a class of shapes; ``value`` is their own."""
    found = next((c for c in table if c.name == name), None)
    if found is None and value in table.ignore:
        return value
    if found is None:
        text = f"does not name {show(name)}, a class of shapes"
        raise InputError(source, text, f"{nearest(name, table.names)}name it there")
    if found.value is None:
        text = f"gives {show(name)} a colour, and shapes have none"
        raise InputError(source, text, "give each class a value")
    return found.value


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
    warnings = (f"{part}/: {text}" for part, e in found.items() for text in e.warnings)
    return Export(tool, join_parts(pairs), table, tuple(warnings))


@dataclass
class LabelledImage:
    """An image, and its shapes in the order in which they are drawn.

    Attributes:
        path: The image.
        source: The file of its labels.
        line_width: The width in pixels of lines and points; None leaves them out.
        size: The (height, width) of the picture that was labelled; None where it is not stated.
        is_relative: Whether positions are shares of that size.
        shapes: The class and the shape of each label.
        lines: The kind, the class and the points of each label that is left out.
        flat: The class of each polygon of fewer than three points: it covers nothing.
        corners: Corners (x, y) in pixels.
        rectangles: The number of shapes that are rectangles, or sheared ones.
    """

    path: Path
    source: Path
    line_width: float | None = None
    size: tuple[int, int] | None = None
    is_relative: bool = False
    shapes: list[tuple[str, Draw]] = field(default_factory=list)
    lines: list[tuple[str, str, Points]] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    corners: list[tuple[float, float]] = field(default_factory=list)
    rectangles: int = 0

    def state_size(self, height: Any, width: Any) -> None:
        """Keep the size of the picture that was labelled; tools write null or 0 for none."""
        self.size = (int(height), int(width)) if height and width else None

    def add(self, label: str, draw: Draw, corners: Points = ()) -> None:
        """Add a shape; its corners tell whether it fits an image whose size is not stated."""
        self.shapes.append((label.strip(), draw))
        self.corners += corners

    def add_rings(self, label: str, areas: Sequence[Sequence[Points]]) -> None:
        """Add polygons as `shapes.rings` draws them; those of fewer than three points are flat."""
        wide = [[r for r in area if len(r) > 2] for area in areas if area and len(area[0]) > 2]
        if not wide:
            self.flat.append(label)
            return
        self.rectangles += len(wide) == len(wide[0]) == 1 and is_rectangle(wide[0][0])
        self.add(label, partial(shapes.rings, wide), [c for outer, *_ in wide for c in outer])

    def add_line(self, label: str, kind: str, points: Points, centre: float = 0.0) -> None:
        """Add a line or a point; ``centre`` is the coordinate of the first pixel's centre."""
        if self.line_width is None:
            self.lines.append((kind, label, points))
            return
        places = [(x - centre, y - centre) for x, y in points]
        self.add(label, partial(shapes.line, places, self.line_width), points)

    @property
    def frame(self) -> Frame:
        """The picture that was labelled, as far as it is known."""
        if self.size or not self.corners:
            return Frame(self.size, is_relative=self.is_relative)
        outermost = (f(self.corners, key=itemgetter(axis)) for f in (min, max) for axis in (0, 1))
        return Frame(corners=tuple(outermost))


@dataclass
class Labels:
    """Gathers the shapes of each image.

    Attributes:
        tool: The program that wrote the labels.
        line_width: The width in pixels of lines and points; None leaves them out.
        has_order: Whether the tool shows later shapes on top of earlier ones.
        names: The classes that are declared, in order.
        colours: The colours of classes.
        images: The record of each image.
        warnings: Doubts about the labels, in words.
    """

    tool: str
    line_width: float | None = None
    has_order: bool = True
    names: list[str] = field(default_factory=list)
    colours: dict[str, str] = field(default_factory=dict)
    images: dict[Path, LabelledImage] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def image(self, path: Path, source: Path) -> LabelledImage:
        """Return the record that takes the shapes of an image."""
        if path in self.images:
            raise InputError(source, f"labels {show(path.name)} twice", "keep the labels once")
        self.images[path] = LabelledImage(path, source, self.line_width)
        return self.images[path]

    @property
    def found(self) -> set[str]:
        """The classes of all shapes."""
        return {label for image in self.images.values() for label, _ in image.shapes}

    def export(self) -> Export:
        """Return the set; its classes are those declared, else the labels found, by name."""
        for image in self.images.values():
            self._refuse_lines_alone(image)
        names = [n.strip() for n in self.names] or sorted(self.found, key=naming.natural_key)
        if not names:
            source = next((i.source for i in self.images.values()), "labels")
            raise InputError(source, f"{self.tool} without one shape", "draw and name some first")
        names = [_BACKGROUND, *dict.fromkeys(n for n in names if n not in _SPECIAL)]
        colours = {name.strip(): colour for name, colour in self.colours.items()}
        index = _SPECIAL | {name: i for i, name in enumerate(names)}
        pairs = []
        for name, image in self._named_images():
            unknown = next((label for label, _ in image.shapes if label not in index), None)
            if unknown is not None:
                text = f"class {show(unknown)!r} is not declared"
                raise InputError(image.source, text, "declare it")
            drawn = tuple((index[label], draw) for label, draw in image.shapes)
            frame, has_order = image.frame, self.has_order
            pairs.append(Pair(name, image.path, image.source, drawn, has_order, frame=frame))
        table = ClassTable(named_classes(names, colours), (IGNORED,))
        texts = self._lines_left_out(), self._flat_left_out(), self._boxes(), *self.warnings
        return Export(self.tool, tuple(pairs), table, tuple(filter(None, texts)))

    def _named_images(self) -> list[tuple[str, LabelledImage]]:
        """Return the images with their names, in order.

        Images of one stem in several folders are told apart by the names of these.
        """
        stems = Counter(naming.stem_of(path) for path in self.images)
        named: dict[str, LabelledImage] = {}
        for path, image in self.images.items():
            stem = naming.stem_of(path)
            name = stem if stems[stem] == 1 else f"{path.parent.name}-{stem}"
            if name in named:
                text = f"has the same name as {named[name].path}"
                raise InputError(path, text, "rename one, there and in the labels")
            named[name] = image
        return sorted(named.items(), key=lambda item: naming.natural_key(item[0]))

    def _refuse_lines_alone(self, image: LabelledImage) -> None:
        """Refuse an image of lines that are left out: it would show background alone."""
        if image.lines and not image.shapes:
            kind, _, points = image.lines[0]
            name = show(image.path.name)
            text = f"{self.tool}: {name} holds lines alone: "
            text += f"a {show(kind)} of {plural(len(points), 'point')} is not drawn"
            remedy = f"draw it as a polygon, or give {arg('line_width', 3)}"
            raise InputError(image.source, text, remedy)

    def _lines_left_out(self) -> str:
        lines = (line for image in self.images.values() for line in image.lines)
        found = Counter((kind, label) for kind, label, _ in lines).most_common()
        text = few([f"{plural(n, show(kind))} of {show(label)!r}" for (kind, label), n in found])
        remedy = f"{arg('line_width', 3)} draws them 3 pixels wide"
        return f"shapes without an area are left out ({remedy}): {text}" if found else ""

    def _boxes(self) -> str:
        shapes = sum(len(image.shapes) for image in self.images.values())
        if shapes < _FEWEST_BOXES or shapes > sum(i.rectangles for i in self.images.values()):
            return ""
        text = f"all {plural(shapes, 'shape')} are rectangles: outlines, or boxes around objects? "
        return text + "Boxes cover pixels beside the objects, too; then draw outlines"

    def _flat_left_out(self) -> str:
        names = [show(i.path.name) for i in self.images.values() for _ in i.flat]
        text = f"polygons of fewer than 3 points are left out: {len(names)}, in "
        return text + few(list(dict.fromkeys(names))) if names else ""


class NotReadError(ValueError):
    """A file of a tool holds labels that are not read; ``remedy`` says what to do about them."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.remedy = remedy


class Reading:
    """Names the file and its tool where the content is not as the tool writes it."""

    def __init__(self, file: Path, tool: str) -> None:
        self.file, self.tool = file, tool

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        expected = LookupError, TypeError, ValueError, AttributeError, OSError, csv.Error
        if isinstance(error, expected):
            is_told = isinstance(error, ValueError | OSError | csv.Error)
            text = show(error) if is_told else repr(error)
            remedy = error.remedy if isinstance(error, NotReadError) else "export it again"
            raise InputError(self.file, f"{self.tool}: {text}", remedy) from None
