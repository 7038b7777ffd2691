"""Limits of the machine: a full disk, no right to write, sizes, open files, memory."""

import ctypes
import functools
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.common import (
    PREDICT,
    TRAIN,
    Lab,
    Skipped,
    Tally,
    assert_plain_error,
    fault,
    need_root,
    once,
    run,
    save_often,
    some,
    temporaries,
    weights_of,
)

# Commands that write below OUT/.
_WRITERS = {
    "train": (*TRAIN, "--run", "OUT/run"),
    "patch": ("patch", "--size", "32", "--per-image", "20", "--out", "OUT/new.h5"),
    "predict": (*PREDICT, "--out", "OUT/masks", "--probabilities"),
    "synth": ("synth", "--n", "8", "--n-test", "2", "--out", "OUT/drawn"),
}


class Disk:
    """A file system of its own on ``mounted``, which only processes that join its mounts see.

    Attributes:
        pid: The number of the process whose mounts they are.
        inside: The folder where this process sees the files on it.
    """

    def __init__(self, mounted: Path, size: str) -> None:
        mounted.mkdir()
        self.mounted = mounted
        script = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo ready && exec sleep 600'
        self._holder = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, "sh", size, str(mounted)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise Skipped("a tmpfs cannot be mounted here")
        self.pid = self._holder.pid
        self.inside = Path(f"/proc/{self.pid}/root{mounted}")

    def make_read_only(self) -> None:
        """Let nothing more be written to it."""
        arguments = ["--target", str(self.pid), "--mount", "mount", "-o", "remount,ro"]
        subprocess.run(["nsenter", *arguments, str(self.mounted)], check=True)

    def close(self) -> None:
        """Give it back, with all that is on it."""
        self._holder.kill()
        self._holder.wait()


def _enter_mounts(pid: int, folder: Path) -> None:
    """Join the mounts of another process (setns(2), which Python has from 3.12 on)."""
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x20000):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)
    os.chdir(folder)


@contextmanager
def _disk(home: Path, size: str) -> Iterator[Disk]:
    disk = Disk(home / "OUT", size)
    try:
        yield disk
    finally:
        disk.close()


def _on_disk(pid: int, home: Path) -> None:
    _enter_mounts(pid, home)
    save_often()


def _assert_whole(folder: Path) -> None:
    """Check that every file below a folder that has its final name can be read."""
    from unetseg.dataset.store import open_store
    from unetseg.pictures.reading import read_image
    from unetseg.prediction.model_file import load_model
    from unetseg.training.checkpoint import read_checkpoint

    readers: dict[str, Callable[[Path], object]] = {
        ".png": read_image, ".tif": read_image, ".h5": open_store,
        ".pt": read_checkpoint, ".safetensors": load_model,
    }  # fmt: skip
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in readers and not path.name.startswith("."):
            readers[path.suffix](path)


@fault("F14", "train on a disk that fills up", "exit 3, the last save is whole", quick=0.1)
def full_disk_in_training(lab: Lab, share: float) -> Tally:
    return _fill_disks(lab, "train", share)


@fault("F15", "patch on a disk that fills up", "exit 3, no file or a whole one", quick=0.1)
def full_disk_in_patch(lab: Lab, share: float) -> Tally:
    return _fill_disks(lab, "patch", share)


@fault("F15", "predict on a disk that fills up", "exit 3, no file or a whole one", quick=0.1)
def full_disk_in_predict(lab: Lab, share: float) -> Tally:
    return _fill_disks(lab, "predict", share)


@fault("F15", "synth on a disk that fills up", "exit 3, no file or a whole one", quick=0.1)
def full_disk_in_synth(lab: Lab, share: float) -> Tally:
    return _fill_disks(lab, "synth", share)


def _fill_disks(lab: Lab, name: str, share: float) -> Tally:
    """Run a command on disks of 20 sizes, all of them too small."""
    need_root()
    args, tally = _WRITERS[name], Tally()
    needed = _kilobytes(_written(lab, name) / "OUT")
    for i in some(range(20), share):
        size = f"{4 + (needed - 8) * i // 19}k"
        with tally.attempt(f"{name} on {size}"):
            home = _home(lab, name)
            with _disk(home, size) as disk:
                child = run(home, *args, before=functools.partial(_on_disk, disk.pid, home))
                assert_plain_error(child, 3)
                assert "full" in child.err or " free " in child.err, child.err[-200:]
                _assert_whole(disk.inside)
                assert not temporaries(disk.inside), temporaries(disk.inside)
    return tally


@fault("F14", "train --resume on a full disk", "exit 3, earlier files are unchanged", quick=0.2)
def full_disk_in_resume(lab: Lab, share: float) -> Tally:
    need_root()
    tally = Tally()
    for spare in some([0, 4, 20, 60, 120], share):
        with tally.attempt(f"{spare} kB spare"):
            home = lab.copy(lab.made)
            stopped = run(home, *TRAIN, "--run", "stopped", before=_stop_early)
            assert stopped.code == 143, stopped.err[-300:]
            with _disk(home, f"{_kilobytes(home / 'runs/stopped') + spare}k") as disk:
                shutil.copytree(home / "runs/stopped", disk.inside / "run")
                before = weights_of(disk.inside / "run/model.safetensors")
                line = ("train", "--resume", "--run", "OUT/run")
                child = run(home, *line, before=functools.partial(_on_disk, disk.pid, home))
                assert_plain_error(child, 3, "full")
                _assert_whole(disk.inside)
                assert weights_of(disk.inside / "run/model.safetensors") == before or spare
    return tally


