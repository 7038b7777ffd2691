"""Several processes, started by ``torchrun``, that work as one run.

``torchrun --nproc-per-node 2 -m unetseg train`` starts two processes. The environment tells each
process its number, called its rank. All processes run the same code. `World.own_items` gives a rank
its part of the work, and `World.gather` brings the results together. Rank 0 alone writes files and
reports. Without torchrun the world is one process, and nothing is exchanged.
"""

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from unetseg.errors import Followed, MachineError, arg
from unetseg.progress import OnProgress, silent
from unetseg.signals import catching
from unetseg.text import show

# A rank that is silent for this long during a training step counts as lost.
_SILENCE = timedelta(seconds=120)
# Ranks wait this long while another one cuts patches or predicts a large image.
_PATIENCE = timedelta(days=7)
_ROLL_CALL = 1.0  # seconds in which every remaining rank must answer
_AGAIN = f"start it again, train with {arg('resume', True)}"
_FAILED = "failed"  # key of the first failure
_JOINS = itertools.count()

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen by one of them.

    Every rank must call the same methods in the same order, because they exchange data. The
    exceptions are `own_items`, `only_on_rank_zero` and `check`, which exchange nothing.

    Attributes:
        rank: The number of this process, 0 to ``size`` - 1.
        size: How many processes there are.
        local_size: How many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    _store: Any = field(default=None, repr=False)
    _patient: Any = field(default=None, repr=False)
    _parent: int = field(default=0, repr=False)

    @property
    def is_writer(self) -> bool:
        """Whether this is rank 0, the one that writes files and reports."""
        return self.rank == 0

    @property
    def own_slice(self) -> slice:
        """The items of a sequence that are this rank's: every ``size``-th, from ``rank`` on."""
        return slice(self.rank, None, self.size)

    def own_items(self, items: Sequence[T]) -> Sequence[T]:
        """Return the `own_slice` of ``items``. Together the ranks have every item once."""
        return items[self.own_slice]

    def collect(self, mine: Sequence[T]) -> list[T]:
        """Return the results of all ranks in the order of the items that `own_items` divided.

        Args:
            mine: A result for each of this rank's `own_items`, of types that JSON knows.
        """
        parts = self.gather(list(mine))
        return [parts[k % self.size][k // self.size] for k in range(sum(map(len, parts)))]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks in the order of the ranks.

        The other ranks wait until the last one calls this method.

        Args:
            value: A value of types that JSON knows. With several ranks, tuples come back as lists.
        """
        if self.size == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(part.numpy().tobytes()) for part in self._gather_rows(data)]

    def only_on_rank_zero(self, on_progress: OnProgress) -> OnProgress:
        """Return ``on_progress`` on rank 0, and a callback that drops all reports elsewhere."""
        return on_progress if self.is_writer else silent

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Call ``work`` on rank 0 alone, and return its result, of JSON's types, on every rank."""
        return self.gather(work() if self.is_writer else None)[0]  # type: ignore[return-value]

    def concatenate(self, rows: Tensor) -> Tensor:
        """Return the rows of all ranks on the CPU, in the order of the ranks.

        Args:
            rows: (n, ...). The number n may differ between ranks; the other sizes may not.
        """
        if self.size == 1:
            return rows.cpu()
        shapes = self.gather(list(rows.shape[1:]) if len(rows) else None)
        shape = next((s for s in shapes if s is not None), list(rows.shape[1:]))
        return torch.cat(self._gather_rows(rows.cpu().reshape(-1, *shape)))

    def _gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Return the rows (n, ...) of each rank; n may differ between ranks."""
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)]), group=self._patient)
        longest = max(int(count) for count in counts)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded, group=self._patient)
        return [part[: int(count)] for part, count in zip(found, counts, strict=True)]

    def maximum(self, *values: float) -> list[float]:
        """Return the largest value of all ranks for each argument, by one message on the CPU."""
        if self.size == 1:
            return list(values)
        self._look_for_parent()
        numbers = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return numbers.tolist()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over all ranks in place, on its own device, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all ranks; gradients flow back through it."""
        if self.size == 1:
            return tensor
        summed: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return summed

    @torch.no_grad()
    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating tensors of one type and device by their means over all ranks."""
        if self.size == 1 or not tensors:
            return
        flat = self.sum_(torch.cat([t.flatten() for t in tensors])) / self.size
        parts = torch.split(flat, [t.numel() for t in tensors])
        torch._foreach_copy_(
            list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)]
        )

    def check(self) -> None:
        """Raise if another rank has failed. Long work between two exchanges calls this.

        Raises:
            Followed: Another rank has failed, and said why.
            MachineError: The torchrun that started this process is gone.
        """
        if self.size == 1:
            return
        self._look_for_parent()
        if self._store.check([_FAILED]):
            raise self._followed(self._store.get(_FAILED))

    def _look_for_parent(self) -> None:
        if self._parent and os.getppid() != self._parent:
            raise MachineError("torchrun", "is gone", _AGAIN)

    def _followed(self, told: bytes) -> Followed:
        rank, exit_code = json.loads(told)
        return Followed(rank, exit_code)

    def _explain(self, error: BaseException) -> BaseException:
        """Tell the other ranks that this one ends, and return the error that it should end with.

        The first rank to fail ends with its own error. Ranks that fail later end with `Followed`,
        so that one line on stderr explains the failure of all.
        """
        try:
            return self._first_to_fail(error)
        except dist.DistError:
            if _is_of_exchange(error):
                return MachineError("torchrun", "is gone", _AGAIN)
            return error

    def _first_to_fail(self, error: BaseException) -> BaseException:
        if self._store.check([_FAILED]):
            return self._followed(self._store.get(_FAILED))
        if _is_of_exchange(error):
            error = self._call_roll()
        mine = json.dumps([self.rank, _exit_code(error)])
        told = self._store.compare_set(_FAILED, "", mine)
        return error if told == mine.encode() else self._followed(told)

    def _call_roll(self) -> MachineError:
        """Return an error that names the ranks that do not answer."""
        self._store.set(f"alive/{self.rank}", "")
        missing, end = list(range(self.size)), time.monotonic() + _ROLL_CALL
        while missing and time.monotonic() < end:
            missing = [r for r in missing if not self._store.check([f"alive/{r}"])]
            time.sleep(0.05)
        what = "rank " + ", ".join(map(str, missing)) if missing else "the network between ranks"
        text = "was lost: killed, out of memory, or its machine is gone"
        return MachineError(what, text, _AGAIN)


class _Sum(torch.autograd.Function):
    """The sum over all ranks. Its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(context, *gradients)


_alone = World()
# The world of this process. It is global because torch.distributed has one process group per
# process, and because code far below `train` asks for it. Only `join` sets it.
_current = _alone


def world() -> World:
    """Return the processes that work together now. Outside of `join` it is this process alone."""
    return _current


@contextmanager
def join() -> Iterator[World]:
    """Work together with the other processes that ``torchrun`` started, while the block runs.

    The block sets the global that `world` returns. It can be entered again: an inner `join` yields
    the world of the outer one and leaves its end to it. A command joins around several calls of
    the library, and the library joins around its own work, so that both can be used alone. Without
    torchrun the world is one process.

    An error on any rank ends all. The first rank to fail raises its own error, the others raise
    `Followed`.

    Raises:
        MachineError: A rank was lost, or the others cannot be reached.
    """
    global _current
    if _current is not _alone or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield _current
        return
    joined = _current = _connect()
    try:
        yield joined
    except BaseException as error:
        # torchrun sends SIGTERM to the remaining ranks. Ignore the signal until this rank has let
        # go of the others: it is ending already and must report its own reason.
        with catching() as caught:
            try:
                shown = joined._explain(error)
                # A kernel that waits for a lost rank would keep this process from ending.
                dist.group.WORLD.abort()  # type: ignore[union-attr]
            finally:
                _leave()
            caught.signum = None
        if not (joined.is_writer or isinstance(shown, Followed)):
            # The boundary of the command line shows an error of a rank other than 0 if noted.
            shown.add_note(f"on rank {joined.rank} alone")
        if shown is error:
            raise
        raise shown from error
    _leave()


def _leave() -> None:
    """Leave the other processes: this one is alone again."""
    global _current
    _current = _alone
    dist.destroy_process_group()


def _connect() -> World:
    """Connect the processes that the environment describes, and return their world."""
    try:
        store, rank, size = next(rendezvous("env://", timeout=_SILENCE))
        store = PrefixStore(f"unetseg/{next(_JOINS)}", store)
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=_SILENCE, store=store, rank=rank, world_size=size)
        patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    except (dist.DistError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        text = f"the processes do not reach each other ({show(reason)})"
        raise MachineError("torchrun", text, "start them all with torchrun") from error
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", str(size)))
    parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0
    return World(rank, size, local_size, store, patient, parent)


def _is_of_exchange(error: BaseException) -> bool:
    """Whether an exchange failed because a rank is lost or silent for too long."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _exit_code(error: BaseException) -> int:
    """Return the exit code of a command that ends with ``error``."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, KeyboardInterrupt):
        return 130
    return int(getattr(error, "exit_code", 1))
