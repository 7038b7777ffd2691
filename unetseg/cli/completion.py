"""What a shell offers for an option's value; nothing here, or on the way here, imports torch."""

from collections.abc import Callable
from pathlib import Path

from unetseg import plugins, settings

Completion = Callable[[], tuple[str, ...]]


def words(*choices: str) -> Completion:
    """Return a completion that offers always the same."""
    return lambda: choices


def offered(group: str) -> Completion:
    """Return a completion that offers what is built in and what plug-ins of a group add."""
    return lambda: plugins.names(group)


def runs() -> tuple[str, ...]:
    """Return the names of the runs in ``runs/``."""
    return tuple(sorted(path.name for path in Path("runs").glob("*") if path.is_dir()))


networks = offered(plugins.NETWORKS)
losses = offered(plugins.LOSSES)
augments = offered(plugins.AUGMENTATIONS)
optimizers = words(*settings.OPTIMIZERS)
schedules = words(*settings.SCHEDULES)
symmetries = words("auto", "none", *settings.SYMMETRIES)
modes = words(*settings.MODES)
weights = words(*settings.WEIGHTS)
devices = words("auto", "cpu", "cuda", "mps")
precisions = words(*settings.PRECISIONS)
