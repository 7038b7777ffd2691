"""Files and numbers in them, as annotation tools write them."""

import itertools
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from unetseg.dataset.naming import IMAGE_FOLDERS, MASK_FOLDERS
from unetseg.dataset.parts import PARTS
from unetseg.errors import InputError
from unetseg.text import few, plural, show

_Content = TypeVar("_Content")
_PARALLEL = 1e-3  # times the largest coordinate: tools round corners
HEAD = 1000  # bytes in which the columns of a table, or the first element of an XML file, stand
_DEEPEST = 5  # folders inside each other that are searched for images


def homes_of(folder: Path) -> list[Path]:
    """Return a folder and the visible folders in it."""
    return [folder, *sorted(d for d in folder.iterdir() if d.is_dir() and d.name[:1] != ".")]


def files_in(folder: Path, suffix: str) -> list[Path]:
    """Return the visible files of a folder with this suffix, in capitals or not."""
    found = (f for f in folder.iterdir() if f.suffix.lower() == suffix and f.name[:1] != ".")
    return sorted(f for f in found if f.is_file())


def head_of(file: Path) -> str:
    """Return the start of the first line of a text in any encoding, without its end."""
    with open(file, encoding="utf-8-sig", errors="replace") as handle:
        return handle.readline(HEAD).rstrip("\r\n")


def visible_files(folder: Path, without: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the visible files under a folder, also through links, no deeper than five folders.

    Args:
        folder: The folder.
        without: Names of folders that are left out.
    """
    for home, folders, names in os.walk(folder, followlinks=True):
        depth = len(Path(home).relative_to(folder).parts)
        inside = (f for f in folders if f[:1] != "." and f not in without)
        folders[:] = inside if depth < _DEEPEST else ()
        yield from (Path(home, name) for name in names if name[:1] != ".")


def json_files(folder: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the JSON files of a folder and of the folders in it, with their content."""
    for file in (f for home in homes_of(folder) for f in files_in(home, ".json")):
        try:
            yield file, json.loads(file.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            remedy = "mend it or move it out"
            raise InputError(file, f"not readable as JSON ({error})", remedy) from None


class JsonFiles:
    """The JSON files of a folder and of the folders in it, for the readers of several tools.

    Each file is parsed once: a reader takes those of its tool, and the others wait for the next.
    """

    def __init__(self, folder: Path) -> None:
        self._unread, self._others = json_files(folder), list[tuple[Path, Any]]()

    def take(self, fits: Callable[[Any], object]) -> Iterator[tuple[Path, Any]]:
        """Yield the files whose content fits, with it; they are not kept, as they may be large."""
        files, self._others = itertools.chain(self._others, self._unread), []
        for file, data in files:
            if fits(data):
                yield file, data
            else:
                self._others.append((file, data))


def only_one(
    found: Sequence[tuple[Path, _Content]], tool: str, folder: Path, remedy: str = ""
) -> tuple[Path, _Content]:
    """Return the only file of a tool and its content; files of equal content count once.

    Raises:
        InputError: There are several; ``remedy`` is another than to keep one.
    """
    file, content = found[0]
    if any(other != content for _, other in found[1:]):
        names = " and ".join(show(file.name) for file, _ in found[:3])
        text = f"{tool} labels in {names}"
        raise InputError(folder, text, f"keep one of them in the folder{remedy}")
    return file, content


class MissingImageError(InputError):
    """Images that a label file names are not there."""

    def __init__(self, file: Path, names: Sequence[str], total: int = 1) -> None:
        self.names = names
        text, remedy = f"its image {show(names[0])} is not there", "put it into images/"
        if len(names) > 1:
            text = f"{len(names)} of its {plural(total, 'image')} are not there: "
            text, remedy = text + few(list(map(show, names))), "put them into images/"
        super().__init__(file, text, remedy)


class Pictures:
    """The files of a set by name, for labels that name their images.

    Labels may name folders that the set does not have, write a name in other capitals, or separate
    folders as Windows does.
    """

    def __init__(self, folder: Path, part: str = "") -> None:
        """Take the folder of the set, and the word in the folders of its part, such as "train"."""
        self._folder, self._part = folder, part

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        """The files of each name, from all folders that lie no deeper than five."""
        found: dict[str, list[Path]] = {}
        for path in visible_files(self._folder):
            found.setdefault(folded(path.name), []).append(path)
        return found

    def named(self, name: str, file: Path) -> Path:
        """Return the image that a label file names.

        Several files may have the name. The one whose folders agree best is taken.

        Raises:
            InputError: There is no such image.
        """
        parts = [p for p in re.split(r"[/\\]", name) if p not in ("", ".", "..")]
        last = parts[-1] if parts else ""
        found = self._by_name.get(folded(last), []) if last else []
        if not found:
            raise MissingImageError(file, [last])
        return min(found, key=lambda path: self._rank(path, parts, file))

    def all_named(self, names: Sequence[str], file: Path) -> list[Path]:
        """Return the images that a label file names, in their order; see `named`.

        Raises:
            InputError: Images that are not there; it names the first ones.
        """
        found, missing = list[Path](), list[str]()
        for name in names:
            try:
                found.append(self.named(name, file))
            except MissingImageError as error:
                missing += error.names
        if missing:
            raise MissingImageError(file, missing, len(names))
        return found

    def _rank(self, path: Path, parts: Sequence[str], file: Path) -> tuple[Any, ...]:
        """Return a key that is smallest for the file that labels mean."""
        own = path.relative_to(self._folder).parts
        homes = [home.lower() for home in own[:-1]]
        of_part = any(self._part in part_words(home) for home in homes) if self._part else True
        pairs = zip(map(folded, reversed(own)), map(folded, reversed(parts)), strict=False)
        alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        are_masks = any(home in MASK_FOLDERS for home in homes)
        is_exact = path.name == parts[-1]
        beside = path.parent == file.parent
        is_usual = path.parent.name.lower() in IMAGE_FOLDERS
        return not of_part, -alike, not is_exact, are_masks, not beside, not is_usual, len(own), own


def folded(name: str) -> str:
    """Return a key that is equal for names that differ in capitals or the form of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def part_words(name: str) -> set[str]:
    """Return the parts of a divided set that a name speaks of, such as ``instances_train2017``."""
    return {PARTS[word] for word in re.findall("[a-z]+", name.lower()) if word in PARTS}


def number_of(value: Any) -> float:
    """Return a number that is finite; raise `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{show(repr(value))} is no number")
    return float(value)


def points_of(values: Any) -> list[tuple[float, float]]:
    """Return points (x, y); raise `ValueError` for anything but pairs of finite numbers."""
    return [(number_of(x), number_of(y)) for x, y in values]


def corners_of(values: Any) -> list[tuple[float, float]]:
    """Return the corners (x, y) of a polygon; raise `ValueError` where there are fewer than 3."""
    points = points_of(values)
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    return points


def flat_points(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Return points from x and y by turns; see `points_of`."""
    if len(values) % 2:
        raise ValueError("an odd number of coordinates")
    return points_of(zip(values[::2], values[1::2], strict=True))


def is_rectangle(ring: Sequence[tuple[float, float]]) -> bool:
    """Tell whether a ring has four corners and parallel sides; the first may stand last, too."""
    corners = ring[:-1] if len(ring) == 5 and ring[0] == ring[-1] else ring
    if len(corners) != 4:
        return False
    size = max(map(abs, itertools.chain.from_iterable(corners)))
    a, b, c, d = corners
    return all(abs(a[k] + c[k] - b[k] - d[k]) <= _PARALLEL * size for k in (0, 1))


def box_corners(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle from its upper left corner."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
