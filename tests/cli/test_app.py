"""The command line as a person meets it: help, errors, exit codes, settings, signals."""

import contextlib
import errno
import gc
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Annotated

import pytest
import typer

from tests.support import write_set
from unetseg import PatchSettings, __main__, build_store, signals
from unetseg.cli import app, boundary, console
from unetseg.errors import (
    DivergenceError,
    InputError,
    Interrupted,
    MachineError,
    PartialFailure,
)
from unetseg.progress import Note, Plan, Progress

ROOT = Path(__file__).parents[2]
ON_POSIX = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")


def run(*args: str, **options):
    """Run ``python -m unetseg`` from the source folder in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "unetseg", *args]
    return subprocess.run(
        command, env=environment, text=True, capture_output=True, timeout=60, **options
    )


@pytest.fixture
def command(monkeypatch):
    """Return a function that makes its argument the only built-in command, called ``work``."""

    def install(function):
        module = types.ModuleType("stub_of_a_command")
        module.work = function
        monkeypatch.setitem(sys.modules, "stub_of_a_command", module)
        monkeypatch.setattr(app, "BUILT_INS", {"work": ("stub_of_a_command", "Do the [work]")})

    return install


@pytest.fixture
def work(command):
    """Install a command with every kind of parameter; return the list of values it was given."""
    seen = []

    def work(
        inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT...")] = None,
        epochs: Annotated[int, typer.Option("--epochs", min=1, help="How [long].")] = 100,
        per_image: Annotated[str, typer.Option("--per-image", rich_help_panel="Amount")] = "auto",
        rate: Annotated[float, typer.Option("--lr")] = 0.1,
        model: Annotated[list[str] | None, typer.Option("--model")] = None,
        overlay: Annotated[bool, typer.Option("--overlay/--no-overlay")] = True,
    ) -> None:
        """Do the work in [brackets], which are
        no markup.

        Example:
            unetseg work a.png --epochs 3
            unetseg work b.png
        """
        seen.append(
            {
                "inputs": inputs,
                "epochs": epochs,
                "per_image": per_image,
                "rate": rate,
                "model": model,
                "overlay": overlay,
            }
        )

    command(work)
    return seen


def fail_with(command, error):
    def work() -> None:
        raise error

    command(work)


# --- help ----------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from unetseg.cli.app import main; code = main(['--help']);"
        "heavy = {'torch', 'numpy', 'h5py', 'imageio', 'scipy', 'PIL', 'pydantic'};"
        "heavy |= {'starlette', 'uvicorn'};"
        "heavy &= set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("synth", "patch", "train", "predict", "evaluate"):
        assert re.search(rf"\b{name} +[A-Z]\w+ ", done.stdout)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("data/train", "data/train: 3 images with masks; the first has 64 x 56 pixels, 1 channel"),
        ("p.h5", "p.h5: 6 patches of 32 x 32 pixels, from 3 images"),
    ],
)
def test_train_says_what_it_found_before_it_imports_torch(empty, source, line):
    write_set("data/train", 3, shape=(64, 56))
    build_store("data/train", "p.h5", PatchSettings(size=32, per_image=2, val=0))
    code = (
        "import sys; from unetseg import display; from unetseg.cli.app import main\n"
        "show = display.ProgressDisplay.__call__\n"
        "def first(self, record): show(self, record); sys.exit(7 + ('torch' in sys.modules))\n"
        "display.ProgressDisplay.__call__ = first\n"
        f"sys.exit(main(['train', '{source}']))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (7, f"{line}\n")


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_bare_call_and_both_flags_show_help_on_stdout(args, work, capsys):
    assert app.main(args) == 0
    shown = capsys.readouterr()
    assert "Usage: unetseg" in shown.out
    assert "Do the [work]" in shown.out
    assert shown.err == ""


def test_help_of_a_command_keeps_brackets_defaults_panels_and_the_lines_of_its_example(
    work, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    assert app.main(["work", "-h"]) == 0
    out = capsys.readouterr().out
    lines = [line.strip() for line in out.splitlines()]
    assert "Do the work in [brackets], which are no markup." in lines
    assert lines[lines.index("Example:") + 1] == "unetseg work a.png --epochs 3"
    assert lines[lines.index("Example:") + 2] == "unetseg work b.png"
    assert "How [long]." in out
    assert "[default: 100]" in out
    assert "─ Amount ─" in out
    assert max(map(len, out.splitlines())) <= 80


def test_an_example_after_one_paragraph_keeps_its_indentation(command, capsys):
    def work() -> None:
        """Do the work.

        Example:
            unetseg work a.png
            unetseg work b.png
        """

    command(work)
    assert app.main(["work", "-h"]) == 0
    shown = capsys.readouterr().out
    assert " Example:" in shown
    assert "\n     unetseg work a.png" in shown
    assert "\n     unetseg work b.png" in shown


def test_the_base_of_all_errors_of_usage_is_where_typer_keeps_it():
    assert boundary.CLICK_ERROR.__name__ == "ClickException"
    assert issubclass(typer.BadParameter, boundary.CLICK_ERROR)


def _written() -> list[str]:
    return [
        name
        for name, (module, _) in app.BUILT_INS.items()
        if importlib.util.find_spec(module) is not None
    ]


@pytest.mark.parametrize("name", _written())
def test_every_command_has_a_verb_phrase_an_example_and_fits_80_columns(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert app.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    example = [line.strip() for line in out.split("Example:")[1].strip().splitlines()]
    assert all(line.startswith(f"unetseg {name}") for line in example[: example.index("")])
    assert max(map(len, out.splitlines())) <= 80


def test_version_names_what_a_report_of_a_bug_needs(capsys):
    assert app.main(["--version"]) == 0
    assert re.fullmatch(r"unetseg \S.*, torch \S.*, Python 3\.\d+\.\d+\n", capsys.readouterr().out)


def test_shell_completion_offers_commands_and_options(work):
    request = {"_UNETSEG_COMPLETE": "complete_bash", "COMP_WORDS": "unetseg pa", "COMP_CWORD": "1"}
    assert run(env=request).stdout.split() == ["patch"]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.png", "is empty", "delete it"), 2, "a.png: is empty; delete it"),
        (
            MachineError("out", "the disk is full", "free some"),
            3,
            "out: the disk is full; free some",
        ),
        (DivergenceError("step 7", "loss is nan"), 4, "step 7: loss is nan"),
        (PartialFailure("predict", "1 of 3 failed"), 5, "predict: 1 of 3 failed"),
        (Interrupted(15, "runs/a", "stopped"), 143, "runs/a: stopped"),
        (InputError("[/red]\x1b[2J\n", "bad"), 2, r"[/red]\x1b[2J\n: bad"),
        (MemoryError(), 3, "memory: not enough for this; use smaller images, patches or batches"),
        (PermissionError(errno.EACCES, "Permission denied", "x.h5"), 3, "x.h5: Permission denied"),
        (ModuleNotFoundError("No module named 'h5py'", name="h5py"), 3, "h5py: cannot be imported"),
        (TypeError("no [len]"), 1, "internal error: TypeError: no [len]; please report it with"),
        (ImportError("bad name", name="unetseg.x"), 1, "internal error: ImportError: bad name"),
        (KeyboardInterrupt(), 130, "interrupted by Ctrl-C"),
    ],
)
def test_each_failure_is_one_plain_line_and_its_exit_code(command, capsys, error, code, line):
    fail_with(command, error)
    assert app.main(["work"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"unetseg: error: {line}")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("before", "after"), [(None, ("passive", "5000")), ("active", ("active", None))]
)
def test_threads_wait_a_moment_before_they_sleep_unless_the_environment_says_how(
    monkeypatch, before, after
):
    for name, value in (("OMP_WAIT_POLICY", before), ("GOMP_SPINCOUNT", None)):
        monkeypatch.setenv(name, value or "")  # so that the settings below are taken back
        if value is None:
            monkeypatch.delenv(name)
    assert app.main(["--version"]) == 0
    assert (os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT")) == after


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries do not have the setting")
def test_freed_memory_is_kept_for_the_next_layer_unless_the_environment_says_how():
    code = (
        "import resource; from unetseg.cli import app\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "app.main(['--version'])\n"
        "for _ in range(2): b'x' * 2**26\n"
        "before = faults(); b'x' * 2**26; print(faults() - before)\n"
    )
    found = []
    for setting in ({}, {"MALLOC_MMAP_MAX_": "65536"}):
        given = {k: v for k, v in os.environ.items() if k != "MALLOC_MMAP_MAX_"} | setting
        line = [sys.executable, "-c", code]
        text = subprocess.run(line, env=given, check=True, capture_output=True, text=True).stdout
        found.append(int(text.split()[-1]))
    kept, returned = found
    assert kept < returned / 4  # pages may have 4 KB or 2 MB


def test_ctrl_c_before_the_error_boundary_stands_is_no_traceback(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "_group", interrupt)
    assert __main__.main() == 130


def test_ctrl_c_that_python_would_drop_in_a_callback_ends_the_program():
    code = (
        "import sys, weakref; from unetseg import __main__; from unetseg.cli import app\n"
        "class Lock: pass\n"
        "def interrupt(_): raise KeyboardInterrupt\n"
        "def work():\n"
        "  lock = Lock(); reference = weakref.ref(lock, interrupt); del lock; return 0\n"
        "app.main = work; sys.exit(__main__.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_the_end_of_the_process_searches_no_objects(monkeypatch):
    kept = gc.get_freeze_count()
    monkeypatch.setattr(app, "main", lambda: 0)
    try:
        assert __main__.main() == 0
        assert gc.get_freeze_count() > kept
    finally:
        gc.unfreeze()


def test_debug_shows_the_traceback_before_the_line(command, capsys):
    fail_with(command, InputError("a.png", "is empty"))
    assert app.main(["--debug", "work"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert err.endswith("\nunetseg: error: a.png: is empty\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["wrk"], "command 'wrk': not known; did you mean 'work'?"),
        (["zzz"], "command 'zzz': not known; known are work"),
        (["work", "--epoch", "3"], "--epoch: no such option of 'unetseg work'; did you mean '--ep"),
        (["work", "--epochs"], "--epochs: requires an argument; see --help"),
        (
            ["work", "--epochs", "many"],
            "--epochs: 'many', expected a valid integer; see 'unetseg w",
        ),
        (["work", "--epochs", "0"], "--epochs: '0', expected greater than or equal to 1"),
        (["work", "--lr", "[/x]"], "--lr: '[/x]', expected a valid number"),
        (["work", "--overlay=3"], "--overlay: does not take a value; see --help"),
        (["work", "-x"], "-x: no such option of 'unetseg work'; see 'unetseg work --help'"),
        (["work", "--debug"], "--debug: no such option of 'unetseg work'; it stands before the co"),
        (["--config"], "--config: requires an argument; see --help"),
        (
            ["--confg", "x", "work"],
            "--confg: no such option of 'unetseg'; did you mean '--config'?",
        ),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(work, capsys, args, line):
    assert app.main(args) == 2
    err = [x for x in capsys.readouterr().err.splitlines() if x.startswith("unetseg: error: ")]
    assert err[0].startswith(f"unetseg: error: {line}")
    assert work == []


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("train --imgsz 64", "--size"),
        ("train --batch 8", "--batch-size"),
        ("train --learning-rate 0.1", "--lr"),
        ("train --n-folds 5", "--folds"),
        ("predict new --gpu 0", "--device"),
    ],
)
def test_the_option_is_found_by_the_name_that_other_programs_give_it(words, option, capsys):
    assert app.main(words.split()) == 2
    assert capsys.readouterr().err.endswith(f"; did you mean '{option}'?\n")


def test_missing_argument_is_named_as_the_help_shows_it(command, capsys):
    def work(inputs: Annotated[list[str], typer.Argument(metavar="INPUT...")]) -> None: ...

    command(work)
    assert app.main(["work"]) == 2
    line = "unetseg: error: INPUT...: missing; see 'unetseg work --help'\n"
    assert capsys.readouterr().err == line


def test_a_returned_value_is_no_exit_code(command):
    def work() -> int:
        return 17

    command(work)
    assert app.main(["work"]) == 0


@ON_POSIX
@pytest.mark.parametrize("target", ["/dev/full", "&-"])
def test_stdout_that_takes_nothing_is_a_failure_of_the_machine(target):
    if target == "/dev/full" and not Path(target).exists():
        pytest.skip("no /dev/full here")
    line = f'"{sys.executable}" -m unetseg --version >{target}'
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("unetseg: error: ")
    assert done.stderr.count("\n") == 1


@ON_POSIX
def test_a_reader_that_leaves_ends_it_quietly():
    code = (
        "import sys, time; from unetseg.cli import app, console; import types;"
        "m = types.ModuleType('m'); sys.modules['m'] = m;"
        "m.work = lambda: [console.print_line('x' * 9999) for _ in range(99)] and None;"
        "app.BUILT_INS = {'work': ('m', 'Work')}; sys.exit(app.main(['work']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 141


@ON_POSIX
def test_a_deleted_folder_is_said(work, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert app.main(["work"]) == 3
    line = "unetseg: error: the current folder: is deleted; change to another\n"
    assert capsys.readouterr().err == line


# --- settings ------------------------------------------------------------------------------------


def given(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_settings_give_options_and_arguments_and_flags_beat_them(work, tmp_path):
    text = """
        [work]
        epochs = 50
        per-image = 7
        lr = 1e-05
        model = ["a", "b"]
        overlay = false
        input = "x.png"
    """
    path = given(tmp_path, text)
    assert app.main(["--config", path, "work", "--epochs", "3"]) == 0
    assert work == [
        {
            "inputs": ["x.png"],
            "epochs": 3,
            "per_image": "7",
            "rate": 1e-5,
            "model": ["a", "b"],
            "overlay": False,
        }
    ]


def test_a_key_may_be_written_with_underscores_and_a_list_of_one_without_brackets(work, tmp_path):
    path = given(tmp_path, 'work.per_image = "all"\nwork.model = "a"')
    assert app.main(["--config", path, "work", "y.png", "--no-overlay"]) == 0
    assert (work[0]["per_image"], work[0]["model"], work[0]["inputs"]) == ("all", ["a"], ["y.png"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("work.epoch = 3", "unknown key 'epoch' in [work]; did you mean 'epochs'?"),
        ("work.debug = true", "unknown key 'debug' in [work]; known are epochs, input, inputs, lr"),
        ("[wrok]\nepochs = 3", "unknown table [wrok]; did you mean 'work'?"),
        ("epochs = 3", "'epochs' stands outside a table; write it below its command"),
        ("[work", "not readable as TOML (Expected ']'"),
        ('work.epochs = "many"', "[work] epochs: 'many', expected a valid integer"),
        ("work.epochs = 0.5", "[work] epochs: '0.5', expected a valid integer"),
        ("work.epochs = true", "[work] epochs: True is neither a number nor text"),
        ("work.epochs = [1, 2]", "[work] epochs: [1, 2] is neither a number nor text"),
        ("work.lr = 2020-01-01", "[work] lr: datetime.date(2020, 1, 1) is neither"),
        ('work.overlay = "yes"', "[work] overlay: 'yes' is no switch; write true or false"),
        ("work.model = [1, {}]", "[work] model: {} is neither a number nor text"),
    ],
)
def test_settings_that_are_wrong_name_the_file_and_the_key(work, tmp_path, capsys, text, line):
    path = given(tmp_path, text)
    assert app.main(["--config", path, "work"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"unetseg: error: {path}: {line}")
    assert err.count("\n") == 1
    assert work == []


def test_settings_for_other_commands_are_left_to_them(work, tmp_path, monkeypatch):
    table = {**app.BUILT_INS, "rest": ("no_such_module", "Rest")}
    monkeypatch.setattr(app, "BUILT_INS", table)
    path = given(tmp_path, "[rest]\nlong = true\n[work]\nepochs = 5")
    assert app.main(["--config", path, "work"]) == 0
    assert work[0]["epochs"] == 5


def test_missing_settings_are_an_error_of_usage(work, capsys):
    assert app.main(["--config", "nowhere.toml", "work"]) == 2
    assert capsys.readouterr().err.startswith("unetseg: error: nowhere.toml: not found; check")


# --- output --------------------------------------------------------------------------------------


def test_tables_align_numbers_and_show_data_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # too narrow: 60 is the least
    rows = [("[red]a\x1b", 0.98765, "12 %"), ("b" * 70, None, "3 %")]
    console.print_table("Scores [/x]", ["class", "IoU", "pixels"], rows, note="all of it")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Scores [/x]"
    assert lines[-1] == "all of it"
    assert max(map(len, lines)) <= 60
    first = next(line for line in lines if "[red]a" in line)
    assert re.search(r"\[red\]a\\x1b +0\.988     12 %", first)
    second = next(line for line in lines if "bbb" in line)
    assert second.rstrip().endswith("-      3 %")
    assert "".join(lines).count("b") == 70 + 1  # folded, not cut; one in \\x1b


def test_long_lines_are_not_broken_where_they_would_be_pasted(capsys):
    console.print_line("x" * 300)
    console.print_next("unetseg train " + "y" * 300)
    out = capsys.readouterr().out
    assert "x" * 300 + "\n" in out
    assert f"\n  unetseg train {'y' * 300}\n" in out


def test_a_swatch_names_its_colour_where_nothing_is_coloured(monkeypatch):
    assert console.swatch("#e69f00").plain == "#e69f00"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert console.swatch("#e69f00").plain == "  "


def test_a_log_gets_a_line_every_few_seconds_and_one_at_the_end(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console.ProgressDisplay() as display:
        for done in range(21):
            display(Progress("cutting patches", done, 20, "patches"))
            now[0] += 0.5
        display(Progress("cutting patches", 20, 20, "patches"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "cutting patches: 10 of 20 patches, 50 %, 2 patches/s, 0:00:05 left",
        "cutting patches: 20 of 20 patches, 100 %",
    ]


def test_a_log_says_the_time_left_that_a_record_knows(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with console.ProgressDisplay() as display:
        display(Progress("training", 0, 20, "patches", seconds_left=4000.0))
        now[0] += 10
        display(Progress("training", 10, 20, "patches", seconds_left=4740.2))
    line = "training: 10 of 20 patches, 50 %, 1 patches/s, 1:19:00 left"
    assert capsys.readouterr().err.splitlines() == [line]


@pytest.mark.parametrize(
    ("rate", "epochs", "shown"),
    [
        (0.42, 1, "0.42 patches a second, 1 epoch of"),
        (1234.4, 20, "1,234 patches a second, 20 epo"),
    ],
)
def test_a_plan_words_small_and_large_numbers(rate, epochs, shown):
    plan = Plan("compact", 10**6, 200, epochs, rate, 60.0, 10**6, "the CPU", 0)
    assert shown in str(plan)


def test_quiet_leaves_warnings_and_results_only(capsys, monkeypatch):
    monkeypatch.setattr(console, "_quiet", True)
    with console.ProgressDisplay() as display:
        display(Progress("cutting", 1, 1, "patches"))
        display(Note("will cut [patches]"))
        display("epoch 1")
        display(Note("few [images]", warning=True))
    console.print_next("unetseg train")
    console.print_line("the result")
    shown = capsys.readouterr()
    assert shown.err == "warning: few [images]\n"
    assert shown.out == "the result\n"


def test_a_failed_input_is_said_even_when_quiet(capsys, monkeypatch):
    monkeypatch.setattr(console, "_quiet", True)
    with console.ProgressDisplay() as display:
        display.fail(InputError(Path("a[x].png"), "is empty"))
        display.fail(MachineError("memory", "bad\n").about(Path("b.png")))
    assert capsys.readouterr().err.splitlines() == [
        "unetseg: error: a[x].png: is empty",
        r"unetseg: error: b.png: memory: bad\n",
    ]


def test_quiet_stands_before_the_command_and_ends_with_it(command, capsys):
    def work() -> None:
        console.print_next("something")

    command(work)
    app.main(["-q", "work"])
    assert capsys.readouterr().out == ""
    app.main(["work"])
    assert capsys.readouterr().out == "Next:\n  something\n"


def read_terminal(main):
    """Return all that was written to a terminal whose other side is closed: it comes in parts."""
    parts = []
    with contextlib.suppress(OSError):  # Linux tells the end by an error
        while part := os.read(main, 100_000):
            parts.append(part)
    return b"".join(parts).decode()


@ON_POSIX
def test_a_terminal_gets_a_bar_and_a_table_and_is_left_clean():
    import pty

    code = (
        "from unetseg.cli.console import ProgressDisplay\n"
        "from unetseg.progress import EpochDone, Note, Progress\n"
        "row = dict(epoch=7, train_loss=1, val_mean_iou=None, patches_per_second=3)\n"
        "try:\n"
        "  with ProgressDisplay() as display:\n"
        "    display(Progress('cutting', 3, 20, 'patches', seconds_left=4740.2))\n"
        "    display(EpochDone(row, 60)); display(Note('said'))\n"
        "    raise ValueError\n"
        "except ValueError: pass\n"
    )
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=side, env=environment)
    assert process.wait(timeout=20) == 0
    os.close(side)
    shown = read_terminal(main)
    os.close(main)
    assert "3/20 patches" in shown
    assert "1:19:00" in shown
    assert "1.0000" in shown
    assert "said" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back
    assert "3/20" not in shown[shown.rindex("1.0000") :]  # the bar is gone, the table stays


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_takes_nothing_does_not_end_the_work():
    code = (
        "import sys, types; from unetseg.cli import app\n"
        "from unetseg.cli.console import ProgressDisplay\n"
        "from unetseg.progress import Note\n"
        "def work():\n"
        "  with ProgressDisplay() as display:\n"
        "    for _ in range(99): display(Note('x' * 999))\n"
        "  print('done')\n"
        "m = types.ModuleType('m'); sys.modules['m'] = m; m.work = work\n"
        "app.BUILT_INS = {'work': ('m', 'Work')}; sys.exit(app.main(['work']))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=full
        )
    assert (done.stdout, done.returncode) == (b"done\n", 0)


# --- signals -------------------------------------------------------------------------------------


@pytest.fixture
def handled():
    """SIGINT, SIGTERM and SIGHUP as at the start of a program, however the tests were started."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@ON_POSIX