def _home(lab: Lab, name: str) -> Path:
    """Return a folder in which one of the `_WRITERS` can work."""
    return lab.copy(lab.trained if name == "predict" else lab.made)


def _written(lab: Lab, name: str) -> Path:
    """Return a folder in which one of the `_WRITERS` has worked unharmed."""
    home = _home(lab, name)
    child = run(home, *_WRITERS[name], before=save_often)
    assert child.code == 0, child.err[-300:]
    return home


def _kilobytes(folder: Path) -> int:
    """Return the bytes that the files of a folder take of a disk with pages of 4 kB."""
    return sum(-(-p.stat().st_size // 4096) * 4 for p in folder.rglob("*") if p.is_file())


def _stop_early() -> None:
    """Make `train` be stopped by SIGTERM at its third step."""
    stop = functools.partial(os.kill, os.getpid(), signal.SIGTERM)
    once("unetseg.training.loop:Trainer", "read_losses", 3, stop)


# --- no right to write -----------------------------------------------------------------------


def _obey_permissions() -> None:
    """Give up root's right to pass over permissions (capset(2), capabilities 1 and 2)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    rights = (ctypes.c_uint32 * 6)()  # twice: effective, permitted, inheritable
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, rights) == 0
    for i in range(3):
        rights[i] &= ~0b110 & 0xFFFFFFFF
    assert libc.capset(header, rights) == 0


@fault("F20", "a folder without the right to write", "exit 3, the place is named", quick=0.25)
def no_right_to_write(lab: Lab, share: float) -> Tally:
    need_root()
    tally = Tally()
    for name in some(list(_WRITERS), share):
        with tally.attempt(name):
            home = _home(lab, name)
            (home / "OUT").mkdir(0o755)
            os.chown(home / "OUT", 65534, 65534)
            child = run(home, *_WRITERS[name], before=_obey_permissions)
            assert_plain_error(child, 3, "OUT", "permission")
            assert not any((home / "OUT").iterdir())
    return tally


@fault("F20", "a read-only disk", "exit 3, the place is named", quick=0.25)
def read_only_disk(lab: Lab, share: float) -> Tally:
    need_root()
    tally = Tally()
    for name in some(list(_WRITERS), share):
        with tally.attempt(name):
            home = _home(lab, name)
            with _disk(home, "10m") as disk:
                disk.make_read_only()
                before = functools.partial(_on_disk, disk.pid, home)
                child = run(home, *_WRITERS[name], before=before)
                assert_plain_error(child, 3, "OUT", "read-only")
    return tally


@fault("F20", "the run's folder deleted while it trains", "exit 3 or a whole run", quick=1)
def folder_deleted(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for _ in some([1], share):
        with tally.attempt("runs/default"):
            home = lab.copy(lab.made)
            child = run(home, *TRAIN, before=functools.partial(_delete_run, home))
            assert child.code in (0, 3), f"exit {child.code}: {child.err[-300:]}"
            _assert_whole(home / "runs")
    return tally


def _delete_run(home: Path) -> None:
    delete = functools.partial(shutil.rmtree, home / "runs/default")
    once("unetseg.training.loop:Trainer", "read_losses", 4, delete)


# --- limits of a process ---------------------------------------------------------------------


def _limit(which: int, value: int) -> None:
    resource.setrlimit(which, (value, value))


def _limit_memory(more: int) -> None:
    """Allow this many bytes beyond those that the process has mapped already."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)


_LARGE = (
    "synth",
    "--n",
    "1",
    "--n-test",
    "0",
    "--height",
    "8000",
    "--width",
    "8000",
    "--out",
    "OUT",
)
_LIMITS: dict[str, tuple[Callable[[], None], str]] = {
    "--fsize=1000": (functools.partial(_limit, resource.RLIMIT_FSIZE, 1000), "size limit"),
    "--fsize=20000": (functools.partial(_limit, resource.RLIMIT_FSIZE, 20000), "size limit"),
    "--nofile=8": (functools.partial(_limit, resource.RLIMIT_NOFILE, 8), "open files"),
}


@fault("F16", "limits of size, open files and memory", "exit 3 and the limit's name", quick=0.25)
def limits_of_a_process(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for limit, name in some([(li, n) for n in _WRITERS for li in _LIMITS], share):
        before, words = _LIMITS[limit]
        with tally.attempt(f"{name} under {limit}"):
            home = _home(lab, name)
            child = run(home, *_WRITERS[name], before=before)
            if child.code != 0 or limit == "--fsize=1000":  # the others may be enough
                assert_plain_error(child, 3, words)
            _assert_whole(home / "OUT")
            assert not temporaries(home), temporaries(home)
    with tally.attempt("a large image under --as"):
        home = lab.folder()
        child = run(home, *_LARGE, before=functools.partial(_limit_memory, 200_000_000))
        assert_plain_error(child, 3, "memory")
        _assert_whole(home)
    return tally
