"""How a training starts, anew or where it was stopped: its network, its clock, its notes."""

import dataclasses
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from unetseg import plugins
from unetseg.dataset.store import Store, StoreInfo
from unetseg.devices import describe_device, pick_device
from unetseg.errors import DivergenceError, InputError, arg
from unetseg.features.encoder_weights import read_encoder_weights
from unetseg.network.pretrained import frozen_digest
from unetseg.network.unet import FusedUNet, build_network, count_parameters
from unetseg.prediction.model_file import ModelCard, load_model
from unetseg.prediction.run_folder import RunFolder, resolve_model
from unetseg.progress import Note, OnProgress, Plan
from unetseg.ranks import world
from unetseg.settings import DEFAULT_EPOCHS, split_augment
from unetseg.signals import Caught
from unetseg.text import plural, show
from unetseg.training import validation
from unetseg.training.artefacts import Artefacts
from unetseg.training.batches import Batches
from unetseg.training.checkpoint import TrainState
from unetseg.training.clock import BudgetClock, Clock, StepClock
from unetseg.training.forecast import NOTHING, Advice, Afterwards
from unetseg.training.learner import Learner, measure_rate
from unetseg.training.loop import Course, Trainer, this_machine
from unetseg.training.recipe import Recipe
from unetseg.training.threads import Threads

# Processor seconds of the last save, its pictures, and the end of the process.
_SPARE_SECONDS = 0.8
_LEAST_SHARE = 0.05  # of a budget is trained even if the rest is not enough for the later work


@dataclass(frozen=True)
class Session:
    """The parts that a call of `unetseg.train` brings to its run.

    Attributes:
        started: `time.monotonic` when the call began.
        caught: Signals.
        on_progress: Receives `Plan`, `Progress`, `EpochDone` and `Note` records.
        after: The work of the caller after the training, within its budget.
        has_worked: Whether the call has done work already that must not be thrown away.
        clocks: `time.monotonic` and `time.process_time` when the session was made.
    """

    started: float
    caught: Caught
    on_progress: OnProgress
    after: Afterwards = NOTHING
    has_worked: bool = False
    clocks: tuple[float, float] = field(
        default_factory=lambda: (time.monotonic(), time.process_time())
    )

    @property
    def slowness(self) -> float:
        """The seconds that a second of one processor takes beside the other work of the machine."""
        began, used = self.clocks
        return max(1.0, (time.monotonic() - began) / max(time.process_time() - used, 1e-3))


def new_trainer(
    opened: Store,
    folder: RunFolder,
    recipe: Recipe,
    session: Session,
    given: dict[str, str],
) -> Trainer:
    """Return a trainer at its first step; the files of an earlier run in the folder are removed.

    Args:
        opened: The store to learn from.
        folder: The folder of the run.
        recipe: How it is trained.
        session: The call.
        given: The options given beside the settings; ``from`` names a model to start from.

    Raises:
        InputError: The network, the weights or the budget do not do, or nothing is held out by
            which ``patience`` could judge.
        DivergenceError: The first loss is not finite.
    """
    torch.manual_seed(recipe.seed)
    before: tuple[str, ...] = ()
    if "from" in given:
        network, before = network_from_model(
            given["from"], recipe, opened.info, session.on_progress
        )
    else:
        network = new_network(recipe, opened.info)
    if recipe.patience and opened.held_out_count == 0:
        raise InputError(arg("patience"), "no image is held out to judge by", "leave it out")
    return _prepare(opened, folder, recipe, network, session, given, before, None)


def resumed_trainer(
    opened: Store, folder: RunFolder, saved: TrainState, path: Path, session: Session
) -> Trainer:
    """Return a trainer that goes on exactly from a checkpoint.

    Args:
        opened: The store that the checkpoint names.
        folder: The folder of the run.
        saved: The content of the checkpoint.
        path: The file of the checkpoint.
        session: The call.

    Raises:
        InputError: The store has changed, or the pretrained weights are not there any more.
    """
    if saved.store_hash != opened.content_hash:
        text = f"has changed since {show(path)} was saved"
        raise InputError(opened.path, text, f"train a new {arg('run')} on it")
    torch.set_num_threads(saved.machine.threads)
    recipe, frozen = saved.settings, saved.learner.frozen
    network = resumed_network(recipe, opened.info, frozen, folder.model, path)
    now = dataclasses.asdict(this_machine(pick_device(recipe.device), torch.get_num_threads()))
    for key, before in dataclasses.asdict(saved.machine).items():
        if before != now[key]:
            text = f"not bit-exact: {key} {before} -> {now[key]}"
            session.on_progress(Note(text, warning=True))
    before = saved.learned_before
    return _prepare(opened, folder, recipe, network, session, saved.given, before, saved)


