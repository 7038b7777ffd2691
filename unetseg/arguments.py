"""How public functions take their arguments: their names and types, one or several, and reports."""

import functools
import inspect
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
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
        call.__doc__ = _explained(function, settings) or None
        return call

    return decorate


def _explained(function: Callable[..., Any], settings: type | None) -> str:
    """Return the docstring of a function with a sentence on each setting below its argument.

    Args:
        function: The function.
        settings: The class of its ``**settings``, if it has some.
    """
    text = inspect.getdoc(function) or ""
    for parameter in inspect.signature(function).parameters.values():
        hint = settings if parameter.kind is parameter.VAR_KEYWORD else parameter.annotation
        for kind in _settings_in(hint):
            entry = re.search(rf"^    {parameter.name}: .*(\n {{8}}.*)*", text, re.M)
            if entry:
                text = text[: entry.end()] + _listing(kind) + text[entry.end() :]
    return text


def _listing(kind: type) -> str:
    """Return a line for each setting of a class: the first sentence of its description."""
    told = re.findall(r"^    ([a-z_]+): (.*(?:\n {8}.*)*)", inspect.getdoc(kind) or "", re.M)
    firsts = (re.split(r"(?<=\.)\s", text, maxsplit=1)[0].split() for _, text in told)
    lines = (f"{name}: {' '.join(words)}" for (name, _), words in zip(told, firsts, strict=True))
    return "".join(
        "\n" + textwrap.indent(textwrap.fill(x, 88, subsequent_indent="    "), " " * 8)
        for x in lines
    )


def _settings_in(hint: Any) -> list[type]:
    """Return the classes of settings among the types that a hint declares."""
    kinds = get_args(hint) or (hint,)
    return [kind for kind in kinds if isinstance(kind, type) and kind in _SETTINGS]


_SETTINGS: set[type] = set()


def settings_class(kind: type[T]) -> type[T]:
    """Let a dataclass of settings refuse an unknown name, and be given as a dictionary.

    Where its docstring refers to choices, such as `LOSSES`, the choices are put in their place.
    """
    choices = vars(sys.modules[kind.__module__])
    kind.__doc__ = re.sub(
        "`([A-Z]+)`", lambda name: ", ".join(map(json.dumps, choices[name[1]])), kind.__doc__ or ""
    )
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
        for kind in _settings_in(hint):
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
_PATH = "a path"
# Remedies for an array in the place of a path, and arguments in whose place functions are given.
_ARRAYS = {"inputs": "give paths; for an array there is unetseg.Model(...).labels(array)"}
_PLUGGED = ("network", "loss", "augment")


@dataclass(frozen=True)
class _Declared:
    """The types that a hint declares.

    Attributes:
        hints: The alternatives.
        kinds: Their classes: that of ``Sequence[str]`` is Sequence.
        inner: The hint of each item where several values may be given; None where not.
    """

    hints: tuple[Any, ...]
    kinds: tuple[Any, ...]
    inner: Any


@functools.cache
def _declared_by(hint: Any) -> _Declared:
    hints = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    inner = next((get_args(one)[0] for one in hints if _is_several(one)), None)
    return _Declared(hints, tuple(get_origin(one) or one for one in hints), inner)


def as_declared(name: str, value: Any, hint: Any) -> Any:
    """Return the value of an argument in the type that a hint declares, as far as that is safe.

    Numbers of other libraries become Python's own. A text may be given as a number, as a path, or
    as a list, whose items are joined by commas. Where several values may be given, one will do, and
    so will anything that can be iterated over. Settings may be given as a dictionary.

    Raises:
        InputError: The value is of another type; the message names the argument.
    """
    declared = _declared_by(hint)
    if Any in declared.kinds or (value is None and NoneType in declared.kinds):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if os.PathLike in declared.kinds and isinstance(value, str) and (not value or "\0" in value):
        raise InputError(arg(name), f"{value!r} is no path", "give '.' for the current folder")
    for convert in (_as_one, _as_several, _as_text, _as_the_only_one, _as_instance):
        if (found := convert(name, value, declared)) is not None:
            return found
    raise _mistyped(name, value, declared.hints)


# Each of these functions returns None where its way of conversion does not apply.


def _as_one(_: str, value: Any, declared: _Declared) -> Any:
    """Return a value of a declared class, a number, or settings that a dictionary gives."""
    for kind in declared.kinds:
        if type(value) is kind:
            return value
        if kind in _KINDS and isinstance(value, _KINDS[kind][0]) and not isinstance(value, bool):
            return kind(value)
        if isinstance(value, Mapping) and kind in _SETTINGS:
            return kind(**value)
    return None


def _as_several(name: str, value: Any, declared: _Declared) -> Any:
    """Return the items of a value where several are declared."""
    if declared.inner is None or not _yields(value):
        return None
    items = (as_declared(name, item, declared.inner) for item in value)
    return items if Iterable in declared.kinds else tuple(items)


def _as_text(name: str, value: Any, declared: _Declared) -> str | None:
    """Return a number or a path as a text, or items joined by commas."""
    if str not in declared.kinds or os.PathLike in declared.kinds or isinstance(value, bool):
        return None
    if isinstance(value, int | os.PathLike):
        return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if declared.inner is None and _yields(value):
        return ",".join(as_declared(name, item, str) for item in value)
    return None


def _as_the_only_one(name: str, value: Any, declared: _Declared) -> tuple[Any] | None:
    """Return a single value where only several are declared."""
    if declared.inner is None or len(set(declared.kinds) - {NoneType}) > 1:
        return None
    return (as_declared(name, value, declared.inner),)


def _as_instance(_: str, value: Any, declared: _Declared) -> Any:
    """Return a value whose class is derived from a declared one, such as a path."""
    pairs = zip(declared.kinds, declared.hints, strict=True)
    others = [kind for kind, hint in pairs if kind in _KINDS or not _is_several(hint)]
    return value if isinstance(value, tuple(others)) and not isinstance(value, bool) else None


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
    words = [word for hint in hints if (word := _worded(hint))]
    if _PATH in words:
        words = [word for word in words if word != _KINDS[str][1]]
    others = [(get_origin(hint) or hint).__name__ for hint in hints if not _worded(hint)]
    words += [f"of type {others[0]}", *others[1:]] if others else []
    remedy = _ARRAYS.get(name, "") if hasattr(value, "shape") else ""
    return InputError(arg(name), f"{_said(value)} is not {' or '.join(words)}", remedy)


def _worded(hint: Any) -> str:
    """Return the words for a declared type; "" for a class that has none but its name."""
    kind = get_origin(hint) or hint
    if kind in _KINDS:
        return _KINDS[kind][1]
    if kind is os.PathLike:
        return _PATH
    if _is_several(hint):
        return "a list of them"
    if kind in _SETTINGS:
        return f"unetseg.{kind.__name__}(...), a dictionary of its arguments"
    return "None" if kind is NoneType else ""


def _said(value: Any) -> str:
    """Return a wrong value in a few words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if hasattr(value, "shape"):
        return f"an array of the shape {tuple(value.shape)}"
    return cut(repr(value), 60)
