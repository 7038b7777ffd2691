"""Results in a notebook: one line, the table of the terminal, plain types, a data frame."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import unetseg
from tests.support import QUICK, write_set
from unetseg.errors import InputError, arg
from unetseg.prediction.run_folder import RunFolder
from unetseg.results import Colour, Result, Table


@pytest.fixture(scope="module")
def results(made, tmp_path_factory):
    """One of each result, by name."""

    home = tmp_path_factory.mktemp("results") / "home"
    shutil.copytree(made, home)
    before = Path.cwd()
    os.chdir(home)
    try:
        write_set("set", 4, shape=(40, 36))
        patches = unetseg.PatchSettings(size=16, per_image=1)
        found = unetseg.evaluate("data/test")
        yield {
            "scores": found.scores,
            "evaluation": found,
            "predictions": unetseg.predict("data/test"),
            "inspection": unetseg.inspect_folder("data/train"),
            "store summary": unetseg.build_store(out="other.h5", patches=patches),
            "store": unetseg.open_store("data/patches.h5"),
            "run": RunFolder("default"),
            "model": unetseg.Model("default"),
            "comparison": unetseg.compare("default", "default", "data/test"),
            "folds": unetseg.cross_validate(
                "set", folds=2, run="folds", patches=patches, **{**QUICK, "epochs": 1}
            ),
            "training": unetseg.train(run="again", **{**QUICK, "epochs": 1}),
            "suggestions": unetseg.suggest_images("data/test", n=2),
            "classes": found.subject.classes,
        }
    finally:
        os.chdir(before)


NAMES = [
    "scores",
    "evaluation",
    "predictions",
    "inspection",
    "store-summary",
    "store",
    "run",
    "model",
    "comparison",
    "folds",
    "training",
    "suggestions",
    "classes",
]
of_each = pytest.mark.parametrize("name", [name.replace("-", " ") for name in NAMES])


@of_each
def test_a_result_is_one_short_line(results, name):
    line = repr(results[name])
    assert line.startswith(f"<{type(results[name]).__name__}: ")
    assert "\n" not in line
    assert len(line) < 200


@of_each
def test_a_notebook_shows_tables(results, name):
    html = results[name]._repr_html_()
    assert html.count("<table>") == html.count("</table>") >= 1
    assert "ground" in html or name in ("run", "suggestions")
    assert "\ufdd0" not in html


@of_each
def test_a_result_is_plain_types(results, name):
    json.dumps(results[name].to_dict(), allow_nan=False)


@of_each
def test_a_result_is_a_data_frame(results, name):
    frame = results[name].to_frame()
    assert len(frame) >= 1
    assert not any(isinstance(value, list | dict) for value in frame.iloc[0])


def test_a_frame_of_scores_has_a_row_a_class_in_numbers(results):
    frame = results["evaluation"].to_frame().set_index("class")
    scores = results["scores"]
    assert list(frame.index) == list(scores.classes)
    assert frame["iou"].to_dict() == scores.iou
    assert frame["pixels"].to_dict() == scores.pixels


def test_the_history_of_a_run_is_a_frame(results):
    frame = results["run"].to_frame()
    assert list(frame["epoch"]) == list(range(1, 13))
    assert frame["train_loss"].dtype == float


def test_the_summary_of_predictions_is_a_frame(results):
    frame = results["predictions"].to_frame()
    assert len(frame) == 3 * 3
    assert frame["pixels"].sum() == 3 * 64 * 56


def test_without_pandas_a_line_says_so(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pandas: .*not installed; pip install pandas"):
        results["scores"].to_frame()


def test_names_from_outside_are_no_markup():
    class One(Result):
        def tables(self):
            note = f"see {arg('scale', 0.5)}"
            return [Table("<b>", ["<i>"], [("<script>",), (Colour("#ff0000"),), (None,)], note)]

    html = One()._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "background: #ff0000" in html
    assert "scale=0.5" in html


def test_classes_are_counted_yielded_and_found_by_name(results):
    classes = results["classes"]
    assert len(classes) == 3
    assert [one.name for one in classes] == ["ground", "square", "stripe"]
    assert classes["square"].value == 1
    with pytest.raises(InputError, match="did you mean 'square'"):
        classes["sqare"]


def test_the_floor_is_the_score_of_the_most_common_class():
    from unetseg.scoring.baselines import most_common
    from unetseg.scoring.metrics import scores

    matrices = np.array([[[5, 1, 0], [2, 7, 0], [0, 0, 0]], [[3, 0, 0], [1, 1, 0], [0, 0, 0]]])
    found = scores(matrices, ["x", "y"], ["a", "b", "c"])
    assert found.floor == most_common(found, matrices.sum((0, 2))).scores.mean_iou
    assert scores(matrices * 0, ["x", "y"], ["a", "b", "c"]).floor is None
