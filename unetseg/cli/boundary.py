"""The one error boundary: every error becomes one line on stderr and an exit code."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import typer

from unetseg import plugins
from unetseg.cli import config_file
from unetseg.errors import (
    Followed,
    InputError,
    MachineError,
    UnetsegError,
    as_option,
    is_out_of_memory,
    worded,
)
from unetseg.text import meaning, show

# Typer's own click is private. This is the base of all errors of usage that it raises.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]

# Whether this is a process of torchrun that leaves it to rank 0 to show results.
IS_SILENT = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Let stdout and stderr take any character, and make a closed stdout an error.

    The number of a closed stdout would go to the next file that is opened, such as a patch store.
    A program that prints would then write into that file.

    Raises:
        MachineError: stdout was closed; raised after the block has done its work.
    """
    closed = sys.stdout is None
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this descriptor
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if IS_SILENT:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    yield
    if closed:
        raise MachineError("standard output", "closed: results not shown", "send it to a file")


def end_with(error: BaseException, plugin: plugins.Plugin | None, *, debug: bool) -> int:
    """Print an error in one line on stderr, and return its exit code.

    Args:
        error: The exception that ended the command.
        plugin: The plug-in whose command it is; None for a built-in one.
        debug: Show the traceback first.
    """
    if debug and not isinstance(error, SystemExit):
        say("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return 141  # a shell shows this code for a program that SIGPIPE ended
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return error.code or 0
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        if not IS_SILENT:
            say("unetseg: error: interrupted by Ctrl-C")
        return 130
    if isinstance(error, Followed):
        return error.exit_code
    shown = _as_shown(error, plugin)
    if not IS_SILENT or getattr(error, "__notes__", None):  # without a note, rank 0 says it
        say(f"unetseg: error: {worded(shown.message, as_option)}")
    return shown.exit_code


def _as_shown(error: BaseException, plugin: plugins.Plugin | None) -> UnetsegError:
    """Return the `UnetsegError` that tells a person what ``error`` means."""
    if isinstance(error, UnetsegError):
        return error
    if isinstance(error, CLICK_ERROR):
        return _usage_error(error)
    if is_out_of_memory(error):
        remedy = "use smaller images, patches or batches, or close other programs"
        return MachineError("memory", "not enough for this", remedy)
    if isinstance(error, OSError):
        return MachineError(
            show(error.filename or "input or output"), error.strerror or str(error), ""
        )
    if plugin:
        return plugins.failure(plugin, "failed", error)
    if isinstance(error, ImportError) and not (error.name or "unetseg").startswith("unetseg"):
        return MachineError(
            error.name, f"cannot be imported ({error})", "install unetseg again with pip"
        )
    problem = f"{type(error).__name__}: {error}"
    return UnetsegError("internal error", problem, "please report it with the output of --debug")


def _usage_error(error: Any) -> InputError:
    """Return Typer's error of usage as one of ours, naming the option or argument at fault."""
    ctx, parameter = error.ctx, getattr(error, "param", None)
    path = ctx.command_path if ctx else "unetseg"
    remedy = f"see '{path} --help'" if ctx else "see --help"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _no_such_option(error, path, remedy)
    if kind == "MissingParameter" and parameter:
        return InputError(_typed_name(parameter), "missing", remedy)
    if kind == "BadOptionUsage":
        problem = error.message.removeprefix(f"Option {error.option_name!r} ").rstrip(".")
        return InputError(error.option_name, problem, remedy)
    if parameter is None:
        what = getattr(error, "param_hint", None) or path
        return InputError(what, error.format_message().rstrip("."), remedy)
    what = _typed_name(parameter)
    what = (ctx and config_file.place_of(ctx, what)) or what
    return InputError(what, _bad_value(error), remedy)


def _no_such_option(error: Any, path: str, remedy: str) -> InputError:
    name, parent = error.option_name, error.ctx.parent if error.ctx else None
    if parent and any(name in p.opts for p in parent.command.get_params(parent)):
        remedy = f"it stands before the command: 'unetseg {name} ...'"
    elif near := _meant(name, error.ctx) or "".join((error.possibilities or [])[:1]):
        remedy = f"did you mean {near!r}?"
    return InputError(name, f"no such option of '{path}'", remedy)


def _meant(name: str, ctx: Any) -> str:
    """Return the option of a command that other programs call by another name, else ""."""
    parameters = ctx.command.params if ctx else ()
    options: dict[str, str] = {p.name: max(p.opts, key=len) for p in parameters}
    return options.get(meaning(name.strip("-").replace("-", "_"), options), "")


def _bad_value(error: Any) -> str:
    """Return the problem of a value together with the value, which newer versions of Typer omit."""
    message = str(error.message).rstrip(".")
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return message
    value = details()[0]["input"]
    expected = message.removeprefix("Input should be ").partition(", unable")[0]
    return f"{value!r}, expected {expected}" if expected != message else f"{value!r}: {message}"


def _typed_name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(max(parameter.opts, key=len))


def settle_streams() -> None:
    """Drop output that stdout and stderr cannot write: Python would fail on it at exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(line: str) -> None:
    """Write a line to stderr, unless stderr is full or closed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # None has no `write`
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
