"""The classes of a set: names, how masks encode them, and the colours they are painted in."""

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from unetseg.errors import InputError, arg
from unetseg.files import read_toml
from unetseg.results import Colour, Result, Table
from unetseg.text import nearest, show

IGNORED = 255  # the class index of pixels that are neither trained on nor scored
IGNORED_COLOUR = "#808080"  # of ignored values in pictures
MAX_CLASSES = 255

# Okabe and Ito (2008), "Color Universal Design": most colour-blind readers tell these colours
# apart. Black is left for the first class, which most often is a background.
_PALETTE = (
    "#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
    "#999999", "#8c564b", "#17becf", "#bcbd22", "#7f3c8d", "#3969ac", "#e73f74", "#80ba5a",
)  # fmt: skip


def default_colour(index: int) -> str:
    """Return the colour "#rrggbb" that class number ``index`` is painted in by default.

    The first 16 are chosen to be told apart; later ones walk the colour circle by the golden
    angle, so that neighbours differ.
    """
    if index < len(_PALETTE):
        return _PALETTE[index]
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.55 + index % 3 * 0.2, 0.9)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def free_colours(taken: Collection[str]) -> Iterator[str]:
    """Yield the default colours in their order without those that are ``taken``."""
    return (colour for colour in map(default_colour, itertools.count()) if colour not in taken)


