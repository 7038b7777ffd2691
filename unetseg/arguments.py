"""How public functions take their arguments: their names and types, one or several, and reports."""

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from unetseg.errors import InputError, arg
from unetseg.progress import OnProgress, Progress, silent, warn
from unetseg.text import cut, meaning, nearest

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

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
    if isinstance(on_progress, str) and on_progress == "bar":
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
            f"{_said(on_progress)} is no way to report",
            "give 'bar', print, another function, or None for silence",
        )


def public(settings: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function of the public interface be called as people call it in a notebook.

    Its arguments become the types of their hints, as `as_declared` makes them. Its ``on_progress``
    may be all that `reporting` takes. A keyword that it does not know is an `InputError` that names
    the nearest one.

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
        hints = functools.cache(lambda: get_type_hints(function))  # names may not exist yet

        def taken(name: str, value: Any) -> Any:
            return as_declared(name, value, hints()[name]) if name in hints() else value

        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            owner = args[0] if known[:1] == ["self"] else None
            _check_names(function, known, given, owner)
            values: Any = [taken(*pair) for pair in zip(known, args, strict=False)]
            values += args[len(values) :]  # Python says that they are too many
            if "on_progress" not in known:
                return function(*values, **{n: taken(n, v) for n, v in given.items()})
            with reporting(given.pop("on_progress", warn)) as report:
                keywords: Any = {n: taken(n, v) for n, v in given.items()} | {"on_progress": report}
                return function(*values, **keywords)

        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate


_SETTINGS: set[type] = set()


def settings_class(kind: type[T]) -> type[T]:
    """Let a dataclass of settings refuse an unknown name, and be given as a dictionary."""
    make = kind.__init__
    known = list(inspect.signature(kind).parameters)

    @functools.wraps(make)
    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        _check_names(kind, known, given)
        make(self, *args, **given)

    kind.__init__ = __init__  # type: ignore[method-assign]
    _SETTINGS.add(kind)
    return kind


def _check_names(
    function: Callable[..., Any],
    known: Sequence[str],
    given: Mapping[str, object],
    owner: object = None,
) -> None:
    """Refuse keywords that a function does not know; ``owner`` is the object of a method."""
    shown = [name for name in known if name != "self"]
    for name in given:
        if name not in known:
            home = ""
            if not meaning(name, shown):
                home = _holder(function, name) or _maker(owner, name) or _neighbour(name)
            remedy = home or nearest(name, shown) or f"known are {', '.join(shown)}"
            title = function.__qualname__.removesuffix(".__init__")
            raise InputError(name, f"is no argument of {title}", remedy.strip())


def _holder(function: Callable[..., Any], name: str) -> str:
    """Return the argument of a function that takes a setting as part of a whole, else ""."""
    for argument, hint in get_type_hints(function).items():
        for kind in get_args(hint) or (hint,):
            if isinstance(kind, type) and kind in _SETTINGS:
                own = [field.name for field in fields(kind)]
                if setting := name if name in own else meaning(name, own):
                    return f"pass {argument}=unetseg.{kind.__name__}({setting}=...)"
    return ""


def _maker(owner: object, name: str) -> str:
    """Return the argument with which the object of a method is made, else ""."""
    holder = _holder(type(owner).__init__, name) if owner is not None else ""
    return f"{holder} to {type(owner).__name__}" if holder else ""


def _neighbour(name: str) -> str:
    """Return the public function that takes an argument, if only one does, else ""."""
    import unetseg

    public_ones = {one: getattr(unetseg, one) for one in unetseg.__all__}
    functions = {one: f for one, f in public_ones.items() if inspect.isfunction(f)}
    takers = [one for one, f in functions.items() if name in inspect.signature(f).parameters]
    return f"unetseg.{takers[0]} takes it" if len(takers) == 1 else ""


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


# --- types ---------------------------------------------------------------------------------------

_KINDS: dict[type, tuple[type, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a text"),
}
# Remedies for an array in the place of a path, and arguments in whose place functions are given.
_ARRAYS = {"inputs": "give paths; for an array there is unetseg.Model(...).labels(array)"}
_PLUGGED = ("network", "loss", "augment")


def as_declared(name: str, value: Any, hint: Any) -> Any:
    """Return the value of an argument in the type that a hint declares, as far as that is safe.

    Numbers of other libraries become Python's own. A text may be given as a number, as a path, or
    as a list, whose items are joined by commas. Where several values may be given, one will do, and
    so will anything that can be iterated over. Settings may be given as a dictionary.

    Raises:
        InputError: The value is of another type; the message names the argument.
    """
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    kinds = [get_origin(one) or one for one in hints]
    if Any in kinds or (value is None and NoneType in kinds):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if os.PathLike in kinds and isinstance(value, str) and (not value or "\0" in value):
        raise InputError(arg(name), f"{value!r} is no path", "give '.' for the current folder")
    for kind in kinds:
        if type(value) is kind:
            return value
        if kind in _KINDS and isinstance(value, _KINDS[kind][0]) and not isinstance(value, bool):
            return kind(value)
        if isinstance(value, Mapping) and kind in _SETTINGS:
            return kind(**value)
    inner = next((get_args(one)[0] for one in hints if _is_several(one)), None)
    if inner is not None and _yields(value):
        items = (as_declared(name, item, inner) for item in value)
        return items if Iterable in kinds else tuple(items)
    if str in kinds and os.PathLike not in kinds and not isinstance(value, bool):
        if isinstance(value, int | os.PathLike):
            return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        if inner is None and _yields(value):
            return ",".join(as_declared(name, item, str) for item in value)
    if inner is not None and len(set(kinds) - {NoneType}) == 1:
        return (as_declared(name, value, inner),)
    others = [k for k, one in zip(kinds, hints, strict=True) if k in _KINDS or not _is_several(one)]
    if isinstance(value, tuple(others)) and not isinstance(value, bool):
        return value
    raise _mistyped(name, value, hints)


def _is_several(hint: Any) -> bool:
    """Return whether a hint declares several values, such as a sequence of texts."""
    return get_origin(hint) is not None and issubclass(get_origin(hint), Iterable)


def _yields(value: Any) -> bool:
    """Return whether a value holds values one after the other: a list, a generator, a column."""
    is_one = isinstance(value, str | bytes | Mapping | type) or not isinstance(value, Iterable)
    return not is_one and len(getattr(value, "shape", (1,))) == 1


def _mistyped(name: str, value: Any, hints: Sequence[Any]) -> InputError:
    """Return the error of an argument of another type than its hints declare."""
    if name in _PLUGGED and callable(value):
        text = "is a function, which a later program could not find again"
        return InputError(arg(name), text, "give it a name as a plug-in: see the README")
    words, others = [], []
    for hint in hints:
        kind = get_origin(hint) or hint
        if kind in _KINDS:
            words.append(_KINDS[kind][1])
        elif kind is os.PathLike:
            words = [*(word for word in words if word != "a text"), "a path"]
        elif _is_several(hint):
            words.append("a list of them")
        elif kind in _SETTINGS:
            words.append(f"unetseg.{kind.__name__}(...), a dictionary of its arguments")
        elif kind is NoneType:
            words.append("None")
        else:
            others.append(kind.__name__)
    words += [f"of type {others[0]}", *others[1:]] if others else []
    remedy = _ARRAYS.get(name, "") if hasattr(value, "shape") else ""
    return InputError(arg(name), f"{_said(value)} is not {' or '.join(words)}", remedy)


def _said(value: Any) -> str:
    """Return a wrong value in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape"):
        return f"an array of the shape {tuple(value.shape)}"
    return cut(repr(value), 60)
