"""Lists ``train.txt``, ``val.txt`` and ``test.txt``, which divide a set into parts."""

import unicodedata
from pathlib import Path

from unetseg.dataset.conversion.annotations import Annotations
from unetseg.errors import InputError
from unetseg.text import show

LISTS = ("train", "val", "test")


def divide(root: Path, labelled: Annotations) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Return the names of each part ("" where there is none), and those in no list.

    Raises:
        InputError: A list names an image that is missing or in another list, or files belong to no
            image and there are no lists.
    """
    if labelled.parts and not labelled.problem:
        named = {part: [n for n, p in labelled.parts.items() if p == part] for part in LISTS}
        return {part: names for part, names in named.items() if names}, ()
    lists = {}
    for home in (root, root / "ImageSets" / "Segmentation"):
        lists = {n: home / f"{n}.txt" for n in LISTS if (home / f"{n}.txt").is_file()}
        if lists:
            break
    if len(lists) < 2:
        if labelled.problem:
            raise labelled.problem
        return {"": list(labelled.images)}, ()
    parts: dict[str, list[str]] = {}
    owner: dict[str, Path] = {}
    for part, path in lists.items():
        parts[part] = []
        for line in _read_composed(path).splitlines():
            if not line.strip():
                continue
            # A line holds a name, a path, or the paths of image and mask.
            words = (Path(line.strip()), Path(line.split()[0]))
            known = [n for w in words for n in (w.name, w.stem) if n in labelled.images]
            if not known:
                text = f"names {show(line.strip())}, which has no image or no mask"
                raise InputError(path, text, "mend the list")
            if known[0] in owner:
                text = f"names {show(known[0])}, which {owner[known[0]].name} names, too"
                raise InputError(path, text, "an image stands on one side only")
            owner[known[0]] = path
            parts[part].append(known[0])
    return parts, tuple(n for n in labelled.images if n not in owner)


def _read_composed(path: Path) -> str:
    """Return the text of a list with accents composed as in `naming.stem_of`."""
    return unicodedata.normalize("NFC", path.read_text("utf-8-sig", "replace"))