@pytest.mark.parametrize("number", [1, 2, 15])
def test_a_signal_is_noted_and_raised_where_the_work_is_whole(handled, number):
    def work():
        with signals.catching() as caught:
            caught.check("runs/a", "go on")
            os.kill(os.getpid(), number)
            assert caught.signum == number
            caught.check("runs/a", "go on")

    with pytest.raises(Interrupted) as info:
        work()
    assert info.value.exit_code == 128 + number
    assert str(info.value) == f"runs/a: stopped by {signal.Signals(number).name}; go on"
    assert signal.getsignal(number) is signal.default_int_handler


@ON_POSIX
def test_a_signal_after_the_last_check_of_an_inner_block_reaches_the_outer_one(handled):
    def work():
        with signals.catching() as outer:
            with signals.catching() as inner:
                os.kill(os.getpid(), signal.SIGTERM)
                assert (inner.signum, outer.signum) == (signal.SIGTERM, None)
            outer.check("runs/a", "go on")

    with pytest.raises(Interrupted):
        work()


@ON_POSIX
def test_a_signal_after_the_very_last_check_does_not_get_lost(handled):
    with pytest.raises(KeyboardInterrupt), signals.catching():
        os.kill(os.getpid(), signal.SIGINT)


@ON_POSIX
def test_an_ignored_signal_stays_ignored(handled):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals.catching() as caught:
        os.kill(os.getpid(), signal.SIGHUP)
        assert caught.signum is None


