"""How people call public functions in a notebook: one for several, keywords, reports, warnings."""

import contextlib
import inspect
import io
import re
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import unetseg
from tests.support import QUICK, write_set
from unetseg.arguments import public, reporting, several
from unetseg.errors import InputError
from unetseg.progress import EpochDone, Note, Progress, warn as warn_by_default

FUNCTIONS = [
    getattr(unetseg, name)
    for name in unetseg.__all__
    if inspect.isfunction(getattr(unetseg, name))
    and "on_progress" in inspect.signature(getattr(unetseg, name)).parameters
]
# Everything public that takes arguments, with values for those that it must be given.
CALLED = [getattr(unetseg, name) for name in unetseg.__all__ if "Settings" in name] + [
    value
    for name in unetseg.__all__
    if inspect.isfunction(value := getattr(unetseg, name)) or value is unetseg.Model
]
DUE = {
    **{"inputs": "new", "a": "first", "b": "second", "names": "first", "source": "set"},
    **{"path": "a.h5", "out": "out", "images": (), "classes": "names"},
    "result": unetseg.Report("", "", *[None] * 3),
}
# Values that no argument takes, made anew for each call.
WRONG = {
    "an object": object,
    "bytes": lambda: b"x",
    "a picture": lambda: np.zeros((4, 5, 3)),
    "a list of objects": lambda: [object()],
    "a generator of objects": lambda: (object() for _ in range(2)),
    "a complex number": lambda: 2j,
}


@public(unetseg.PatchSettings)
def work(source, *, on_progress=warn_by_default, **settings):
    """Do nothing but report."""
    on_progress(Note("a note"))
    on_progress(Progress("working", 1, 2, "steps"))
    on_progress(Note("a doubt", warning=True))
    return settings


def test_a_single_text_path_or_number_is_one():
    assert several("first") == ("first",)
    assert several(Path("a.png")) == (Path("a.png"),)
    assert several(255) == (255,)
    assert several(["a", "b"]) == several(x for x in "ab") == ("a", "b")


def test_one_name_is_enough_for_every_function_that_takes_several(home):
    done = unetseg.predict("data/test/images/im100.png", model=Path("runs/default"))
    assert [path.name for path in done.written] == ["im100.png"]
    found = unetseg.evaluate("data/test", model="default", only="im101")
    assert found.scores.names == ("im101",)
    assert len(unetseg.Model("default").cards) == 1
    settings = unetseg.PredictSettings(largest="square", fill_holes=["stripe"], stride=16)
    assert (settings.largest, settings.fill_holes) == (("square",), ("stripe",))
    assert settings.stride == "16"
    assert unetseg.PatchSettings(channels=[0, 2]).channels == "0,2"
    assert unetseg.inspect_folder("data/test", ignore=2).table.names == ("ground", "square")


def test_settings_are_keywords_that_help_and_the_tab_key_find():
    for function in (unetseg.train, unetseg.cross_validate):
        parameters = inspect.signature(function).parameters
        assert {field.name for field in fields(unetseg.TrainSettings)} <= parameters.keys()
        assert parameters["optimizer"].default == "muon"
        assert "settings" not in parameters
    assert "batch_size" in inspect.getdoc(unetseg.TrainSettings)


def test_help_says_a_sentence_on_each_setting_below_the_argument_that_takes_it():
    told = {
        unetseg.train: (unetseg.PatchSettings, unetseg.TrainSettings),
        unetseg.cross_validate: (unetseg.PatchSettings, unetseg.TrainSettings),
        unetseg.build_store: (unetseg.PatchSettings,),
        unetseg.predict: (unetseg.PredictSettings,),
        unetseg.evaluate: (unetseg.PredictSettings,),
        unetseg.compare: (unetseg.PredictSettings,),
        unetseg.suggest_images: (unetseg.PredictSettings,),
        unetseg.synthesize: (unetseg.SynthSettings,),
    }
    for function, kinds in told.items():
        listed = re.findall(r"^ {8}([a-z_]+): ", function.__doc__, re.M)
        assert listed == [field.name for kind in kinds for field in fields(kind)]
        assert max(map(len, function.__doc__.splitlines())) <= 96
    lines = unetseg.train.__doc__.splitlines()
    place = lines.index("        lr: Highest learning rate; None takes the optimizer's default.")
    assert lines[place - 1] == "        batch_size: Patches a step, over all devices together."


