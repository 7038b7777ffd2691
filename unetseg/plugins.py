"""Commands, networks, losses and augmentations that other distributions offer by entry points.

Plug-ins are found in metadata, without importing anything. A broken plug-in fails alone.
``UNETSEG_NO_PLUGINS=1`` leaves all plug-ins out.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any

from unetseg import settings
from unetseg.errors import MachineError, UnetsegError
from unetseg.settings import TrainSettings, check_choice, split_augment
from unetseg.text import show

# Groups of entry points.
COMMANDS = "unetseg.commands"
NETWORKS = "unetseg.networks"
LOSSES = "unetseg.losses"
AUGMENTATIONS = "unetseg.augmentations"
# Group -> the option that takes its names, and the built-in ones, which win.
OPTIONS = {
    NETWORKS: ("network", settings.NETWORKS),
    LOSSES: ("loss", settings.LOSSES),
    AUGMENTATIONS: ("augment", settings.AUGMENTS),
}
_REMEDY = "update or remove it, and tell its authors"


@dataclass(frozen=True)
class Plugin:
    """A function that a distribution offers under a name. It is not imported yet.

    Attributes:
        name: The name that a person types.
        distribution: The name of the distribution that it comes from.
        summary: The distribution's own one-line summary; may be empty.
        entry_point: The place of the function.
    """

    name: str
    distribution: str
    summary: str
    entry_point: EntryPoint


def find(group: str, built_ins: Collection[str]) -> tuple[dict[str, Plugin], list[str]]:
    """Return the plug-ins of a group by name, and one warning for each entry that is left out.

    A built-in name wins over the same name of a plug-in. Of two plug-ins with one name, the first
    on ``sys.path`` wins. In one folder, the distribution whose name sorts first wins.
    """
    plugins: dict[str, Plugin] = {}
    warnings: list[str] = []
    if os.environ.get("UNETSEG_NO_PLUGINS", "0") not in ("", "0"):
        return plugins, warnings
    for distribution, entries in _offers(group, warnings):
        for entry in entries:
            where, name = f"plug-in {show(distribution.name)}", entry.name
            if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,29}", name):
                warnings.append(f"{where}: {name!r} cannot be a plug-in's name; left out")
            elif name in built_ins:
                warnings.append(f"{where}: {name!r} is built in; left out")
            elif name in plugins:
                first = plugins[name].distribution
                warnings.append(f"{where}: {name!r} is already offered by {first}; left out")
            else:
                summary = show(distribution.metadata.json.get("summary", "")).strip()[:200]
                plugins[name] = Plugin(name, show(distribution.name), summary, entry)
    return plugins, warnings


def names(group: str) -> tuple[str, ...]:
    """Return the names, built-in ones first, that the option of a group of `OPTIONS` takes."""
    _, built_ins = OPTIONS[group]
    return (*built_ins, *sorted(find(group, built_ins)[0]))


def choose(group: str, name: str) -> Plugin | None:
    """Return the plug-in of that name in a group of `OPTIONS`; None for a built-in part.

    Raises:
        InputError: No distribution offers it; the message names the nearest name that is offered.
    """
    return None if name in OPTIONS[group][1] else offered(group, name)


def offered(group: str, name: str) -> Plugin:
    """Return the plug-in of that name, which is not built in; see `choose` for the errors."""
    option, built_ins = OPTIONS[group]
    found, _ = find(group, built_ins)
    check_choice(option, name, (*built_ins, *sorted(found)))
    return found[name]


def check_names(asked: TrainSettings) -> None:
    """Raise `InputError` for a loss, augmentation or network that nobody offers."""
    choose(LOSSES, asked.loss)
    choose(AUGMENTATIONS, split_augment(asked.augment)[1] or "auto")
    choose(NETWORKS, asked.network)


def load(plugin: Plugin) -> Callable[..., Any]:
    """Import a plug-in and return its function.

    All that it prints on being imported goes to stderr, so that results stay alone on stdout.

    Raises:
        MachineError: It cannot be imported, ends the program, or cannot be called.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            function = plugin.entry_point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: no plug-in decides for the program
        raise failure(plugin, "not loaded", error) from error
    if not callable(function):
        raise no_function(plugin, function)
    return function  # type: ignore[no-any-return]


def failure(plugin: Plugin, problem: str, error: BaseException) -> MachineError:
    """Return the error that names the distribution at fault and the reason."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return MachineError(f"plug-in {plugin.distribution}", f"{problem} ({reason})", _REMEDY)


def no_function(plugin: Plugin, value: object) -> MachineError:
    """Return the error for an entry point whose value is no function."""
    problem = f"{plugin.entry_point.value} is of type {type(value).__name__}, no function"
    return MachineError(f"plug-in {plugin.distribution}", problem, _REMEDY)


@contextlib.contextmanager
def plugin_errors(plugin: Plugin | None) -> Iterator[None]:
    """Turn an exception of a plug-in into an error that names it; None stands for our own code."""
    try:
        yield
    except (UnetsegError, MemoryError):
        raise
    except Exception as error:
        if plugin is None:
            raise
        raise failure(plugin, "failed", error) from error


def _offers(group: str, warnings: list[str]) -> list[tuple[Distribution, list[EntryPoint]]]:
    """Return the entries of a group by distribution, folder by folder of ``sys.path``."""
    found: dict[str, tuple[Distribution, list[EntryPoint]]] = {}
    for folder in dict.fromkeys(sys.path):
        here: dict[str, tuple[Distribution, list[EntryPoint]]] = {}
        for distribution in distributions(path=[folder]):
            try:
                if group not in (distribution.read_text("entry_points.txt") or ""):
                    continue
                key = re.sub(r"[-_.]+", "-", distribution.name).lower()
                entries = [e for e in distribution.entry_points if e.group == group]
                here.setdefault(key, (distribution, entries))
            except Exception as error:  # broken metadata of one distribution must not hide others
                where = show(getattr(distribution, "_path", "unknown"))
                reason = type(error).__name__
                warnings.append(f"plug-in at {where}: not readable ({reason}); left out")
        for key in sorted(here):
            found.setdefault(key, here[key])  # Python imports the first on the path
    return list(found.values())