def test_outside_the_main_thread_nothing_is_caught():
    import threading

    seen = []

    def work():
        with signals.catching() as caught:
            seen.append(caught.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from unetseg import __main__, signals
with signals.catching() as caught:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
        if caught.signum:
            print("caught", flush=True)
            time.sleep(20)
"""


@ON_POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(number):
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert process.stdout.readline() == b"caught\n"
        process.send_signal(number)
        assert process.wait(timeout=5) == 128 + number
        assert process.stderr.read() == b""


@ON_POSIX
def test_a_forked_worker_leaves_ctrl_c_to_the_main_process_and_ends_on_sigterm(handled):
    with signals.catching() as caught:
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.write(tell, b"alive")
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(99)
        assert os.read(ready, 5) == b"alive"
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
        assert caught.signum is None


@ON_POSIX
def test_sigterm_unwinds_a_command_that_does_not_look(handled, command, capsys):
    cleaned = []

    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            cleaned.append(True)

    command(work)
    assert app.main(["work"]) == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "same_as"),
    [
        (["help"], ["--help"]),
        (["help", "train"], ["train", "--help"]),
        (["train", "-help"], ["train", "--help"]),
        (["version"], ["--version"]),
    ],
)
def test_help_and_version_are_understood_as_other_programs_write_them(words, same_as, capsys):
    assert [app.main(words), app.main(same_as)] == [0, 0]
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :] != ""


def test_info_says_of_what_there_is_none(home, capsys):
    assert app.main(["info", "nothing"]) == 2
    said = "nothing: no store, no model and no run of this name; runs there are: default"
    assert said in capsys.readouterr().err
    assert app.main(["info", "data/train"]) == 2
    said = "data/train: a folder without a model; for labelled images: unetseg check data/train"
    assert said in capsys.readouterr().err


def test_a_budget_counts_from_the_start_of_the_process(monkeypatch):
    begin = app.process_start()
    assert begin == pytest.approx(app.process_start(), abs=0.1)
    assert time.monotonic() - begin < 3600
    monkeypatch.setattr(app.Path, "read_text", lambda _: "not Linux")
    assert 0 <= time.monotonic() - app.process_start() <= time.process_time() + 0.1
