"""Commands from other distributions: entry points in the group ``unetseg.commands``.

An entry point's value is a function with Typer annotations, exactly what a built-in command is.
They are listed from metadata without being imported; whatever is wrong with one stays with it.
"""

import contextlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

from unetseg.errors import MachineError, show

GROUP = "unetseg.commands"


@dataclass(frozen=True)
class Plugin:
    """A command that some distribution offers; not imported yet.

    Attributes:
        name: What is typed.
        distribution: The name of the distribution that it comes from.
        summary: The distribution's own one-line summary; may be empty.
        entry_point: Where the function is.
    """

    name: str
    distribution: str
    summary: str
    entry_point: EntryPoint


def find(built_ins: set[str]) -> tuple[dict[str, Plugin], list[str]]:
    """Return the plug-ins by name, and one warning for each entry that is left out.

    A built-in command wins over a plug-in of its name; of two plug-ins the one whose
    distribution's name comes first. ``UNETSEG_NO_PLUGINS=1`` leaves all out.
    """
    plugins: dict[str, Plugin] = {}
    warnings: list[str] = []
    if os.environ.get("UNETSEG_NO_PLUGINS", "0") not in ("", "0"):
        return plugins, warnings
    for distribution, entries in _offers(warnings):
        for name, value in entries:
            where = f"plug-in {show(distribution.name)}"
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,29}", name):
                warnings.append(f"{where}: {name!r} cannot be a command's name; left out")
            elif name in built_ins:
                warnings.append(f"{where}: {name!r} is a built-in command; left out")
            elif name in plugins:
                first = plugins[name].distribution
                warnings.append(f"{where}: {name!r} is already offered by {first}; left out")
            else:
                summary = show(distribution.metadata.json.get("summary", "")).strip()[:200]
                entry = EntryPoint(name, value, GROUP)
                plugins[name] = Plugin(name, show(distribution.name), summary, entry)
    return plugins, warnings


def load(plugin: Plugin) -> Callable[..., Any]:
    """Import a plug-in and return its function.

    What it prints on being imported goes to stderr, so that results stay alone on stdout.

    Raises:
        MachineError: It cannot be imported, ends the program, or is no function.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            function = plugin.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: no plug-in decides for the program
        raise failure(plugin, "not loaded", error) from error
    if not inspect.isfunction(function):
        problem = f"{plugin.entry_point.value} is of type {type(function).__name__}, no function"
        raise MachineError(f"plug-in {plugin.distribution}", problem, _REMEDY)
    return function


def failure(plugin: Plugin, problem: str, error: BaseException) -> MachineError:
    """Return the error that names the distribution at fault and the reason."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return MachineError(f"plug-in {plugin.distribution}", f"{problem} ({reason})", _REMEDY)


_REMEDY = "update or remove it, and tell its authors"


def _offers(warnings: list[str]) -> list[tuple[Distribution, list[tuple[str, str]]]]:
    """Return name and value of each entry of ours, by distribution in the order of their names."""
    found: dict[str, tuple[Distribution, list[tuple[str, str]]]] = {}
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
            if GROUP not in text:
                continue
            key = re.sub(r"[-_.]+", "-", distribution.name).lower()
            entries = [(e.name, e.value) for e in distribution.entry_points if e.group == GROUP]
            found.setdefault(key, (distribution, entries))  # the first on sys.path is imported
        except Exception as error:  # broken metadata of one must not cost the others
            where = show(getattr(distribution, "_path", "unknown"))
            warnings.append(f"plug-in at {where}: not readable ({type(error).__name__}); left out")
    return [found[key] for key in sorted(found)]
