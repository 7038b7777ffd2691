"""Plug-ins: an installed one is like a built-in part; a broken one fails alone."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from imageio.v3 import imwrite
from safetensors.numpy import load_file

import unetseg
from tests.support import QUICK
from unetseg import plugins
from unetseg.cli import app
from unetseg.errors import InputError, Interrupted, MachineError
from unetseg.network.augmentation import draw, load_plugin, preset
from unetseg.network.losses import build_loss
from unetseg.network.unet import build_network
from unetseg.progress import Progress
from unetseg.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"^```toml\n# pyproject\.toml\n(.*?)^```\n+```python\n# (unetseg_\w+\.py)\n(.*?)^```",
    (ROOT / "tests" / "example_plugin" / "README.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
ENCODER_EXAMPLE = re.search(
    r"^```toml\n# pyproject\.toml, for an encoder.*?\n(.*?)^```\n+"
    r"```python\n# (\w+\.py)\n(.*?)^```",
    (ROOT / "tests" / "example_plugin" / "README.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)
RUN = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]

GOOD = """
from typing import Annotated
import typer
def work(n: Annotated[int, typer.Option("--n", help="How many [x].")] = 1) -> None:
    '''Do the work of [a] plug-in.'''
    typer.echo(f"worked {n}")
"""


def make_plugin(
    folder, code, *, distribution="plug", name="work", group="commands", value=None, summary="Plug"
):
    """Write the files that pip would leave of an installed plug-in: one module and its metadata."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    about = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\nSummary: {summary}\n"
    (info / "METADATA").write_text(about)
    line = f"{name} = {value or module}:work\n"
    (info / "entry_points.txt").write_text(f"[unetseg.{group}]\n{line}")
    return info


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder on the path of this process, and a fresh choice of modules from it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("UNETSEG_NO_PLUGINS", raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


# -- the examples of example_plugin/README.md --------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which pip has installed the examples, file by file as they stand."""
    sources = []
    for project, name, code in EXAMPLES:
        source = tmp_path_factory.mktemp("source")
        (source / "pyproject.toml").write_text(project)
        (source / name).write_text(code)
        sources.append(source)
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--no-compile", "--target", target, *sources]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return target


@pytest.fixture
def examples(installed, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    monkeypatch.delenv("UNETSEG_NO_PLUGINS", raising=False)


def test_the_first_example_lies_ready_to_install_in_a_folder():
    project, name, code = EXAMPLES[0]
    folder = ROOT / "tests" / "example_plugin"
    assert (folder / "pyproject.toml").read_text() == project
    assert (folder / name).read_text() == code


def test_there_is_an_example_of_each_kind():
    groups = [next(iter(tomllib.loads(e[0])["project"]["entry-points"])) for e in EXAMPLES]
    assert groups == [plugins.COMMANDS, plugins.NETWORKS, plugins.LOSSES, plugins.AUGMENTATIONS]


def test_the_example_of_a_command_counts_objects(examples, empty, capsys):
    mask = np.array([[1, 0, 2, 2], [0, 1, 0, 2], [0, 0, 0, 0], [1, 1, 0, 2]], np.uint8)
    imwrite("mask.png", mask)
    assert app.main(["--help"]) == 0
    assert "Count the objects of each value in masks" in capsys.readouterr().out
    assert app.main(["count-objects", "mask.png", "--min-pixels", "2"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rows = [line.split() for line in shown.out.splitlines() if "mask.png" in line]
    # value 1: two pixels joined by a corner, and two in the last row; value 2: three, and one
    assert rows == [["mask.png", "1", "2"], ["mask.png", "2", "1"]]


def test_the_example_of_a_network_trains_and_predicts(examples, home, capsys, monkeypatch):
    run = ["--epochs=1", "--batch-size=8", "--device=cpu", "--run=monai"]
    assert app.main(["train", "--network", "basic-unet", "--width=4", *run]) == 0
    assert app.main(["predict", "data/test", "--model", "monai"]) == 0
    assert len(list(Path("predictions").glob("*.png"))) == 3
    capsys.readouterr()
    monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")
    assert app.main(["predict", "data/test", "--model", "monai"]) == 2
    said = "its network 'basic-unet' is of a plug-in that is not installed here"
    assert capsys.readouterr().err == (
        f"unetseg: error: runs/monai/model.safetensors: {said}; install it\n"
    )


# segmentation_models.pytorch as far as the example uses it, with weights that need no download.
STAND_IN = """
from torch import nn

class encoders:
    def get_encoder(name, in_channels, weights):
        encoder = nn.Sequential(nn.Conv2d(in_channels, 4, 1), nn.BatchNorm2d(4))
        if weights == "imagenet":
            nn.init.constant_(encoder[0].weight, 0.5)
        return encoder

class Unet(nn.Module):
    def __init__(self, name, encoder_weights, in_channels, classes):
        super().__init__()
        self.encoder = encoders.get_encoder(name, in_channels, encoder_weights)
        self.head = nn.Conv2d(4, classes, 3, padding=1)

    def forward(self, x):
        return self.head(self.encoder(x))
"""


def test_the_example_of_an_encoder_learns_on_weights_that_stay_as_they_were_taught(folder, home):
    project, name, code = ENCODER_EXAMPLE.groups()
    (folder / "segmentation_models_pytorch.py").write_text(STAND_IN)
    (folder / name).write_text(code)
    about = folder / "unetseg_imagenet-1.0.dist-info"
    about.mkdir()
    head = "Metadata-Version: 2.1\nName: unetseg-imagenet\nVersion: 1.0\n"
    (about / "METADATA").write_text(head)
    ((group, points),) = tomllib.loads(project)["project"]["entry-points"].items()
    lines = "".join(f"{key} = {value}\n" for key, value in points.items())
    (about / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    run = ["--epochs=1", "--batch-size=8", "--device=cpu", "--run=taught"]
    assert app.main(["train", "--network", "imagenet", *run]) == 0
    learned = load_file("runs/taught/model.safetensors")
    assert (learned["encoder.0.weight"] == 0.5).all()
    assert (learned["encoder.1.running_mean"] == 0).all()
    saved = read_checkpoint("runs/taught/last.pt")["network"]
    assert "head.weight" in saved
    assert "encoder.0.weight" not in saved
    assert app.main(["predict", "data/test", "--model", "taught"]) == 0
    assert len(list(Path("predictions").glob("*.png"))) == 3


def test_the_example_of_a_loss_is_the_focal_loss(examples):
    # The true class has p = 3/4 in the first pixel and 1/4 in the second; the third counts nowhere.
    logits = torch.tensor([[[[3.0, 3.0, 9.0]], [[1.0, 1.0, 1.0]]]]).log()  # (1, 2, 1, 3)
    target = torch.tensor([[[0, 1, 255]]])
    expected = (-(0.25**2) * np.log(0.75) - 0.75**2 * np.log(0.25)) / 2
    assert build_loss("focal")(logits, target).item() == pytest.approx(expected, rel=1e-5)
    assert build_loss("focal")(logits, torch.full((1, 1, 3), 255)) == 0


def test_models_of_a_loss_and_an_augmentation_need_neither(examples, home, monkeypatch):
    assert app.main(["train", "--loss=focal", "--augment=none+stain", *RUN, "--run=own"]) == 0
    config = tomllib.loads(Path("runs/own/config.toml").read_text())["train"]
    assert (config["loss"], config["augment"]) == ("focal", "none+stain")
    monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")
    assert app.main(["predict", "data/test", "--model", "own"]) == 0
    assert app.main(["--config", "runs/own/config.toml", "train", "--overwrite"]) == 2


def test_a_run_with_an_augmentation_of_a_plugin_is_resumed_exactly(examples, home):
    settings = {**QUICK, "augment": "stain"}
    unetseg.train(run="whole", **settings)

    def stop(record):
        if isinstance(record, Progress) and record.stage == "training" and record.done >= 44:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted):
        unetseg.train(run="halves", on_progress=stop, **settings)
    unetseg.train(run="halves", resume=True)
    unetseg.train(run="light", **{**settings, "augment": "light"})
    whole, halves, light = (
        load_file(f"runs/{run}/model.safetensors") for run in ("whole", "halves", "light")
    )
    assert all(np.array_equal(whole[name], halves[name]) for name in whole)
    assert not all(np.array_equal(whole[name], light[name]) for name in whole)


# -- commands ---------------------------------------------------------------------------------


def test_a_plugin_is_listed_with_its_summary_and_not_imported(folder, capsys):
    make_plugin(folder, "raise SystemExit('imported')", summary="Does [/red] more")
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "Does [/red] more" in shown.out
    assert "Commands of plug-ins" in shown.out
    assert shown.err == ""


def test_a_plugin_runs_with_options_help_and_settings(folder, capsys):
    make_plugin(folder, GOOD)
    assert app.main(["work", "--n", "3"]) == 0
    assert capsys.readouterr().out == "worked 3\n"
    assert app.main(["work", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Do the work of [a] plug-in." in shown
    assert "How many [x]." in shown
    (folder / "s.toml").write_text("[train]\nlr = 1\n[work]\nn = 7")
    assert app.main(["--config", str(folder / "s.toml"), "work"]) == 0
    assert capsys.readouterr().out == "worked 7\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "not loaded (ModuleNotFoundError: No module named"),
        ("def work(:", "not loaded (SyntaxError: "),
        ("import sys; sys.exit(0)", "not loaded (SystemExit: 0)"),
        ("raise MemoryError", "not loaded (MemoryError)"),
        ("other = 1", "not loaded (AttributeError: module 'plug' has no attribute 'work')"),
        ("work = 3", "plug:work is of type int, no function"),
        ("class work: pass", "plug:work is of type type, no function"),
        ("import typer; work = typer.Typer()", "plug:work is of type Typer, no function"),
        ("def work(x: 'Nothing') -> None: ...", "not usable as a command (NameError: name 'N"),
        ("def work() -> None: 1 / 0", "failed (ZeroDivisionError: division by zero)"),
        ("def work() -> None: import none_such", "failed (ModuleNotFoundError: No module"),
        ("def work() -> None: raise SystemExit('[/red] no')", "failed (SystemExit: [/red] no)"),
    ],
)
def test_a_broken_plugin_names_its_distribution_and_its_reason(folder, capsys, code, reason):
    make_plugin(folder, code)
    assert app.main(["work"]) == 3
    err = capsys.readouterr().err
    assert err.startswith(f"unetseg: error: plug-in plug: {reason}")
    assert err.count("\n") == 1
    assert app.main(["--help"]) == 0


def test_what_a_plugin_prints_at_import_stays_out_of_the_results(folder, capsys):
    make_plugin(folder, "print('hello')\n" + GOOD)
    assert app.main(["work"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("worked 1\n", "hello\n")


def test_errors_of_ours_raised_by_a_plugin_keep_their_exit_code(folder, capsys):
    code = "from unetseg.errors import InputError\ndef work() -> None: raise InputError('a', 'b')"
    make_plugin(folder, code)
    assert app.main(["work"]) == 2
    assert capsys.readouterr().err == "unetseg: error: a: b\n"


def test_built_in_commands_win(folder, capsys):
    make_plugin(folder, "raise SystemExit(9)", name="synth")
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "Make a synthetic set" in shown.out
    assert shown.err == "unetseg: warning: plug-in plug: 'synth' is built in; left out\n"


def test_of_two_plugins_of_one_name_the_first_by_distribution_runs(folder, capsys):
    make_plugin(folder, GOOD.replace("worked", "second"), distribution="plug-b")
    make_plugin(folder, GOOD.replace("worked", "first"), distribution="plug-a")
    assert app.main(["work"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "first 1\n"
    line = "unetseg: warning: plug-in plug-b: 'work' is already offered by plug-a; left out\n"
    assert shown.err == line


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("entry_points.txt", b"[unetseg.commands]\nno equals sign\n", "not readable"),
        ("entry_points.txt", b"[unetseg.commands]\nwork\xff = plug:work\n", "not readable"),
        ("METADATA", b"Version: 1.0\n", "not readable"),
        ("entry_points.txt", b"[unetseg.commands]\n--work = plug:work\n", "cannot be a plug-in's"),
        ("entry_points.txt", b"[unetseg.commands]\n[/b]\x1b = plug:work\n", "cannot be a plug"),
    ],
)
def test_broken_metadata_costs_one_warning_and_no_other_plugin(
    folder, capsys, file, content, reason
):
    make_plugin(folder, GOOD, distribution="fine", name="fine")
    (make_plugin(folder, GOOD) / file).write_bytes(content)
    assert app.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert " fine " in shown.out
    assert shown.err.startswith("unetseg: warning: plug-in ")
    assert reason in shown.err
    assert shown.err.count("\n") == 1
    assert "\x1b" not in shown.err


def test_a_variable_leaves_all_plugins_out(folder, capsys, monkeypatch):
    make_plugin(folder, GOOD)
    monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")
    assert app.main(["work"]) == 2
    assert "command 'work': not known" in capsys.readouterr().err


def test_built_in_commands_do_not_even_look_for_plugins(folder, capsys, monkeypatch):
    monkeypatch.setattr("unetseg.plugins.distributions", lambda **_: pytest.fail("looked"))
    monkeypatch.setattr(app, "BUILT_INS", {"work": ("plug", "Work")})
    make_plugin(folder, GOOD)
    assert app.main(["work"]) == 0


# -- networks, losses and augmentations -------------------------------------------------------

BATCH = torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64)


def use(kind):
    """Use the plug-in "work" of a kind as training would."""
    if kind == "networks":
        build_network("work", 3, 2)
    elif kind == "losses":
        build_loss("work", torch.ones(3))(*BATCH)
    else:
        drawn = draw(2, preset("light"), torch.Generator().manual_seed(0))
        load_plugin("work")(*BATCH, drawn)


@pytest.mark.parametrize("kind", ["networks", "losses", "augmentations"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "not loaded (ModuleNotFoundError: No module named"),
        ("raise SystemExit(3)", "not loaded (SystemExit: 3)"),
        ("work = 3", "plug:work is of type int, no function"),
        ("def work(*_): 1 / 0", "failed (ZeroDivisionError: division by zero)"),
        ("def work(*_): pass", "failed (TypeError: "),
    ],
)
def test_what_is_wrong_with_a_plugin_names_its_distribution(folder, kind, code, reason):
    make_plugin(folder, code, group=kind)
    with pytest.raises(MachineError, match=re.escape(f"plug-in plug: {reason}")):
        use(kind)


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("networks", "def work(c, k): return 1", "work is of type int, no torch.nn.Module"),
        ("losses", "def work(w): return lambda x, t: x", "the loss is (2, 3, 4, 4), no scalar"),
        ("losses", "def work(w): return lambda x, t: 0.5", "the loss is float, no scalar"),
        ("losses", "def work(w): return lambda x, t: x[7]", "index 7 is out of bounds"),
        ("augmentations", "def work(x, m, g): return x[:, :, 1:], m", "images and masks became"),
        ("augmentations", "def work(x, m, g): return x, m.float()", "images and masks became"),
    ],
)
def test_what_a_plugin_gives_is_checked_where_it_is_called(folder, kind, code, reason):
    make_plugin(folder, code, group=kind)
    with pytest.raises(MachineError, match=re.escape(reason)) as caught:
        use(kind)
    assert str(caught.value).startswith("plug-in plug: failed (")


def test_a_loss_is_given_the_class_weights_and_an_augmentation_a_generator_of_its_own(folder):
    code = "def work(w): return lambda x, t: w.sum() + 0 * x.sum()"
    make_plugin(folder, code, group="losses", distribution="plug-a")
    assert build_loss("work", torch.tensor([1.0, 2.0]))(*BATCH) == 3
    code = "import torch\ndef work(x, m, g): return x + torch.rand(1, generator=g), m"
    make_plugin(folder, code, group="augmentations", distribution="plug-b")
    drawn = draw(4, preset("light"), torch.Generator().manual_seed(0))
    change = load_plugin("work")
    first, again, other = (change(*BATCH, drawn[a:b])[0] for a, b in ((0, 2), (0, 2), (2, 4)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)  # another rank's part of the batch


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "wrok"}, r"loss: 'wrok' is not known; did you mean 'work'\? one of ce, "),
        ({"augment": "lihgt"}, r"augment: 'lihgt' is not known; did you mean 'light'\?"),
        ({"augment": "strnog+own"}, r"augment: 'strnog' is not known; did you mean 'strong'\?"),
        ({"augment": "strong+light"}, r"'strong\+light' names no plug-in after the '\+'; name one"),
        ({"augment": "strong+"}, r"'strong\+' names no plug-in after the '\+'; name one"),
        ({"network": "wokr"}, r"network: 'wokr' is not known; did you mean 'work'\?"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest_before_any_work(folder, settings, message):
    for kind in ("losses", "augmentations", "networks"):
        make_plugin(folder, "raise SystemExit", group=kind, distribution=f"plug-{kind}")
    with pytest.raises(InputError, match=message):
        unetseg.train("nothing-is-here", **settings)


def test_built_in_names_win_and_are_found_without_a_look(folder, monkeypatch):
    make_plugin(folder, "raise SystemExit", group="losses", name="dice")
    assert plugins.find(plugins.LOSSES, ["dice"])[0] == {}
    monkeypatch.setattr(plugins, "distributions", lambda **_: pytest.fail("looked"))
    assert build_loss("dice")(*BATCH) >= 0


def test_the_first_on_the_path_wins(folder, monkeypatch):
    for number, distribution in ((1, "plug-b"), (2, "plug-a")):  # not the first by its name
        place = folder / str(number)
        place.mkdir()
        code = f"def work(w): return lambda x, t: x.sum() + {number}"
        make_plugin(place, code, group="losses", distribution=distribution)
    for number in (2, 1):
        monkeypatch.syspath_prepend(folder / str(number))
    assert build_loss("work")(*BATCH) == 1


@pytest.mark.parametrize(
    ("line", "offered"),
    [("train --loss fo", "focal\n"), ("tra", "train\ntrace\n"), ("trace --n", "\n")],
)
def test_a_shell_is_offered_the_names_of_plugins_which_stay_unimported(
    folder, capsys, monkeypatch, line, offered
):
    code = "import sys; sys.exit('imported')"
    make_plugin(folder, code, group="losses", distribution="plug-a", name="focal")
    make_plugin(folder, code, distribution="plug-b", name="trace")
    monkeypatch.setenv("_UNETSEG_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"unetseg {line}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split())))
    assert app.main([]) == 0
    assert capsys.readouterr() == (offered, "")