def _prepare(
    opened: Store,
    folder: RunFolder,
    recipe: Recipe,
    network: nn.Module,
    session: Session,
    given: dict[str, str],
    before: tuple[str, ...],
    saved: TrainState | None,
) -> Trainer:
    """Return a trainer whose clock knows how quick this machine is, and say what it will do."""
    batches, artefacts = Batches(opened, recipe), Artefacts(opened, folder, recipe, before)
    windows = validation.windows(opened.info, network, batches.device)
    if saved is None:
        every = recipe.validate or validation.interval(windows, len(batches.data))
        course = Course(every, given)
    else:
        course = Course(saved.validate_every, given, saved.tally, saved.history, saved.best)
    may_change = recipe.budget is not None and world().size == 1 and batches.device.type == "cpu"
    threads = Threads(session.slowness if may_change else None)
    try:
        rate = measure_rate(batches, recipe, network)
    except DivergenceError as error:
        raise course.explain(error, folder) from None
    except ValueError as error:  # torch has no other class for it
        if "more than 1 value per channel" not in str(error):
            raise
        text = "leaves batch normalisation one pixel at the lowest level"
        remedy = f"give {arg('batch_size', 2)} or more, larger patches, or a smaller {arg('depth')}"
        raise InputError(arg("batch_size", recipe.batch_size), text, remedy) from None
    rate = world().gather(rate)[0]  # the ranks go by the first one
    clock = _start_clock(opened, recipe, batches, session, course, network, windows, rate, saved)
    learner = Learner(
        batches, recipe, network, clock.expected_steps, saved.learner if saved else None
    )
    if saved is None:
        session.on_progress(Note(_augmentation_text(recipe, batches)))
        if world().is_writer:  # not sooner: errors of the call come first
            artefacts.begin(lambda: batches.batch(0, 0), given.get("from"))
    session.on_progress(_plan(learner, clock))
    passed, caught, on_progress = session.after.passed, session.caught, session.on_progress
    return Trainer(learner, clock, artefacts, course, threads, passed, caught, on_progress)


