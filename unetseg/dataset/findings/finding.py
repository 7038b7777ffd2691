"""A finding about a set, and the commands that a person may type next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unetseg.errors import Code, InputError, as_argument, as_option, worded
from unetseg.text import quote, show

Severity = Literal["error", "warning", "note"]
NUMBERED = (Code.OBJECT_NUMBERS, Code.OBJECTS_OR_CLASSES)
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
        code: The code that a program may ask for, as of an error.
    """

    severity: Severity
    files: tuple[str, ...]
    problem: str
    remedy: str = ""
    line: str = ""
    code: Code | None = None

    @classmethod
    def of(
        cls,
        severity: Severity,
        files: Sequence[object],
        problem: str,
        remedy: str = "",
        line: str = "",
        code: Code | None = None,
    ) -> "Finding":
        """Return a finding whose files are named as messages name them."""
        return cls(severity, tuple(map(show, files)), problem, remedy, line, code)

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
        masks: The options given to this inspection that say what masks hold, as the command line
            writes them.
        others: The other options.
    """

    root: Path
    masks: str
    others: str

    def check(self, option: str) -> str:
        """Return the line that inspects the folder with one option more."""
        return f"unetseg check {self._folder()}{self.masks}{self.others} {option}"

    def train(self, option: str) -> str:
        """Return the line that trains on the folder with one option more."""
        return f"unetseg train {self._folder()}{self.masks}{self.others} {option}"

    def convert(self, instances: bool = False) -> str:
        """Return the line that writes a repaired copy beside the folder."""
        line = f"unetseg convert {self._folder()} {self._folder('-converted')}{self.masks}"
        return line + (" --instances" if instances else "")

    def _folder(self, end: str = "") -> str:
        return quote(str(self.root).rstrip("/") + end)


def refusal_of(error: InputError, commands: Commands, files: Sequence[Path] = ()) -> Finding:
    """Return the finding of a reader's error, with the command that helps where there is one.

    Args:
        error: The error of the reader.
        commands: The command lines to suggest.
        files: The files at fault where the error names none.
    """
    line = ""
    if error.give:
        line = commands.check(as_option(*error.give))
    elif error.code in (*NUMBERED, *_REPAIRED):
        line = commands.convert(error.code in NUMBERED)
    return Finding.of("error", files or [error.what], error.problem, error.remedy, line, error.code)


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
