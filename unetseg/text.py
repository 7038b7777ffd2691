"""Text for people and for files: names on one line, words to paste, durations, sizes, TOML."""

import difflib
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

# These marks surround the name of an argument in a message; see `unetseg.errors.arg`. They are
# noncharacters of Unicode, which no text contains.
MARKS = "\ufdd0\ufdd1"

# The names that other programs of the field give to an argument of ours.
_SYNONYMS = {
    "lr": ("learning_rate", "learningrate", "lr0"),
    "batch_size": ("batch", "batchsize", "bs"),
    "epochs": ("n_epochs", "num_epochs", "max_epochs", "nb_epoch"),
    "size": ("imgsz", "img_size", "image_size", "patch_size", "tile_size", "crop_size"),
    "device": ("gpu", "gpus", "cuda", "accelerator"),
    "folds": ("n_folds", "num_folds", "n_splits", "kfold"),
    "val": ("val_split", "validation_split", "val_size", "test_size"),
    "network": ("arch", "architecture", "backbone", "encoder"),
    "optimizer": ("optim",),
    "weight_decay": ("wd",),
    "seed": ("random_state", "random_seed"),
    "ignore": ("ignore_index",),
    "out": ("output", "output_dir", "outdir", "save_dir"),
}


def show(value: object) -> str:
    r"""Return ``value`` as text on one line that cannot steer a terminal.

    Control characters, line ends and bytes that are no UTF-8 appear as escapes (``\x1b``).
    """
    text = str(value)
    return "".join(
        c
        if c.isprintable() or c in MARKS
        else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def quote(value: object) -> str:
    """Return ``value`` as one word of a command line to paste, in the quotes of this system."""
    text = str(value)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:\\/~-]+", text) else f'"{text}"'


def cut(name: str, length: int = 24) -> str:
    """Return a name, without its end where it is longer than ``length``."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def few(names: Iterable[str], most: int = 4) -> str:
    """Return the first names, and dots where there are more."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def plural(count: int, noun: str, several: str = "") -> str:
    """Return ``"1 image"`` or ``"20 images"``; ``several`` is the plural where "s" is wrong."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'lr'? "`` where a known word is close to ``word``, else ""."""
    known = list(known)
    close = meaning(word, known) or "".join(difflib.get_close_matches(word, known, 1))
    return f"did you mean '{close}'? " if close else ""


def meaning(word: str, known: Iterable[str]) -> str:
    """Return the known name of an argument that other programs call ``word``, else ""."""
    return next((name for name in known if word.lower() in _SYNONYMS.get(name, ())), "")


def format_duration(seconds: float) -> str:
    """Return a time for a person: "8 s", "3 min 20 s", "1 h 5 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 >= 60 else "")


def format_budget(seconds: float) -> str:
    """Return a time as ``--budget`` takes it, rounded up: "45s", "6m", "1h30m"."""
    if seconds <= 90:
        return f"{max(1, math.ceil(seconds / 5) * 5)}s"
    hours, minutes = divmod(math.ceil(seconds / 60), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or not hours else "")


def format_rate(number: float) -> str:
    """Return a number a second as a person reads it: "0.42", "35", "1,234"."""
    return f"{number:,.0f}" if number >= 9.5 else f"{number:.2g}"


def human_bytes(count: float) -> str:
    """Return a size in bytes as a person reads it: ``human_bytes(3_400_000) == "3.4 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def to_toml(table: str, settings: Mapping[str, Any]) -> str:
    """Return one TOML table. Values that are None are left out, because TOML has no null."""
    lines = [f"[{table}]"]
    for key, value in settings.items():
        if value is not None:
            lines.append(f"{key.replace('_', '-')} = {json.dumps(value, ensure_ascii=True)}")
    return "\n".join(lines) + "\n"
