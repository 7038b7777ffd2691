"""Sets that are divided into folders already, such as ``train/``, ``valid/`` and ``test/``."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unetseg.dataset.naming import IMAGE_FOLDERS, MASK_FOLDERS, Pair, list_folder

# The folders of a set that is divided already, and the part that each holds.
PARTS = {
    **{"train": "train", "training": "train", "valid": "val", "val": "val", "validation": "val"},
    "test": "test",
}


def find_parts(folder: Path) -> list[Path]:
    """Return the folders of a set that is divided into `PARTS`; empty for any other folder.

    Raises:
        InputError: The folder is not found.
    """
    files, folders = list_folder(folder)
    parts = [f for f in folders if f.name.lower() in PARTS]
    usual = any(f.name.lower() in IMAGE_FOLDERS + MASK_FOLDERS for f in folders)
    is_divided = len(parts) > 1 or any(PARTS[f.name.lower()] == "train" for f in parts)
    return parts if is_divided and not files and not usual else []


def join_parts(pairs: Mapping[str, Sequence[Pair]]) -> tuple[Pair, ...]:
    """Return the pairs of all parts of a set.

    Args:
        pairs: The pairs of each part, by the name of its folder. Images of the same name in several
            parts are told apart by these names.
    """
    counts = Counter(pair.name for found in pairs.values() for pair in found)
    return tuple(
        replace(
            pair,
            name=pair.name if counts[pair.name] == 1 else f"{part}-{pair.name}",
            part=PARTS[part.lower()],
        )
        for part, found in pairs.items()
        for pair in found
    )


def name_one(parts: Iterable[Path]) -> str:
    """Return the remedy where several sets in a folder cannot be read as one."""
    return "name one of them: " + " or ".join(map(str, parts))
