"""A recipe: the settings of a training with every open one filled in."""

import dataclasses
from dataclasses import dataclass, field

from unetseg.dataset.store import StoreInfo
from unetseg.devices import is_fast_in_bfloat16, pick_device
from unetseg.errors import InputError, arg
from unetseg.network.optimizers import DEFAULT_LR, DEFAULT_WEIGHT_DECAY
from unetseg.ranks import world
from unetseg.settings import DEFAULT_EPOCHS, SYMMETRIES, TrainSettings, split_augment


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainSettings):
    """Settings in which nothing is left for the training to choose.

    Either ``epochs`` or ``budget`` is given, and ``precision`` is no longer "auto".
    """

    # `field()` keeps the default of `TrainSettings`, which is None, from being inherited.
    batch_size: int = field()
    lr: float = field()
    weight_decay: float = field()

    @property
    def network_settings(self) -> dict[str, int]:
        """The settings with which the network is built, beside channels and classes."""
        return network_settings(self)


def resolve(settings: TrainSettings, size: int) -> Recipe:
    """Return the recipe that settings stand for on this machine.

    Args:
        settings: The settings asked for.
        size: Side of a patch in pixels.

    Raises:
        InputError: The batch is too small for the processes that share it.
    """
    ranks, device = world().size, pick_device(settings.device)
    values = dataclasses.asdict(settings)
    if settings.epochs is None and settings.budget is None:
        values["epochs"] = DEFAULT_EPOCHS
    if settings.batch_size is None:
        # Many small steps learn more in the same time than few large ones, down to about 8 patches
        # of 96 x 96 on a CPU. A GPU needs more work at once to be busy.
        batch = max(2, round(8 * 96**2 / size**2))
        values["batch_size"] = max(batch * (8 if device.type == "cuda" else 1), ranks)
    elif settings.batch_size < ranks:
        text = f"{settings.batch_size} patches a step for {ranks} processes"
        raise InputError(arg("batch_size"), text, "give at least one for each")
    if settings.precision == "auto":
        values["precision"] = "bfloat16" if is_fast_in_bfloat16(device) else "float32"
    if settings.lr is None:
        values["lr"] = DEFAULT_LR[settings.optimizer]
    if settings.weight_decay is None:
        values["weight_decay"] = DEFAULT_WEIGHT_DECAY[settings.optimizer]
    return Recipe(**values)


def network_settings(settings: TrainSettings) -> dict[str, int]:
    """Return the width and the depth of the network, where they are given."""
    given = {"width": settings.width, "depth": settings.depth}
    return {key: value for key, value in given.items() if value is not None}


def choose_symmetries(settings: TrainSettings, info: StoreInfo) -> frozenset[str]:
    """Return the symmetries that augmentation uses on this store, some of `SYMMETRIES`."""
    if split_augment(settings.augment)[0] == "none" or settings.symmetries == "none":
        return frozenset()
    if settings.symmetries == "auto":
        found = info.settings.get("symmetries", ())
        return frozenset(name for name in SYMMETRIES if name in found)
    return frozenset(settings.symmetries.split(","))
