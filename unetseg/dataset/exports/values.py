"""Files and numbers in them, as annotation tools write them."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unetseg.errors import InputError
from unetseg.pictures import reading
from unetseg.text import show


def homes_of(folder: Path) -> list[Path]:
    """Return a folder and the visible folders in it."""
    return [folder, *sorted(d for d in folder.iterdir() if d.is_dir() and d.name[:1] != ".")]


def json_files(folder: Path, pattern: str = "*.json") -> Iterator[tuple[Path, Any]]:
    """Yield the JSON files of a folder and of the folders in it, with their content."""
    for file in (f for home in homes_of(folder) for f in sorted(home.glob(pattern))):
        try:
            yield file, json.loads(file.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            remedy = "mend it or move it out"
            raise InputError(file, f"not readable as JSON ({error})", remedy) from None


def image_named(name: str, file: Path, folder: Path) -> Path:
    """Return the image that a label file names, beside it or in the set.

    Raises:
        InputError: There is no such image.
    """
    parts = [p for p in re.split(r"[/\\]", name) if p not in ("", ".", "..")]
    last = parts[-1] if parts else ""
    homes = list(dict.fromkeys([file.parent, *homes_of(folder)]))
    homes += [h / "images" for h in homes]
    tried = [h.joinpath(*parts) for h in homes] + [h / last for h in homes]
    image = next((path for path in tried if last and path.is_file()), None)
    if image is None:
        raise InputError(file, f"its image {show(last)} is not there", "put it into images/")
    return image


def number_of(value: Any) -> float:
    """Return a number that is finite; raise `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{show(repr(value))} is no number")
    return float(value)


def corners_of(values: Any) -> list[tuple[float, float]]:
    """Return the corners (x, y) of a polygon; raise `ValueError` where there are fewer than 3."""
    points = [(number_of(x), number_of(y)) for x, y in values]
    if len(points) < 3:
        raise ValueError(f"a polygon of {len(points)} points")
    return points


def flat_corners(values: Sequence[Any]) -> list[tuple[float, float]]:
    """Return the corners of a polygon from x and y by turns; see `corners_of`."""
    if len(values) % 2:
        raise ValueError("an odd number of coordinates")
    return corners_of(zip(values[::2], values[1::2], strict=True))


def size_of(image: Path) -> tuple[int, int]:
    """Return the height and the width of an image."""
    info = reading.read_info(image)
    return info.height, info.width


def box_corners(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle from its upper left corner."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
