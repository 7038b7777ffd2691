"""How public functions take their arguments: one or several, settings as keywords, and reports."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

from unetseg.errors import InputError, arg
from unetseg.progress import OnProgress, Progress, silent, warn
from unetseg.text import nearest

P = ParamSpec("P")
R = TypeVar("R")

Names = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""The name of a run or the path of a file or folder, or several of them."""

Reports = Any
"""A function that receives reports, or None, or "bar"; see `reporting`.

It is ``Any`` because `public` hands a function in the place of None or "bar".
"""


def several(given: Any) -> tuple[Any, ...]:
    """Return a tuple of several values, or of a single text, path or number."""
    return (given,) if isinstance(given, str | os.PathLike | int) else tuple(given)


@contextmanager
def reporting(on_progress: Reports) -> Iterator[OnProgress]:
    """Yield the function that receives the reports of one call.

    Args:
        on_progress: A function is taken as it is, but ``print`` gets no `Progress`: it prints a
            line an epoch. None drops all reports. "bar" shows a bar, in a notebook or a terminal.

    Raises:
        InputError: It is something else.
    """
    if on_progress == "bar":
        from unetseg.display import ProgressDisplay

        with ProgressDisplay() as display:
            yield display
    elif on_progress is print:
        yield lambda record: None if isinstance(record, Progress) else on_progress(record)
    elif on_progress is None or callable(on_progress):
        yield on_progress or silent
    else:
        raise InputError(
            arg("on_progress"),
            f"{on_progress!r} is no way to report",
            "give 'bar', print, another function, or None for silence",
        )


def public(settings: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function of the public interface be called as people call it in a notebook.

    Its ``on_progress`` may be all that `reporting` takes. A keyword that it does not know is an
    `InputError` that names the nearest one.

    Args:
        settings: A dataclass whose fields the function takes as ``**settings``. They stand in its
            signature, where ``help`` and the Tab key find them.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = [
            one
            for parameter in inspect.signature(function).parameters.values()
            for one in _spread(parameter, settings)
        ]
        known = [parameter.name for parameter in parameters]

        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            for name in given:
                if name not in known:
                    home = _holder(function, name) or nearest(name, known).strip()
                    remedy = home or f"known are {', '.join(known)}"
                    raise InputError(name, f"is no argument of {function.__name__}", remedy)
            with reporting(given.get("on_progress", warn)) as report:
                given["on_progress"] = report
                return function(*args, **given)

        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate


def _holder(function: Callable[..., Any], name: str) -> str:
    """Return the argument of a function that takes a setting as part of a whole, else ""."""
    for argument, hint in get_type_hints(function).items():
        for kind in get_args(hint) or (hint,):
            if (
                isinstance(kind, type)
                and is_dataclass(kind)
                and name in {field.name for field in fields(kind)}
            ):
                return f"pass {argument}=unetseg.{kind.__name__}({name}=...)"
    return ""


def _spread(parameter: inspect.Parameter, settings: type | None) -> Iterable[inspect.Parameter]:
    """Yield a parameter; in place of ``**settings``, yield a parameter for each setting."""
    if settings is None or parameter.kind is not inspect.Parameter.VAR_KEYWORD:
        yield parameter
        return
    for field in fields(settings):
        assert field.default is not MISSING
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
