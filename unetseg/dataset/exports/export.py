"""A set as a tool exported it, and the labels from which its reader makes it."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from unetseg.classes import IGNORED, ClassTable, named_classes
from unetseg.dataset import naming
from unetseg.dataset.naming import Pair
from unetseg.dataset.shapes import Draw
from unetseg.errors import InputError, arg
from unetseg.text import plural, show

_BACKGROUND = "background"
_NAMED = 4  # kinds of shapes that a warning names
_SPECIAL = {_BACKGROUND: 0, "_background_": 0, "__ignore__": IGNORED}  # the last two of LabelMe


@dataclass(frozen=True)
class Export:
    """A set as a tool exported it.

    Attributes:
        tool: The program that writes this format.
        pairs: Images and their masks, drawn ones where the labels are shapes.
        classes: The classes of the masks.
        left_out: The labels that are in no mask, in words; empty where there are none.
    """

    tool: str
    pairs: tuple[Pair, ...]
    classes: ClassTable
    left_out: str = ""


@dataclass
class Labels:
    """Gathers the shapes of each image, in the order in which they are drawn."""

    tool: str
    names: list[str] = field(default_factory=list)
    colours: dict[str, str] = field(default_factory=dict)
    images: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    found: dict[str, list[tuple[str, Draw]]] = field(default_factory=dict)
    without_area: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, label)

    def image(self, path: Path, source: Path) -> list[tuple[str, Draw]]:
        """Return the list that takes the shapes of an image."""
        stem = naming.stem_of(path)
        if stem in self.images:
            raise InputError(source, f"labels {show(path.name)} twice", "keep the labels once")
        self.images[stem] = path, source
        return self.found.setdefault(stem, [])

    def export(self) -> Export:
        """Return the set; its classes are those declared, else the labels found, by name."""
        labels = {label for drawn in self.found.values() for label, _ in drawn}
        names = self.names or sorted(labels, key=naming.natural_key)
        if not names:
            source = next((s for _, s in self.images.values()), "labels")
            raise InputError(source, f"{self.tool} without one shape", "draw and name some first")
        names = [_BACKGROUND, *dict.fromkeys(n for n in names if n not in _SPECIAL)]
        index = _SPECIAL | {name: i for i, name in enumerate(names)}
        pairs = []
        for stem in sorted(self.images, key=naming.natural_key):
            image, source = self.images[stem]
            unknown = next((label for label, _ in self.found[stem] if label not in index), None)
            if unknown is not None:
                raise InputError(source, f"class {show(unknown)!r} is not declared", "declare it")
            drawn = tuple((index[label], draw) for label, draw in self.found[stem])
            pairs.append(Pair(stem, image, source, drawn))
        table = ClassTable(named_classes(names, self.colours), (IGNORED,))
        return Export(self.tool, tuple(pairs), table, self._left_out())

    def _left_out(self) -> str:
        found = self.without_area.most_common()
        text = ", ".join(
            f"{plural(n, kind)} of {show(label)!r}" for (kind, label), n in found[:_NAMED]
        )
        more = ", ..." if len(found) > _NAMED else ""
        remedy = f"{arg('line_width', 3)} draws them 3 pixels wide"
        return f"shapes without an area are left out ({remedy}): {text}{more}" if found else ""


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
        if isinstance(error, LookupError | TypeError | ValueError | AttributeError | OSError):
            text = show(error) if isinstance(error, ValueError | OSError) else repr(error)
            remedy = error.remedy if isinstance(error, NotReadError) else "export it again"
            raise InputError(self.file, f"{self.tool}: {text}", remedy) from None
