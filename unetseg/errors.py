"""The ways in which work can fail, each with its exit code, and how a message names arguments.

Every error says what is at fault, what is wrong with it, and what to do next:

    UnetsegError            1  a bug, or an error of a plug-in
    ├── InputError          2  wrong usage, or a file of the wrong kind or content
    ├── MachineError        3  disk, permission, memory, a lock, a lost worker
    ├── DivergenceError     4  training met a loss that is not finite
    ├── PartialFailure      5  some inputs failed, the rest is done
    ├── Interrupted  128 + n  a signal with the number n came
    └── Followed               another process of the same run failed first

The words of an error are for people alone. A program asks for its class or its `Code`.
"""

import json
import re
from collections.abc import Callable
from copy import copy
from enum import StrEnum, auto
from typing import Any, Self

from unetseg.text import MARKS, quote, show

Wording = Callable[[str, Any], str]
"""Takes the name and the value of an argument, or None for no value, and returns its words."""

_ARG = re.compile("{0}([a-z_]+)(?:=([^{1}]*))?{1}".format(*MARKS))
# Arguments of Python whose option has another name: `from` is a word of the language.
_OPTIONS = {"start_from": "from"}


class Code(StrEnum):
    """Kinds of problems that a program can tell apart, as `unetseg check` does."""

    OBJECT_NUMBERS = auto()  # a mask numbers objects instead of classes
    OBJECTS_OR_CLASSES = auto()  # masks may number objects, or hold classes
    NO_CLASSES = auto()  # a mask holds shares or levels of grey instead of classes
    BLENDED_MASK = auto()  # a mask was smoothed, resized or compressed
    THIN_BLEND = auto()  # a value is thin lines between two others: a class, or their blend
    LOSSY_MASK = auto()  # a mask is stored as JPEG or the like
    CLOSE_COLOURS = auto()  # two colours of masks are nearly equal
    CLOSE_VALUES = auto()  # a mask in such a format holds values that it cannot keep apart
    TURNED_IMAGE = auto()  # an image is turned by its EXIF orientation, its mask is not


def arg(name: str, value: object = None) -> str:
    """Return a mark that stands for an argument in a message.

    Python shows it as ``lr`` or ``scale=0.5``, the command line as ``--lr`` or ``--scale 0.5``.

    Args:
        name: The argument of the public function, or the field of the settings.
        value: A value to give; True stands for a switch. A whole number is shown without a point.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{MARKS[0]}{name}{'' if value is None else f'={json.dumps(value)}'}{MARKS[1]}"


def either(typed: str, called: str) -> str:
    """Return a mark for words that are ``typed`` on the command line and ``called`` in Python.

    Neither may hold a mark.
    """
    return arg("words", {"typed": typed, "called": called})


def as_argument(name: str, value: Any) -> str:
    """Say an argument as Python writes it: ``lr``, ``run='wide'``."""
    if isinstance(value, dict):
        return str(value["called"])
    return name if value is None else f"{name}={value!r}"


def as_option(name: str, value: Any) -> str:
    """Say an argument as the command line writes it: ``--lr``, ``--run wide``."""
    if isinstance(value, dict):
        return str(value["typed"])
    option = "--" + _OPTIONS.get(name, name).replace("_", "-")
    if value is None or value is True:
        return option
    if value is False:
        return f"--no-{option[2:]}"
    text = ",".join(map(str, value)) if isinstance(value, list) else value
    return f"{option} {quote(text)}"


def worded(text: str, wording: Wording) -> str:
    """Return a message in which each `arg` is said by ``wording``."""

    def said(match: re.Match[str]) -> str:
        return wording(match[1], json.loads(match[2]) if match[2] else None)

    return _ARG.sub(said, text)


def _made_anew(kind: type[Exception], args: tuple[object, ...]) -> Exception:
    return kind.__new__(kind, *args)


class UnetsegError(Exception):
    """An error with a file or an argument at fault, a problem, and a remedy.

    Args:
        what: The file or folder at fault, or the `arg`.
        problem: The fault, with the value found; may hold an `arg`.
        remedy: The next step; may hold an `arg`, and may be empty where the problem says it.
        code: The kind of problem, for a program.
        give: An argument and a value for it that would solve the problem.

    Attributes:
        what, problem, remedy: The arguments, on one line each; an `arg` is still a mark in them.
            Hand them to a new error that says the same of another file; never compare them.
        subject: The object at fault, as it was given: a path is still a path.
        argument: Name of the argument at fault; empty where a file is.
        code, give: The arguments of these names.
    """

    exit_code = 1

    def __init__(
        self,
        what: object,
        problem: str,
        remedy: str = "",
        *,
        code: Code | None = None,
        give: tuple[str, object] | None = None,
    ) -> None:
        self.subject = what
        self.what, self.problem, self.remedy = show(what), show(problem), show(remedy)
        match = _ARG.fullmatch(self.what)
        self.argument = match[1] if match else ""
        self.code, self.give = code, give
        super().__init__(worded(self.message, as_argument))

    def about(self, subject: object) -> Self:
        """Return this error, or an equal error that names ``subject``."""
        if self.subject == subject:
            return self
        other = copy(self)
        UnetsegError.__init__(other, subject, self.message, code=self.code, give=self.give)
        return other

    def __reduce__(self) -> tuple[object, ...]:
        """Let an error be copied, and reach another process whole."""
        return _made_anew, (type(self), self.args), self.__dict__

    @property
    def message(self) -> str:
        """The whole message on one line, in which an `arg` is still a mark."""
        return f"{self.what}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


class UnetsegWarning(UserWarning):
    """Something may be wrong, and the work goes on; filters of `warnings` can silence it."""


class InputError(UnetsegError):
    """Wrong usage, or a file of the wrong kind or content (exit code 2)."""

    exit_code = 2


class MachineError(UnetsegError):
    """The machine failed: disk, permission, memory, a lock, a lost worker (exit code 3)."""

    exit_code = 3


class DivergenceError(UnetsegError):
    """Training stopped on a loss that is not finite (exit code 4)."""

    exit_code = 4


class PartialFailure(UnetsegError):  # noqa: N818 - the word says that it is an error
    """Some inputs of several failed; the rest were done (exit code 5)."""

    exit_code = 5


class Interrupted(UnetsegError):  # noqa: N818 - the word says that it is an error
    """Work stopped on a signal after saving its results so far (exit code 128 + signal number).

    Attributes:
        signum: The number of the signal.
    """

    def __init__(self, signum: int, what: object, problem: str, remedy: str = "") -> None:
        super().__init__(what, problem, remedy)
        self.signum, self.exit_code = signum, 128 + signum


class Followed(UnetsegError):  # noqa: N818 - the word says that it is an error
    """Another process of the run has failed and said why; this one ends with its exit code."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"rank {rank}", "has failed, and said why")
        self.exit_code = exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory was lacking. On a CPU torch's error of that has no class of its own.

    Torch is not imported for this: a command that never used it must not wait for the import.
    """
    is_torchs = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return is_torchs or isinstance(error, MemoryError)