def test_the_choices_of_a_setting_stand_in_its_description():
    doc = inspect.getdoc(unetseg.TrainSettings)
    assert 'network: One of "fused", "compact", "classic", or a plug-in\'s network.' in doc
    assert not re.search("`[A-Z]+`", doc + inspect.getdoc(unetseg.PatchSettings))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_an_unknown_keyword_names_the_nearest_one(function):
    with pytest.raises(InputError, match="did you mean 'on_progress'"):
        function(on_progres=None)


def test_an_unknown_setting_is_no_error_of_a_class():
    with pytest.raises(InputError, match="epoch: is no argument of train; did you mean 'epochs'"):
        unetseg.train(epoch=1)


def test_a_setting_says_in_which_argument_it_belongs():
    with pytest.raises(InputError, match=r"size: .*; pass patches=unetseg.PatchSettings\(size="):
        unetseg.build_store("data/train", "p.h5", size=64)
    with pytest.raises(InputError, match=r"pass settings=unetseg.PredictSettings\(min_size="):
        unetseg.evaluate("data/test", min_size=2)


def test_a_budget_is_read_as_the_command_reads_it(empty):
    assert unetseg.TrainSettings(budget="1m30s").budget == 90
    with pytest.raises(InputError, match="budget: 'soon' is no time"):
        unetseg.train(budget="soon")
    write_set("data/train", 5)
    run = unetseg.train(
        "data/train",
        patches=unetseg.PatchSettings(size=32, per_image=2),
        **{**QUICK, "epochs": None, "budget": "8s"},
    )
    assert run.scores is not None


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lr": "0.1"}, "lr: '0.1' is not a number"),
        ({"epochs": 1.5}, "epochs: 1.5 is not a whole number"),
        ({"epochs": True}, "epochs: True is not a whole number"),
        ({"optimizer": 3.5}, "optimizer: 3.5 is not a text"),
        ({"network": write_set}, "network: is a function.*plug-in"),
        ({"loss": lambda: None}, "loss: is a function.*plug-in"),
        ({"augment": print}, "augment: is a function.*plug-in"),
    ],
)
def test_a_setting_of_another_type_is_refused_in_one_line(settings, problem):
    with pytest.raises(InputError, match=problem):
        unetseg.TrainSettings(**settings)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("function", CALLED, ids=lambda f: f.__name__)
def test_every_argument_says_in_one_line_that_a_value_is_of_another_type(function, wrong, empty):
    parameters = inspect.signature(function).parameters
    due = {n: DUE[n] for n, one in parameters.items() if one.default is inspect.Parameter.empty}
    for name in parameters:
        with pytest.raises(InputError) as caught:
            function(**{**due, name: WRONG[wrong]()})
        assert caught.value.argument == name
        assert len(str(caught.value)) < 200
    assert list(Path.cwd().iterdir()) == []  # nothing was begun


def test_a_list_may_be_whatever_yields_its_values(home):
    stems = np.array(["im100", "im101"])
    for some in (stems, set(stems), iter(stems), dict.fromkeys(stems).keys()):
        assert (
            len(unetseg.evaluate("data/test", model=iter(["default"]), only=some).scores.names) == 2
        )
    found = unetseg.inspect_folder(Path("data/test"), ignore=np.array([2]))
    assert found.table.names == ("ground", "square")


def test_settings_may_be_a_dictionary(home):
    settings = {"batch_size": np.int64(2), "largest": ["square"]}
    assert unetseg.Model("default", settings).settings == unetseg.PredictSettings(**settings)
    with pytest.raises(
        InputError, match="sise: is no argument of PatchSettings; did you mean 'size'"
    ):
        unetseg.build_store("data/train", "p.h5", {"sise": 64})


def test_a_picture_in_the_place_of_a_path_is_told_where_pictures_go(empty):
    picture = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(InputError) as caught:
        unetseg.predict(picture)
    assert str(caught.value) == (
        "inputs: an array of the shape (4, 5, 3) is not a path or a list of them; "
        "give paths; for an array there is unetseg.Model(...).labels(array)"
    )
    with pytest.raises(
        InputError, match=r"^source: an array of the shape .* is not a path or None"
    ):
        unetseg.train(picture)


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_a_text_that_names_no_file_is_no_path(text, empty):
    for call in (unetseg.train, unetseg.predict, unetseg.synthesize, unetseg.Model):
        with pytest.raises(InputError, match=r"is no path; give '.' for the current folder"):
            call(text)