def _start_clock(
    opened: Store,
    recipe: Recipe,
    batches: Batches,
    session: Session,
    course: Course,
    network: nn.Module,
    windows: float,
    rate: float,
    saved: TrainState | None,
) -> Clock:
    """Return the clock of a training.

    Args:
        opened: The store to learn from.
        recipe: How it is trained.
        batches: The batches to learn from.
        session: The call.
        course: The course of the run so far.
        network: The network that will be trained.
        windows: Patches that have the pixels of a validation.
        rate: Patches a second, the same on all ranks.
        saved: The state to go on from.

    Raises:
        InputError: A budget leaves no time to train.
    """
    before = saved.seconds if saved else 0.0
    ranks, info, images = world(), opened.info, opened.held_out_count
    if images:  # the ranks wait for the rank with the most
        windows *= -(-images // ranks.size) / images
    if recipe.budget is None:
        lengths = (recipe.epochs or DEFAULT_EPOCHS, batches.steps_per_epoch, len(batches.data))
        scoring = windows * validation.FORWARD_SHARE
        steps = saved.learner.position.step if saved else 0
        return StepClock(*lengths, rate, scoring, course.validate_every, steps, before)
    rehearsal = validation.Rehearsal(network, info.channels, info.size, batches.device)
    rehearsal.seconds()

    def measure() -> float:
        return windows * rehearsal.seconds()

    scoring = measure()
    spent = time.monotonic() - session.started + before
    scoring, spent, slowness = ranks.gather((scoring, spent, session.slowness))[0]
    total, passes = recipe.budget - spent, 1.0
    if (passed := session.after.passed) is not None:
        pixels = sum(one.height * one.width for one in info.held_out)
        passes += passed.share_missing(pixels, len(info.classes.classes))
        passes += ranks.size - 1  # rank 0 predicts the images of the others again
    later = session.after.seconds + slowness * _SPARE_SECONDS
    clock_of = partial(BudgetClock, total, batches.size, rate, scoring, measure, passes, later)
    if saved:
        steps, share = saved.expected_steps, saved.share
        return clock_of(seconds_before=before, expected_steps=steps, share_before=share)
    reserve = passes * scoring + later
    advice = Advice(recipe.budget, spent + reserve + len(batches.data) / rate, info.scale)
    if total <= reserve and not session.has_worked:
        raise advice.error()
    clock = clock_of(least=_LEAST_SHARE * recipe.budget)
    if clock.expected_steps < batches.steps_per_epoch:
        share = clock.expected_steps / batches.steps_per_epoch
        text = f"there is time for {100 * share:.0f} % of the patches only: {advice}"
        session.on_progress(Note(text, warning=True))
    return clock


def _augmentation_text(recipe: Recipe, batches: Batches) -> str:
    if recipe.augment == "none":
        return "no augmentation"
    name = " and ".join(filter(None, split_augment(recipe.augment)))
    words = {"hflip": "left-right", "vflip": "up-down", "turn": "quarter turns"}
    kept = ", ".join(text for key, text in words.items() if key in batches.symmetries)
    why = " (by where the classes lie)" if recipe.symmetries == "auto" else ""
    return f"augmentation: {name}; symmetries{why}: {kept or 'none'}"


def _plan(learner: Learner, clock: Clock) -> Plan:
    """Return the plan of a training that is about to start."""
    batches, recipe, several = learner.batches, learner.recipe, world().size
    data, step = batches.data, learner.position.step
    return Plan(
        network=recipe.network,
        parameters=count_parameters(learner.network),
        patches=len(data),
        epochs=-(-clock.expected_steps // batches.steps_per_epoch),
        patches_per_second=clock.rate,
        seconds=clock.left(),
        memory=data.bytes_in_memory,
        device=describe_device(batches.device)
        + (f" x {several}" if several > 1 else "")
        + f", {recipe.precision}",
        resumed=step,
    )


def new_network(recipe: Recipe, info: StoreInfo) -> nn.Module:
    """Return a new network for the patches of a store; a pretrained part has its weights.

    Raises:
        InputError: A name or a setting is unknown, or the pretrained weights cannot be read.
        MachineError: The installed weights are missing or damaged.
    """
    network = build_network(
        recipe.network, info.channels, len(info.classes.classes), **recipe.network_settings
    )
    if isinstance(network, FusedUNet):
        network.pretrained.load_state_dict(read_encoder_weights(recipe.weights))
    elif recipe.weights is not None:
        text = f"the network {recipe.network} has no pretrained part"
        raise InputError(arg("weights"), text, f"leave it out, or add {arg('network', 'fused')}")
    elif callable(load := getattr(network, "load_pretrained", None)):
        with plugins.plugin_errors(plugins.choose(plugins.NETWORKS, recipe.network)):
            load()
    return network


def network_from_model(
    name: str, recipe: Recipe, info: StoreInfo, on_progress: OnProgress
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network with the weights of a model, and the images that these learned from.

    A layer that does not fit is new. The images are those of `ModelCard.trained_on`.

    Args:
        name: Name of a run, a folder or a file.
        recipe: Names the network and its sizes; they are those of the model.
        info: Header of the store to train on.
        on_progress: Receives a `Note` that names the parts taken over, and a warning where the
            model was trained on held-out images.

    Raises:
        InputError: The model has other channels, or cannot be read.
    """
    path = resolve_model(name)[0]
    old, card = load_model(path)
    check_channels(path, card, info.channels)
    network = new_network(recipe, info)
    weights = old.state_dict()
    text = f"starting from {show(path)} ({card.name}, {plural(len(card.sources), 'image')})"
    other = card.classes.names != info.classes.names
    if other:
        head = list(weights)[-1].rpartition(".")[0]
        weights = {k: v for k, v in weights.items() if not k.startswith(f"{head}.")}
        text += f"; other classes ({', '.join(map(show, card.classes.names))} there), so the "
        text += f"last layer ({show(head)}) is new"
    network.load_state_dict(weights, strict=not other)
    on_progress(Note(text, warning=other))
    if known := sum(one.sha256 in card.trained_on for one in info.held_out):
        text = f"{show(path)} was trained on {known} of the {plural(len(info.held_out), 'image')} "
        text += f"held out: their score will be too good; choose another {arg('start_from')}"
        on_progress(Note(text, warning=True))
    return network, tuple(sorted(card.trained_on))


def check_channels(path: Path, card: ModelCard, channels: int) -> None:
    """Raise `InputError` where a model to start from takes other channels than there are."""
    if card.channels != channels:
        text = f"trained on {plural(card.channels, 'channel')}, the images have {channels}"
        raise InputError(path, text, f"choose another {arg('start_from')}")


def resumed_network(
    recipe: Recipe, info: StoreInfo, frozen: str, model: Path, checkpoint: Path
) -> nn.Module:
    """Return a network for the weights of a checkpoint, which leaves out those that never change.

    Args:
        recipe: The recipe as recorded.
        info: Header of the store.
        frozen: Digest of the weights that never change.
        model: The model that the run has written so far, if any.
        checkpoint: The checkpoint, for messages.

    Raises:
        InputError: The pretrained weights of the run are neither installed nor in its model.
    """
    if recipe.weights is not None and model.exists():
        network, _ = load_model(model)  # it holds them, even if their own file has gone
    else:
        network = new_network(recipe, info)
    if frozen_digest(network) not in ("", frozen) and model.exists():
        # The run began with the pretrained weights of a model to start from.
        network, _ = load_model(model)
    if frozen_digest(network) not in ("", frozen):
        text = "the pretrained weights that it was trained with are not there"
        remedy = f"restore the file of {arg('weights')}, or train a new {arg('run')}"
        raise InputError(checkpoint, text, remedy)
    return network
