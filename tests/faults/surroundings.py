"""Broken plug-ins and unusual environments, in processes that nothing is imported into before."""

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.faults.common import (
    LIMIT,
    Lab,
    Tally,
    assert_plain,
    command,
    environment,
    fault,
    some,
)

_Done = subprocess.CompletedProcess[str]


def _run(folder: Path, args: list[str], **changes: str | None) -> _Done:
    return subprocess.run(
        args,
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=LIMIT,
    )


# --- plug-ins --------------------------------------------------------------------------------

# Each breaks on import; later faults, and faults of metadata, are in tests/test_plugins.py.
_PLUGINS = {
    "missing import": "import none_such",
    "syntax": "def work(:",
    "sys.exit": "import sys; sys.exit(0)",
    "os._exit": "import os; os._exit(0)",
    "hangs": "import time; time.sleep(600)",
    "kills itself": "import os; os.kill(os.getpid(), 9)",
    "prints": "print('hello'); work = 1",
    "no memory": "raise MemoryError",
    "recursion": "def f(): f()\nf()",
    "changes Typer": "import typer; typer.Typer = None; work = 1",
}


def _install(folder: Path, code: str) -> None:
    """Write the files that pip would leave of a plug-in with the command ``work``."""
    info = folder / "plug-1.0.dist-info"
    info.mkdir()
    (folder / "plug.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unetseg.commands]\nwork = plug:work\n")


@fault("F35", "plug-ins broken on import", "core commands and --help work", quick=0.1)
def broken_plugins(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for name in some(list(_PLUGINS), share):
        folder = lab.folder()
        _install(folder, _PLUGINS[name])
        path = os.pathsep.join([environment()["PYTHONPATH"], str(folder)])
        with tally.attempt(name):
            seen: dict[str, str | None] = {"PYTHONPATH": path, "UNETSEG_NO_PLUGINS": None}
            listed = _run(folder, command("--help"), **seen)
            assert listed.returncode == 0, listed.stderr[-300:]
            assert " work " in listed.stdout, "it is not listed"
            runs = _run(folder, command("runs"), **seen)
            assert runs.returncode == 0, runs.stderr[-300:]
            assert_plain(listed.stderr + runs.stderr)
    return tally


# --- environments ----------------------------------------------------------------------------

_JOB = ("synth", "--n", "3", "--n-test", "1", "--out", "d\N{LATIN SMALL LETTER E WITH ACUTE}")
_CHANGES: dict[str, dict[str, str | None]] = {
    "LC_ALL=C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "LC_ALL=C.utf8": {"LC_ALL": "C.utf8"},
    "strict output": {"PYTHONIOENCODING": "ascii:strict"},
    "no HOME": {"HOME": None, "USER": None, "LOGNAME": None},
    "HOME elsewhere": {"HOME": "/nonexistent"},
    "narrow": {"COLUMNS": "20"},
    "no numbers": {"COLUMNS": "wide", "LINES": "-1"},
    "TERM=dumb": {"TERM": "dumb"},
    "no TERM": {"TERM": None},
    "NO_COLOR": {"NO_COLOR": "1", "FORCE_COLOR": None},
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "no TMPDIR": {"TMPDIR": "/nonexistent"},
    "no PATH": {"PATH": ""},
    "HDF5 plug-ins": {"HDF5_PLUGIN_PATH": "/tmp", "HDF5_USE_FILE_LOCKING": "TRUE"},
}


def _content(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that the job wrote."""
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@fault("F36", "locales, terminals, time zones, homes", "the same bytes and exit code", quick=0)
def environments(lab: Lab, share: float) -> Tally:
    plain = lab.folder()
    assert _run(plain, command(*_JOB)).returncode == 0
    tally = Tally()
    for name in some(list(_CHANGES), share):
        with tally.attempt(name):
            folder = lab.folder()
            done = _run(folder, command(*_JOB), **_CHANGES[name])
            assert done.returncode == 0, done.stderr[-300:]
            assert_plain(done.stderr)
            assert _content(folder) == _content(plain), "other bytes"
    return tally


@fault("F36", "patch and info under them", "the same store and exit code", quick=0)
def stores_in_environments(lab: Lab, share: float) -> Tally:
    from unetseg.dataset.store import open_store

    expected = open_store(lab.made / "data/patches.h5").content_hash
    line = command("patch", "--size", 32, "--per-image", 4, "--val", 0.25, "--overwrite")
    tally = Tally()
    for name in some(list(_CHANGES), share):
        with tally.attempt(name):
            home = lab.copy(lab.made)
            done = _run(home, line, **_CHANGES[name])
            assert done.returncode == 0, done.stderr[-300:]
            assert open_store(home / "data/patches.h5").content_hash == expected
            shown = _run(home, command("info", "data/patches.h5"), **_CHANGES[name])
            assert shown.returncode == 0, shown.stderr[-300:]
            assert_plain(done.stderr + shown.stderr)
    return tally


def _shell(script: str) -> Callable[[Path], _Done]:
    return lambda folder: _run(folder, ["bash", "-c", script, "bash", *command()])


_SHELLS: dict[str, tuple[Callable[[Path], _Done], int, str]] = {
    "deleted folder": (
        _shell('mkdir gone && cd gone && rmdir ../gone && "$@" synth'), 3, "current folder"),
    "umask 077": (_shell('umask 077 && "$@" synth --n 1 --out out'), 0, ""),
    "umask 777": (_shell('umask 777 && "$@" runs'), 0, ""),
    "no stdin": (_shell('"$@" synth --n 1 --out out <&-'), 0, ""),
    "no stderr": (_shell('"$@" synth --n 1 --out out 2>&-'), 0, ""),
}  # fmt: skip


@fault("F36", "deleted folder, umask, closed stdin and stderr", "one line, or the work", quick=0.2)
def shells(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for name in some(list(_SHELLS), share):
        with tally.attempt(name):
            start, code, words = _SHELLS[name]
            done = start(lab.folder())
            assert done.returncode == code, f"exit {done.returncode}: {done.stderr[-300:]}"
            assert_plain(done.stderr)
            assert words in done.stderr, done.stderr[-300:]
    return tally
