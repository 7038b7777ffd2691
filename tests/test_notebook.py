"""A notebook as a person writes it: the output of its cells, in a kernel of its own."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
CELLS = {
    "set": """
        import unetseg
        unetseg.synthesize("data", n=8, n_test=2, settings=unetseg.SynthSettings(80, 64))
        unetseg.inspect_folder("data/train")""",
    "store": "unetseg.build_store(patches=unetseg.PatchSettings(size=32, per_image=4))",
    "bar": """
        run = unetseg.train(
            run="first", network="compact", width=8, depth=2, epochs=6, on_progress="bar"
        )
        run""",
    "lines": """
        unetseg.train(
            run="lines", network="compact", width=4, depth=1, epochs=2, on_progress=print
        ).line()""",
    "predict": 'unetseg.predict("data/test", model="first", on_progress=None)',
    "evaluate": 'found = unetseg.evaluate("data/test", model="first")\nfound',
    "frame": "found.to_frame()",
    "model": 'unetseg.Model("first")',
    "labels": 'unetseg.Model("first").labels("data/test/images/0000.png").shape',
    "warning": 'unetseg.evaluate("data/train", model="first").line()',
    "tab": """
        offered = lambda text: get_ipython().kernel.do_complete(text, len(text))["matches"]
        offered("unetseg.train(batch_s"), offered("unetseg.cross_v")""",
    "error": "unetseg.train(run='first', epochs=1)",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """The outputs of each cell: dictionaries as a notebook file holds them."""
    sources = ["\n".join(line[8:] if line[:8].isspace() else line for line in text.splitlines())
               for text in CELLS.values()]  # fmt: skip
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    notebook.cells[-1].metadata["tags"] = ["raises-exception"]
    place = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("IPYTHONDIR", str(place / "ipython"))
        resources = {"metadata": {"path": str(place)}}
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    nbformat.write(notebook, place / "looked-at.ipynb")
    return {name: cell.outputs for name, cell in zip(CELLS, notebook.cells, strict=True)}


def shown(outputs):
    """Return (one line, HTML) of the last line of a cell."""
    (result,) = (one for one in outputs if one.output_type == "execute_result")
    return result.data["text/plain"], result.data.get("text/html", "")


def printed(outputs):
    return "".join(one.text for one in outputs if one.output_type == "stream")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("set", "Inspection"),
        ("store", "StoreSummary"),
        ("bar", "TrainResult"),
        ("predict", "Predictions"),
        ("evaluate", "Evaluation"),
        ("model", "Model"),
    ],
)
def test_a_result_is_a_line_and_a_table(cells, name, kind):
    line, html = shown(cells[name])
    assert re.fullmatch(f"<{kind}: .+>", line)
    assert "<table>" in html
    assert "ellipse" in html


def test_no_cell_but_the_wrong_one_has_a_traceback(cells):
    wrong = {name for name, out in cells.items() if any(o.output_type == "error" for o in out)}
    assert wrong == {"error"}


def test_an_evaluation_shows_the_table_of_the_terminal(cells):
    line, html = shown(cells["evaluate"])
    assert "mean IoU 0." in line
    for word in ("first on data/test: 2 images", "Dice", "recall", "95 %", "background"):
        assert word in html


def test_a_frame_is_one_of_pandas(cells):
    line, html = shown(cells["frame"])
    assert "dataframe" in html
    assert line.splitlines()[0].split()[:2] == ["class", "iou"]


def test_a_bar_shows_the_epochs_and_is_gone_at_the_end(cells):
    *_, live, _ = [one for one in cells["bar"] if one.output_type != "stream"]
    text = live.data["text/plain"]
    assert "epoch" in text
    assert "patches/s" in text
    assert "training" not in text
    assert "<pre" in live.data["text/html"]


def test_print_prints_a_line_an_epoch(cells):
    lines = printed(cells["lines"]).splitlines()
    assert sum(line.startswith("epoch ") for line in lines) == 2
    assert len(lines) <= 6


def test_none_prints_nothing(cells):
    assert printed(cells["predict"]) == ""


def test_a_warning_is_one_of_python(cells):
    assert "UnetsegWarning: 6 of 8 images were trained on, left out; 2 scored" in printed(
        cells["warning"]
    )


def test_labels_have_the_size_of_the_image(cells):
    assert shown(cells["labels"])[0] == "(80, 64)"


def test_the_tab_key_finds_settings_and_names(cells):
    settings, names = eval(shown(cells["tab"])[0])
    assert any("batch_size=" in name for name in settings)
    assert any(name.endswith("cross_validate") for name in names)


def test_an_error_speaks_of_arguments(cells):
    (error,) = cells["error"]
    assert error.ename == "InputError"
    assert "overwrite=True" in error.evalue
    assert "unetseg train" not in error.evalue