def test_a_method_says_which_argument_of_its_class_takes_a_setting(home):
    with pytest.raises(InputError) as caught:
        unetseg.Model("default").labels("data/test/images/im100.png", convert_depth=True)
    assert str(caught.value) == (
        "convert_depth: is no argument of Model.labels; "
        "pass settings=unetseg.PredictSettings(convert_depth=...) to Model"
    )


@pytest.mark.parametrize(
    ("call", "word", "remedy"),
    [
        (unetseg.train, "learning_rate", "did you mean 'lr'?"),
        (unetseg.train, "batch", "did you mean 'batch_size'?"),
        (unetseg.train, "n_epochs", "did you mean 'epochs'?"),
        (unetseg.train, "gpu", "did you mean 'device'?"),
        (unetseg.train, "imgsz", "pass patches=unetseg.PatchSettings(size=...)"),
        (unetseg.cross_validate, "n_folds", "did you mean 'folds'?"),
        (unetseg.predict, "gpu", "pass settings=unetseg.PredictSettings(device=...)"),
        (unetseg.predict, "output_dir", "did you mean 'out'?"),
        (unetseg.PatchSettings, "sise", "did you mean 'size'?"),
        (unetseg.PatchSettings, "img_size", "did you mean 'size'?"),
        (unetseg.TrainSettings, "random_state", "did you mean 'seed'?"),
    ],
)
def test_the_name_that_other_programs_give_is_understood(call, word, remedy):
    due = {"inputs": "new"} if call is unetseg.predict else {}
    with pytest.raises(InputError) as caught:
        call(**due, **{word: 1})
    assert (caught.value.what, caught.value.remedy) == (word, remedy)


def test_numbers_of_numpy_become_those_of_python():
    settings = unetseg.TrainSettings(epochs=np.int64(3), lr=np.float32(0.5), seed=np.uint8(1))
    assert [type(x) for x in (settings.epochs, settings.lr, settings.seed)] == [int, float, int]


def test_a_warning_is_one_of_python_at_the_line_of_the_caller():
    with pytest.warns(unetseg.UnetsegWarning, match="^a doubt$") as caught:
        assert work("set", size=64) == {"size": 64}
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_none_is_silent(capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work("set", on_progress=None)
    assert not caught
    assert capfd.readouterr() == ("", "")


def test_print_gets_a_line_an_epoch():
    row = {"epoch": 1, "val_mean_iou": 0.5, "train_loss": 1.0, "patches_per_second": 8.0}
    with contextlib.redirect_stdout(io.StringIO()) as out, reporting(print) as report:
        for done in range(100):
            report(Progress("training", done, 100, "patches"))
        report(EpochDone(row, 60))
    assert out.getvalue() == (
        "epoch 1: loss 1.0000, held-out mean IoU 0.5000, 8 patches a second, 1 min left\n"
    )


def test_a_function_gets_all_reports():
    records = []
    work("set", on_progress=records.append)
    assert [type(record) for record in records] == [Note, Progress, Note]


def test_a_bar_is_a_word(capfd):
    work("set", on_progress="bar")
    assert capfd.readouterr().err.splitlines() == ["a note", "warning: a doubt"]


def test_another_word_for_progress_is_refused():
    with pytest.raises(InputError, match="on_progress: 'lines' is no way to report"):
        work("set", on_progress="lines")


@pytest.mark.parametrize(
    ("function", "name", "home"),
    [
        ("train", "folds", "cross_validate"),
        ("evaluate", "objects_of", ""),
        ("train", "boundary", "evaluate"),
    ],
)
def test_an_argument_of_one_other_function_leads_to_it(function, name, home):
    with pytest.raises(InputError, match=f"{name}: is no argument of {function}") as caught:
        getattr(unetseg, function)(**{name: 5})
    assert (f"unetseg.{home} takes it" in str(caught.value)) == bool(home)
