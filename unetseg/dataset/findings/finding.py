"""A finding about a set, and the commands that a person may type next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from unetseg.errors import Code, InputError, as_argument, as_option, worded
from unetseg.text import quote, show

Severity = Literal["error", "warning", "note"]
_NUMBERED = (Code.OBJECT_NUMBERS, Code.OBJECTS_OR_CLASSES)
_REPAIRED = (Code.BLENDED_MASK, Code.LOSSY_MASK, Code.CLOSE_COLOURS, Code.THIN_BLEND)
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing about a folder.

    Attributes:
        severity: An "error" stops training, a "warning" may harm it, a "note" is for information.
        files: The files, the options or the folder at fault.
        problem: The problem, with the values found.
        remedy: The advice; may be empty.
        line: A command to type next; may be empty.
        call: The same in Python, where the line repairs the masks; else empty.
        code: The code that a program may ask for, as of an error.
    """

    severity: Severity
    files: tuple[str, ...]
    problem: str
    remedy: str = ""
    line: str = ""
    code: Code | None = None
    call: str = ""

    @classmethod
    def of(
        cls,
        severity: Severity,
        files: Sequence[object],
        problem: str,
        remedy: str = "",
        line: str = "",
        code: Code | None = None,
        call: str = "",
    ) -> "Finding":
        """Return a finding whose files are named as messages name them."""
        return cls(severity, tuple(map(show, files)), problem, remedy, line, code, call)

    def __str__(self) -> str:
        return worded(self.message, as_argument)

    @property
    def message(self) -> str:
        """The finding on one line, in which an `unetseg.errors.arg` is still a mark."""
        return InputError(self.subject, self.problem, self.remedy).message

    @property
    def subject(self) -> str:
        """The first of the files at fault, and the number of the others."""
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        return ", ".join(self.files[:3]) + more


@dataclass(frozen=True)
class Commands:
    """The command lines that a person may type next.

    Attributes:
        root: The folder.
        masks: The options given to this inspection that say what masks hold.
        others: The other options given.
    """

    root: Path
    masks: Mapping[str, object] = field(default_factory=dict)
    others: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def given(
        cls,
        root: Path,
        classes: Path | None,
        ignored: Sequence[int | str],
        others: Mapping[str, object] = MappingProxyType({}),
    ) -> "Commands":
        """Return the command lines for a folder with options; those that are None are left out."""
        masks = {"classes": classes and str(classes), "ignore": [*ignored] or None}
        return cls(root, _without_none(masks), _without_none(others))

    def check(self, option: str) -> str:
        """Return the line that inspects the folder with one option more."""
        return f"unetseg check {self._given()} {option}"

    def train(self, option: str) -> str:
        """Return the line that trains on the folder with one option more."""
        return f"unetseg train {self._given()} {option}"

    def convert(self, **options: object) -> tuple[str, str]:
        """Return the line that writes a repaired copy beside the folder, and the same in Python."""
        options = {**self.masks, **options}
        folders = [self._folder(), self._folder("-converted")]
        words = [*map(quote, folders), *(as_option(*one) for one in options.items())]
        given = [*map(repr, folders), *(as_argument(*one) for one in options.items())]
        return " ".join(["unetseg convert", *words]), f"unetseg.convert_folder({', '.join(given)})"

    def _folder(self, end: str = "") -> str:
        # An end cannot be added to "." and "..": "..-converted" would lie in the folder itself.
        root = self.root.resolve() if end and self.root.name in ("", "..") else self.root
        return str(root).rstrip("/") + end

    def _given(self) -> str:
        options = {**self.masks, **self.others}
        return " ".join([quote(self._folder()), *(as_option(*one) for one in options.items())])


def _without_none(options: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def refusal_of(error: InputError, commands: Commands, files: Sequence[Path] = ()) -> Finding:
    """Return the finding of a reader's error, with the command that helps where there is one.

    Args:
        error: The error of the reader.
        commands: The command lines to suggest.
        files: The files at fault where the error names none.
    """
    line = call = ""
    if error.give:
        line = commands.check(as_option(*error.give))
    elif error.code in _NUMBERED:
        line, call = commands.convert(instances=True)
    elif error.code in _REPAIRED:
        line, call = commands.convert()
    at_fault: Sequence[object] = files or [error.what]
    return Finding.of("error", at_fault, error.problem, error.remedy, line, error.code, call)


def sort_findings(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the worst first; files that share a problem stand together.

    The values that a mask should not hold differ from file to file, but the problem is the same.
    """
    merged: dict[tuple[Any, ...], list[Finding]] = {}
    for f in sorted(found, key=lambda f: SEVERITIES.index(f.severity)):
        problem = "" if f.code in (Code.BLENDED_MASK, Code.NO_CLASSES) else f.problem
        merged.setdefault((f.severity, problem, f.remedy, f.line, f.code), []).append(f)
    return tuple(
        replace(same[0], files=tuple(name for f in same for name in f.files))
        for same in merged.values()
    )
