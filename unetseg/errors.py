"""The ways a command can fail, each with its exit code, and how names are shown to a person."""

import os
import re
import shlex


def show(value: object) -> str:
    r"""Return ``value`` as text on one line that cannot steer a terminal.

    Control characters, line ends and bytes that are no UTF-8 appear as escapes (``\x1b``).
    """
    text = str(value)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def quote(value: object) -> str:
    """Return ``value`` as one word of a command line to paste, in the quotes of this system."""
    text = str(value)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:\\/~-]+", text) else f'"{text}"'


class UnetsegError(Exception):
    """An error that a person can act on: what, what is wrong with it, and what to do.

    Args:
        what: The file, folder or option at fault.
        problem: What is wrong, with the value found.
        remedy: What to do next; may be empty where the problem says it.
    """

    exit_code = 1

    def __init__(self, what: object, problem: str, remedy: str = "") -> None:
        self.what, self.problem, self.remedy = show(what), show(problem), show(remedy)
        super().__init__(f"{self.what}: {self.problem}" + (f"; {self.remedy}" if remedy else ""))


class InputError(UnetsegError):
    """Wrong usage, or a file that cannot be read as what it should be (exit code 2)."""

    exit_code = 2


class MachineError(UnetsegError):
    """The machine failed: disk, permission, memory, a lock, a lost worker (exit code 3)."""

    exit_code = 3


class DivergenceError(UnetsegError):
    """Training stopped on a loss that is not finite (exit code 4)."""

    exit_code = 4


class PartialFailure(UnetsegError):  # noqa: N818 - the word says it
    """Some inputs of several failed; the rest were done (exit code 5)."""

    exit_code = 5


class Interrupted(UnetsegError):  # noqa: N818 - likewise
    """Work stopped on a signal after saving what it had (exit code 128 + signal number)."""

    def __init__(self, signum: int, what: object, problem: str, remedy: str = "") -> None:
        super().__init__(what, problem, remedy)
        self.exit_code = 128 + signum


class Followed(UnetsegError):  # noqa: N818 - likewise
    """Another process of the run has failed and said why; this one ends with its exit code."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"rank {rank}", "has failed, and said why")
        self.exit_code = exit_code