def colour_to_rgb(colour: str) -> tuple[int, int, int]:
    """Return ``(red, green, blue)``, each 0 to 255, of a colour "#rrggbb"."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


@dataclass(frozen=True)
class SegmentationClass:
    """A class of pixels.

    Attributes:
        name: The name in tables; it is unique and not empty.
        value: The mask value that stands for the class (0 to 65535). None where masks are colours.
        colour: The colour "#rrggbb" that the class is painted in. It stands for the class where
            masks are colours.
    """

    name: str
    value: int | None
    colour: str


def named_classes(
    names: Sequence[str],
    colours: Mapping[str, str] = MappingProxyType({}),
    values: Sequence[int] | None = None,
) -> tuple[SegmentationClass, ...]:
    """Return classes by their names.

    Args:
        names: The names, in the order of the class indices.
        colours: The colours of some names. The others get default colours that are not among them.
        values: The mask value of each name; None takes 0, 1, 2, ...
    """
    free = free_colours(colours.values())
    return tuple(
        SegmentationClass(name, value, colours.get(name) or next(free))
        for name, value in zip(names, range(len(names)) if values is None else values, strict=True)
    )


@dataclass(frozen=True, repr=False)
class ClassTable(Result):
    """All classes of a set in order; a class's place is its index in arrays.

    It has a length and yields the classes; ``table["cell"]`` is the class of that name.

    Attributes:
        classes: 1 to 255 classes. All have a value ("values") or none has ("colours").
        ignore: Mask values, or colours "#rrggbb", neither trained on nor scored.

    Raises:
        InputError: Names, values or colours that are repeated, mixed or out of range.
    """

    classes: tuple[SegmentationClass, ...]
    ignore: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise InputError("classes", f"{len(self.classes)} found", "1 to 255 are possible")
        values = [c.value for c in self.classes]
        if None in values and any(v is not None for v in values):
            raise InputError("classes", "some have a value, some only a colour", "choose one way")
        for c in self.classes:
            if not c.name or len(c.name) > 200:
                raise InputError("classes", f"a name of {len(c.name)} characters", "1 to 200")
            if c.value is not None and not 0 <= c.value <= 65535:
                raise InputError(f"class {c.name}", f"value {c.value}", "0 to 65535 are possible")
            if not re.fullmatch("#[0-9a-f]{6}", c.colour):
                raise InputError(f"class {c.name}", f"colour {c.colour!r}", 'write "#rrggbb"')
        keys = [self.key(i) for i in range(len(self.classes))]
        for kind, items in (("name", self.names), ("value or colour", keys)):
            repeated = [x for i, x in enumerate(items) if x in items[:i]]
            if repeated:
                raise InputError(
                    "classes", f"{kind} {repeated[0]!r} stands twice", "make it unique"
                )
        for item in self.ignore:
            if isinstance(item, str) != (self.encoding == "colours"):
                text = f"ignored {item!r} beside classes given by {self.encoding}"
                raise InputError("classes", text, "write both the same way")
            if item in keys:
                raise InputError("classes", f"{item!r} is a class and ignored", "choose one")

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[SegmentationClass]:
        return iter(self.classes)

    def __getitem__(self, name: str) -> SegmentationClass:
        """Return the class of a name.

        Raises:
            InputError: No class has the name.
        """
        if name not in self.names:
            remedy = f"{nearest(str(name), self.names)}one of {', '.join(map(show, self.names))}"
            raise InputError("classes", f"none is called {name!r}", remedy)
        return self.classes[self.names.index(name)]

    def names_of(self, values: Iterable[int]) -> list[str]:
        """Return the names of mask values; a value of no class is called "ignored"."""
        name_of = {c.value: c.name for c in self}
        return [name_of.get(value, "ignored") for value in values]

    def line(self) -> str:
        """Return the names."""
        return ", ".join(map(show, self.names))

    def table(self, *last: tuple[str, Sequence[object]]) -> Table:
        """Return the classes as people read them, with further columns of one cell a class."""
        rows = [
            (Colour(c.colour), c.name, str(self.key(i)), *(cells[i] for _, cells in last))
            for i, c in enumerate(self.classes)
        ]
        ignored = ", ".join(map(str, self.ignore))
        note = f"{ignored} in masks is ignored" if ignored else ""
        return Table("Classes", ["", "class", "in masks", *(head for head, _ in last)], rows, note)

    def tables(self) -> tuple[Table, ...]:
        """Return the classes as people read them."""
        return (self.table(),)

    def records(self) -> list[dict[str, Any]]:
        """Return a row a class."""
        rows: list[dict[str, Any]] = self.to_dict()["classes"]
        return rows

    @property
    def encoding(self) -> Literal["values", "colours"]:
        """Whether masks hold values (or palette indices), or RGB colours."""
        return "colours" if self.classes[0].value is None else "values"

    @property
    def names(self) -> tuple[str, ...]:
        """The names in class order."""
        return tuple(c.name for c in self.classes)

    def key(self, index: int) -> int | str:
        """Return the value or the colour "#rrggbb" that stands for class ``index`` in a mask."""
        value = self.classes[index].value
        return self.classes[index].colour if value is None else value

    def pixel_values(self) -> tuple[int, ...]:
        """Return the pixel value that a prediction writes for each class.

        It is the mask value. Where masks were colours it is the index, and the palette holds the
        colour.
        """
        return tuple(i if c.value is None else c.value for i, c in enumerate(self.classes))

    def with_ignored(self, items: tuple[int | str, ...]) -> "ClassTable":
        """Return a table that also ignores ``items``, without the classes that they name."""
        kept = tuple(c for i, c in enumerate(self.classes) if self.key(i) not in items)
        if not kept:
            raise leaves_no_class(self.key(i) for i in range(len(self.classes)))
        return ClassTable(kept, tuple(dict.fromkeys((*self.ignore, *items))))

    def changed(self, names: Iterable[str], colours: Iterable[str]) -> "ClassTable":
        """Return a table with other names ("OLD=NEW") and colours ("NAME=#rrggbb").

        Raises:
            InputError: No such class, or a name or colour that is not valid.
        """
        classes = list(self.classes)
        for option, items in ((arg("rename"), names), (arg("recolour"), colours)):
            for item in items:
                index = next((i for i, n in enumerate(self.names) if item.startswith(f"{n}=")), -1)
                if index < 0:
                    remedy = f"write NAME=NEW; the classes are {', '.join(self.names)}"
                    raise InputError(option, f"{item!r} begins with no class", remedy)
                value = item[len(self.names[index]) + 1 :]
                if option == arg("rename"):
                    classes[index] = replace(classes[index], name=value)
                else:
                    classes[index] = replace(classes[index], colour=value.lower())
        return ClassTable(tuple(classes), self.ignore)

    def to_dict(self) -> dict[str, Any]:
        """Return plain types for JSON: ``{"classes": [{name, value, colour}], "ignore": []}``."""
        classes = [{"name": c.name, "value": c.value, "colour": c.colour} for c in self.classes]
        return {"classes": classes, "ignore": list(self.ignore)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ClassTable":
        """Read the result of `to_dict`. Raises `InputError` on anything else."""
        try:
            classes = tuple(
                SegmentationClass(_text(c["name"]), _number(c["value"]), _text(c["colour"]))
                for c in data["classes"]
            )
            ignore = tuple(i if type(i) is int else _text(i) for i in data["ignore"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("classes", f"not a class table ({error!r})", "") from None
        return cls(classes, ignore)

    def to_toml(self) -> str:
        """Return the text of a ``classes.toml`` that reads back as this table."""
        lines = [*self._ignored_in_toml(), ""] if self.ignore else []
        for entry in self._entries_in_toml():
            lines += ["[[class]]", *entry, ""]
        return "\n".join(lines)

    def to_short_toml(self) -> str:
        """Return the same as `to_toml`, on one line a class."""
        entries = [f"    {{{', '.join(entry)}}}," for entry in self._entries_in_toml()]
        return "\n".join([*self._ignored_in_toml(), "class = [", *entries, "]"])

    def _ignored_in_toml(self) -> list[str]:
        items = ", ".join(_quote(i) if isinstance(i, str) else str(i) for i in self.ignore)
        return [f"ignore = [{items}]"] if items else []

    def _entries_in_toml(self) -> Iterator[list[str]]:
        for c in self.classes:
            value = [] if c.value is None else [f"value = {c.value}"]
            yield [f"name = {_quote(c.name)}", *value, f'colour = "{c.colour}"']


def leaves_no_class(keys: Iterable[int | str]) -> InputError:
    """Return the error for a set in which every value or colour is to be ignored."""
    named = ", ".join(map(str, keys))
    return InputError(arg("ignore"), f"leaves no class: masks hold {named} only", "ignore fewer")


def table_of(keys: list[int] | list[str], ignore: tuple[int | str, ...] = ()) -> ClassTable:
    """Return the table of a set without ``classes.toml``, from the values or colours found.

    The classes are sorted. Each has its value or colour as its name. Values get default colours.
    """
    ordered: list[Any] = sorted(keys)
    classes = [
        SegmentationClass(k, None, k)
        if isinstance(k, str)
        else SegmentationClass(str(k), k, default_colour(i))
        for i, k in enumerate(ordered)
    ]
    return ClassTable(tuple(classes), ignore)


def read_classes(path: Path) -> ClassTable:
    """Read a ``classes.toml`` (design: an ``ignore`` list and ``[[class]]`` tables).

    Raises:
        InputError: Not found, not TOML, an unknown key, or a class that is not valid.
    """
    data = read_toml(path)
    unknown = set(data) - {"ignore", "class"}
    if unknown:
        text = f"unknown key {show(sorted(unknown)[0])!r}"
        raise InputError(path, text, "'ignore' and [[class]] are known")
    entries, ignore = data.get("class", []), data.get("ignore", [])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise InputError(path, "'class' is no list of tables", "write [[class]] above each")
    if not isinstance(ignore, list):
        raise InputError(path, "'ignore' is no list", "write ignore = [255]")
    try:
        classes = tuple(_from_toml(i, entry) for i, entry in enumerate(entries))
        return ClassTable(classes, tuple(_ignored(i) for i in ignore))
    except InputError as error:
        raise InputError(path, f"{error.what}: {error.problem}", error.remedy) from None


def _from_toml(index: int, entry: dict[str, Any]) -> SegmentationClass:
    where = f"class {index + 1}"
    unknown = set(entry) - {"name", "value", "colour"}
    if unknown:
        text = f"unknown key {sorted(unknown)[0]!r}"
        raise InputError(where, text, "'name', 'value' and 'colour' are known")
    value, colour = entry.get("value"), entry.get("colour")
    if value is None and colour is None:
        raise InputError(
            where, "neither value nor colour", "give the one that stands for it in the masks"
        )
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(where, f"value {value!r} is no whole number", "write value = 1")
    if colour is not None and not isinstance(colour, str):
        raise InputError(where, f"colour {colour!r} is no text", 'write colour = "#ff0000"')
    name = entry.get("name", colour if value is None else str(value))
    if not isinstance(name, str):
        raise InputError(where, f"name {name!r} is no text", 'write name = "line"')
    return SegmentationClass(name.strip(), value, (colour or default_colour(index)).lower())


def _ignored(item: Any, where: str = "ignore") -> int | str:
    if isinstance(item, str) and re.fullmatch("#[0-9a-fA-F]{6}", item):
        return item.lower()
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 65535:
        return item
    text = f"{show(repr(item))} is neither"
    raise InputError(where, text, "write values (255) or colours ('#rrggbb')")


def parse_ignored(text: str) -> int | str:
    """Read an ignored value (``255``) or colour (``#ff0000``) from a command line.

    Raises:
        InputError: Neither, or a value over 65535.
    """
    return _ignored(int(text) if re.fullmatch(r"\d{1,9}", text) else text, arg("ignore"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _quote(text: str) -> str:
    """Return ``text`` as a basic string of TOML, everything unusual escaped."""
    body = "".join(
        "\\" + c if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in text
    )
    return f'"{body}"'
