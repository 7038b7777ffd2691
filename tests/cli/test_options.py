"""Options of the commands: each default stands once, in the settings or in the library."""

import inspect
import sys
import types
from importlib import import_module
from typing import Annotated

import pytest

import unetseg
from unetseg.cli import app, options
from unetseg.errors import InputError, arg
from unetseg.settings import PatchSettings, PredictSettings, SynthSettings, TrainSettings


@pytest.fixture
def install(monkeypatch):
    """Return a function that makes its argument the only built-in command, called ``work``."""

    def install(function):
        module = types.ModuleType("stub_of_a_command")
        module.work = options.takes_settings(function)
        monkeypatch.setitem(sys.modules, "stub_of_a_command", module)
        monkeypatch.setattr(app, "BUILT_INS", {"work": ("stub_of_a_command", "Do the work")})
        monkeypatch.setenv("UNETSEG_NO_PLUGINS", "1")

    return install


@pytest.mark.parametrize("kind", options.OPTIONS, ids=lambda kind: kind.__name__)
def test_without_options_a_command_is_given_the_defaults_of_the_settings(kind, install):
    seen = []

    def work(*, settings: kind) -> None:
        seen.append(settings)

    install(work)
    assert app.main(["work"]) == 0
    assert seen == [kind()]


def test_options_become_the_fields_of_several_settings(install):
    seen = []

    def work(
        *, cut: Annotated[PatchSettings, ("size", "val")], settings: PredictSettings, n: int = 1
    ) -> None:
        seen.append((cut, settings, n))

    install(work)
    line = "work --size 96 --val 0 --largest cell --largest rod --tta --stride 30% --n 5"
    assert app.main(line.split()) == 0
    settings = PredictSettings(largest=("cell", "rod"), tta=True, stride="30%")
    assert seen == [(PatchSettings(size=96, val=0), settings, 5)]


def test_auto_can_be_written_out_and_anything_else_is_refused(install, capsys):
    seen = []

    def work(*, settings: PatchSettings) -> None:
        seen.append(settings)

    install(work)
    assert app.main(["work", "--size", "auto", "--per-image", "7"]) == 0
    assert seen == [PatchSettings(per_image=7)]
    assert app.main(["work", "--size", "big"]) == 2
    line = "unetseg: error: --size: 'big' is neither a whole number nor auto; see 'unetseg work"
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("text", ["0.2", "20%", "20 %", "2e-1"])
def test_a_share_can_be_written_as_a_percentage(install, tmp_path, text):
    seen = []

    def work(*, synth: Annotated[SynthSettings, ("contrast",)], cut: PatchSettings) -> None:
        seen.append((synth, cut))

    def learn(*, settings: Annotated[TrainSettings, ("ema",)]) -> None:
        seen.append((settings, None))

    install(work)
    assert app.main(["work", "--val", text, "--rare", text, "--contrast", text]) == 0
    path = tmp_path / "settings.toml"
    path.write_text(f'[work]\nval = "{text}"\nrare = "{text}"\ncontrast = "{text}"\n')
    assert app.main(["--config", str(path), "work"]) == 0
    assert seen == 2 * [(SynthSettings(contrast=0.2), PatchSettings(val=0.2, rare=0.2))]
    install(learn)
    assert app.main(["work", "--ema", text]) == 0
    assert seen[2:] == [(TrainSettings(ema=0.2), None)]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("120%", "1.2 is out of range; 0 to 0.95"),
        ("-5%", "-0.05 is out of range; 0 to 0.95"),
        ("nan", "nan is out of range; 0 to 0.95"),
        ("few", "'few' is neither a number nor a percentage, such as 20%; see 'unetseg work --he"),
        ("20%%", "'20%%' is neither a number nor a percentage, such as 20%; see 'unetseg work --"),
        ("%", "'%' is neither a number nor a percentage, such as 20%; see 'unetseg work --help'"),
    ],
)
def test_a_share_that_is_none_is_refused_in_one_line(install, capsys, text, problem):
    def work(*, settings: PatchSettings) -> None:
        raise AssertionError

    install(work)
    assert app.main(["work", f"--val={text}"]) == 2
    assert capsys.readouterr().err.startswith(f"unetseg: error: --val: {problem}")


def test_the_limit_of_a_conversion_is_a_share(empty, capsys):
    assert app.main(["convert", "no_folder", "out", "--limit", "7%"]) == 2
    assert "no_folder: " in capsys.readouterr().err
    assert app.main(["convert", "no_folder", "out", "--limit", "700%"]) == 2
    said = "unetseg: error: --limit: 7 is out of range; 0 to 1\n"
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("text", "typed", "problem"),
    [
        ("lr = -1", "--lr -1", "-1 is out of range; 1e-12 or more"),
        ('budget = "soon"', "--budget soon", "'soon' is no time; write 90s, 10m or 1h30m"),
        ("batch-size = 0", "--batch-size 0", "0 is out of range; 1 to 65536"),
        ('from = "nobody"', "--from nobody", "no such model"),
    ],
)
def test_an_error_names_the_option_or_the_file_that_gives_its_value(
    install, tmp_path, capsys, text, typed, problem
):
    def work(*, settings: TrainSettings, start_from: options.From = None) -> None:
        raise InputError(arg("start_from"), "no such model")

    install(work)
    assert app.main(["work", *typed.split()]) == 2
    option = typed.split()[0]
    assert capsys.readouterr().err == f"unetseg: error: {option}: {problem}\n"
    path = tmp_path / "settings.toml"
    path.write_text(f"[work]\n{text}\n")
    assert app.main(["--config", str(path), "work"]) == 2
    key = option.removeprefix("--")
    assert capsys.readouterr().err == f"unetseg: error: {path}: [work] {key}: {problem}\n"
    assert app.main(["--config", str(path), "work", *typed.split()]) == 2
    assert capsys.readouterr().err == f"unetseg: error: {option}: {problem}\n"


@pytest.mark.parametrize(
    ("command", "function", "parameters"),
    [
        ("synth", unetseg.synthesize, {"n": "n", "n_test": "n_test", "out": "out"}),
        ("convert", unetseg.convert_folder, {"limit": "limit"}),
        ("patch", unetseg.build_store, {"folder": "source", "out": "out"}),
        ("train", unetseg.train, {"run": "run"}),
        ("train", unetseg.cross_validate, {"run": "run"}),
        ("predict", unetseg.predict, {"out": "out", "format": "format"}),
        ("suggest", unetseg.suggest_images, {"n": "n", "out": "out"}),
        ("export", unetseg.export_onnx, {"out": "out"}),
    ],
)
def test_a_command_and_its_function_have_the_same_defaults(command, function, parameters):
    module, _ = app.BUILT_INS[command]
    typed = inspect.signature(getattr(import_module(module), command)).parameters
    called = inspect.signature(function).parameters
    for name, argument in parameters.items():
        assert str(typed[name].default) == str(called[argument].default), name
