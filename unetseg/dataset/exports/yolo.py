"""YOLO segmentation: a text file an image, and a YAML file with the classes."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from unetseg.dataset import naming, shapes
from unetseg.dataset.exports.export import Export, Labels, NotReadError, Reading, join_exports
from unetseg.dataset.exports.values import corners_of, files_in, flat_points, is_rectangle
from unetseg.dataset.parts import PARTS
from unetseg.errors import InputError
from unetseg.text import few, show

_OVER = 0.1  # of the image's side: so far outside of it a corner may lie


def read_yolo(folder: Path) -> Export | None:
    """Read YOLO segmentation: ``labels/x.txt``, each line a class and relative corners.

    The texts may also lie beside the images.
    """
    texts, images = folder / "labels", folder / "images"
    if folder.parent.name == "images" and folder.name in PARTS:
        texts, images = folder.parent.parent / "labels" / folder.name, folder
    if not texts.is_dir() or not images.is_dir():
        return _read(folder, folder, folder, _texts_beside(folder))
    parts = [n for n in PARTS if (texts / n).is_dir() and files_in(texts / n, ".txt")]
    if found := {n: export for n in parts if (export := read_yolo(images / n))}:
        return join_exports(images, parts, found)
    files = {naming.stem_of(t): t for t in files_in(texts, ".txt") if t.name != "classes.txt"}
    return _read(folder, images, texts, files)


def _texts_beside(folder: Path) -> dict[str, Path]:
    """Return the texts that bear the names of images beside them, if any of them holds outlines."""
    stems = {naming.stem_of(path) for path in naming.list_folder(folder)[0]}
    texts = [path for path in files_in(folder, ".txt") if naming.stem_of(path) in stems]
    is_yolo = any(_holds_outlines(path.read_text("utf-8-sig", "replace")) for path in texts)
    return {naming.stem_of(path): path for path in texts} if is_yolo else {}


def _holds_outlines(text: str) -> bool:
    """Tell whether each line is a class with three corners or more, in shares of an image."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    try:
        values = [[float(word) for word in words[1:]] for words in lines]
    except ValueError:
        return False
    are_shares = all(-_OVER <= v <= 1 + _OVER for row in values for v in row)
    are_corners = all(len(row) >= 6 and len(row) % 2 == 0 for row in values)
    return bool(lines) and are_shares and are_corners and all(w[0].isdigit() for w in lines)


def _read(folder: Path, images: Path, texts: Path, files: dict[str, Path]) -> Export | None:
    """Read the texts of images, by stem; None where there are none."""
    if not files:
        return None
    labels = Labels("YOLO", has_order=False)
    names = _yolo_names(folder, texts)
    labels.names = [names[number] for number in sorted(names)]
    for image in naming.list_images(images):
        file = files.pop(naming.stem_of(image), None)
        labelled = labels.image(image, file or texts)  # an image without a file shows nothing
        with Reading(file or texts, labels.tool):
            for line in file.read_text("utf-8-sig").splitlines() if file else ():
                if line.strip():
                    label, points = _yolo_shape(line.split(), names)
                    labelled.rectangles += is_rectangle(points)
                    labelled.add(label, partial(shapes.scaled_ring, points))
    if files:
        raise InputError(next(iter(files.values())), "no image has this name", "move it out")
    return labels.export()


def _yolo_shape(words: list[str], names: Mapping[int, str]) -> tuple[str, shapes.Points]:
    """Return the class of a line and its corners (x, y), which are shares of the image."""
    if len(words) == 5:
        raise NotReadError("boxes without outlines", "export YOLO segmentation")
    if not words[0].isdigit() or int(words[0]) not in names:
        named = few(list(map(str, sorted(names))))
        raise ValueError(f"class {show(words[0])} has no name, and names are given to {named}")
    points = corners_of(flat_points([float(w) for w in words[1:]]))
    if not all(-_OVER <= value <= 1 + _OVER for point in points for value in point):
        raise NotReadError("a corner that is no share of the image, 0 to 1", "export it again")
    return names[int(words[0])], points


def _yolo_names(folder: Path, texts: Path) -> dict[int, str]:
    """Return the name of each class by its number, from ``data.yaml`` or ``classes.txt``.

    The folders around count only where these two hold neither.

    Raises:
        InputError: There are no names, or two files give one number other names.
    """
    around = [[home] for home in list(folder.resolve().parents)[:2]]
    for homes in ([folder, texts], *around):
        names, source = dict[int, str](), dict[int, Path]()
        for file, found in (item for home in homes for item in _lists_of_names(home)):
            for number, name in found.items():
                if names.setdefault(number, name) != name:
                    text = f"calls the class {number} {show(name)!r}, and "
                    text += f"{show(source[number].name)} calls it {show(names[number])!r}"
                    raise InputError(file, text, "keep the right one of the two files")
                source.setdefault(number, file)
        if names:
            return names
    text = "YOLO labels without the names of their classes"
    raise InputError(folder, text, "put data.yaml or classes.txt beside images/ and labels/")


def _lists_of_names(home: Path) -> Iterator[tuple[Path, dict[int, str]]]:
    """Yield the files of a folder that name classes, with the names by their numbers."""
    for file in [*files_in(home, ".yaml"), *files_in(home, ".yml")]:
        yield file, _names_in_yaml(file)
    if (file := home / "classes.txt").is_file():
        lines = _lines(file)
        yield file, {number: line.strip() for number, line in enumerate(lines) if line.strip()}


def _lines(file: Path) -> list[str]:
    with Reading(file, "YOLO"):
        return file.read_text("utf-8-sig").splitlines()


def _names_in_yaml(file: Path) -> dict[int, str]:
    """Return the list or table under ``names:`` (no other key is read), by number; {} without one.

    Raises:
        InputError: It is written in a way that is not read.
    """
    lines = _lines(file)
    if any(line.startswith("kpt_shape:") for line in lines):
        text = "YOLO's key points, which have no outlines"
        raise InputError(file, text, "export YOLO segmentation")
    start = next((i for i, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return {}
    text = lines[start].removeprefix("names:").split(" #")[0].strip()
    rest = lines[start + 1 :]
    if text[:1] in ("[", "{"):
        while rest and text[-1] not in "]}":
            text += " " + rest.pop(0).split(" #")[0].strip()
        items = [item.strip() for item in text[1:-1].split(",") if item.strip()]
        is_table = text[0] == "{"
    else:
        block = []
        for line in rest:
            if line.strip() and not line.lstrip().startswith("#"):
                if not re.match(r"(\s+\S|- )", line):
                    break
                block.append(line.split(" #")[0].strip())
        is_table = not all(line.startswith("- ") for line in block)
        items = block if is_table else [line[2:].strip() for line in block]
    names: dict[int, str] = {}
    for place, item in enumerate(items):
        match = re.fullmatch(r"(\d+)\s*:\s*(.+)" if is_table else r"()(.+)", item)
        name = match[2].strip() if match else ""
        number = int(match[1]) if match and is_table else place
        if name[:1] in "'\"" and name[:1] == name[-1:]:
            name = name[1:-1]
        if not name or number in names or re.search(r"[\[\]{}&*!|>'\"]", name):
            remedy = "write names: [first, second]"
            raise InputError(file, f"a name that is not read: {show(item)!r}", remedy)
        names[number] = name
    return names
