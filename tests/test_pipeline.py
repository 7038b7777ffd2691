"""The command lines as a person types them, each in a process of its own."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support import write_set
from unetseg.cli import app
from unetseg.prediction.model_file import read_card

ROOT = Path(__file__).parents[1]
ENV = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "100",
}


def type_line(line, code=0, **options):
    """Type a line into a process of its own; return its output on stdout and on stderr."""
    words = [sys.executable, "-m", *line.split()]
    done = subprocess.run(words, env=ENV, capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == code, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def type_here(capsys, monkeypatch):
    """`type_line` in this process, which has its imports behind it."""
    monkeypatch.setenv("COLUMNS", "100")

    def type_line(line, code=0):
        capsys.readouterr()
        assert app.main(line.split()[1:]) == code, "".join(capsys.readouterr())
        return capsys.readouterr()

    return type_line


def test_the_five_lines_work_one_after_the_other_in_an_empty_folder(empty):
    out, _ = type_line("unetseg synth --n 100")
    assert out.endswith("Next:\n  unetseg patch\n")
    for part, count in (("train", 100), ("test", 10)):
        for kind in ("images", "masks"):
            assert len(list(Path("data", part, kind).glob("*.png"))) == count
        assert Path("data", part, "classes.toml").exists()

    out, _ = type_line("unetseg patch --size 96 --per-image 20")
    assert "100 images: 80 to train on, 20 held out whole" in out
    assert "1,600 patches of 96 x 96 pixels" in out
    assert out.endswith("Next:\n  unetseg train\n")

    out, err = type_line("unetseg train --epochs 1")
    assert read_card("runs/default/model.safetensors").scores["mean_iou"] > 0.7
    assert "mean IoU" in out
    assert "Next:\n  unetseg predict IMAGE_OR_FOLDER\n  unetseg evaluate\n" in out
    assert "patches a second" in err
    for name in (
        *("model.safetensors", "last.pt", "history.csv", "config.toml"),
        *("samples.png", "validation.png"),
    ):
        assert Path("runs/default", name).stat().st_size > 0

    shutil.copy("data/test/images/0003.png", "img.png")
    out, err = type_line("unetseg predict img.png --stride 48")
    assert "predicting img.png with runs/default/model.safetensors" in err
    assert "Wrote 1 mask to predictions" in out
    assert "look at predictions/overlays/img.png" in out
    with Image.open("predictions/img.png") as mask:
        assert mask.size == (200, 400)

    out, _ = type_line("unetseg evaluate")
    assert "10 images" in out
    for name in ("background", "line", "ellipse"):
        assert name in out


def test_a_folder_of_ones_own_is_trained_on_in_one_line(empty):
    write_set("MYFOLDER", 8, toml=None)
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import unetseg.training.run"], env=ENV, check=True)
    budget = 8 + 3 * round(time.monotonic() - begin)  # on a loaded machine imports take long
    begin = time.monotonic()
    out, _ = type_line(f"unetseg train MYFOLDER --budget {budget}s --width 4 --depth 2")
    assert time.monotonic() - begin < 2 * budget + 10
    assert "mean IoU" in out
    assert Path("runs/default/patches.h5").exists()
    card = read_card("runs/default/model.safetensors")
    assert card.finished
    assert card.patches_seen > 0
    Path("NEW").mkdir()
    shutil.copy("MYFOLDER/images/im3.png", "NEW/x.png")
    type_line("unetseg predict NEW/")
    assert Path("predictions/x.png").exists()
    out, _ = type_line("unetseg evaluate")
    assert "held out" in out


def test_errors_are_one_line_with_their_code(home, type_here):
    for line, code, said in (
        ("unetseg train", 2, "runs/default: holds a finished run; start another with: unetseg"),
        ("unetseg train --run x --resume", 2, "runs/x: nothing is saved there"),
        ("unetseg train --run x --lr 1e30 --width 4 --depth 2", 4, "the loss is not finite"),
        ("unetseg patch", 2, "data/patches.h5: already exists"),
        ("unetseg synth --out data --height 9", 2, "data/train: already holds labelled images"),
        ("unetseg predict nothing.png", 2, "nothing.png: not found"),
        ("unetseg evaluate --model nothing", 2, "nothing: no model of this name"),
    ):
        _, err = type_here(line, code)
        assert err.splitlines()[-1].startswith("unetseg: error: ")
        assert said in err.splitlines()[-1], line


def test_some_bad_images_of_several_are_code_5(home, type_here):
    Path("data/test/images/im101.png").write_text("no picture")
    out, err = type_here("unetseg predict data/test", 5)
    assert "Wrote 2 masks" in out
    assert "im101.png" in err
    assert "1 of 3 images failed; the rest are done" in err.splitlines()[-1]
    out, _ = type_here("unetseg predict data/test", 5)
    assert "2 were there already" in out


def test_masks_made_are_scored_by_the_line_that_predict_names_or_by_themselves(home, type_here):
    out, _ = type_here("unetseg predict data/test --model default")
    assert out.endswith("Next:\n  unetseg evaluate --model default\n")
    by_model, _ = type_here("unetseg evaluate --model default")
    by_masks, _ = type_here("unetseg evaluate --predictions predictions --model default")
    assert by_masks.splitlines()[1:] == by_model.splitlines()[1:]  # all but the heading
    _, err = type_here("unetseg evaluate --predictions predictions --tta", 2)
    assert "--tta: is of no use with --predictions" in err
    out, _ = type_here("unetseg evaluate --predictions predictions --include-trained", 2)
    out, _ = type_here("unetseg evaluate --classes data/train/classes.toml --ignore 2")
    assert "mean IoU" in out


def test_predict_says_where_its_table_is_and_what_an_option_lacks(home, type_here):
    out, _ = type_here(
        "unetseg predict data/test --mode seamless --min-size 9 --largest square --confidence"
    )
    assert "Wrote 3 masks to predictions; the table is predictions/summary.csv; look at" in out
    assert Path("predictions/confidence/im100.png").exists()
    out, _ = type_here("unetseg evaluate data/test --mode seamless --min-size 9 --largest square")
    assert "mean IoU" in out
    _, err = type_here("unetseg predict data/test --mode seamless --stride 8", code=2)
    assert err == ("unetseg: error: --stride: is for blended windows; leave it or --mode out\n")
    _, err = type_here("unetseg predict data/test --fill-holes sqare", code=2)
    assert "did you mean 'square'?" in err
    _, err = type_here("unetseg predict data/test --format gif", code=2)
    assert "one of auto, png, tif" in err


def test_scores_are_written_as_json_and_csv(home, type_here):
    out, _ = type_here("unetseg evaluate --json s.json --csv s.csv --confusion")
    data = json.loads(Path("s.json").read_text())
    assert data["images"] == 3
    rows = list(csv.DictReader(Path("s.csv").read_text().splitlines()))
    assert [r["image"] for r in rows] == ["im100", "im101", "im102"]
    for row, one in zip(rows, data["per_image"], strict=True):
        assert float(row["mean_iou"]) == pytest.approx(one["mean_iou"], abs=1e-6)
    assert f"mean IoU {data['mean_iou']:.4f}" in out
    _, err = type_here("unetseg evaluate --json s.json", 2)
    assert "s.json: already exists" in err


def test_results_go_to_stdout_and_quiet_leaves_them_alone(home, type_here):
    out, err = type_here("unetseg -q evaluate")
    assert "mean IoU" in out
    assert err == ""


def test_next_steps_carry_a_run_that_is_not_the_default(home, type_here):
    line = "unetseg train --epochs 1 --width 4 --depth 2"
    out, _ = type_here(f"{line} --run wide")
    assert "  unetseg predict IMAGE_OR_FOLDER --model wide\n  unetseg evaluate --model wide" in out
    out, _ = type_here(f"{line} --run {Path('far/default').absolute()}")
    assert f"unetseg evaluate --model {Path('far/default').absolute()}" in out
    type_here(f"unetseg evaluate --model {Path('far/default').absolute()}")


def test_touching_ellipses_are_converted_trained_on_and_scored_as_objects(empty, type_here):
    type_here("unetseg synth --touching --n 5 --n-test 1 --height 96 --width 96")
    type_here("unetseg convert data/train clean --instances")
    type_here("unetseg train clean --epochs 1 --network compact --width 4 --depth 2")
    type_here("unetseg evaluate data/test --objects all --json s.json")
    scored = json.loads(Path("s.json").read_text())["objects"]
    count = tifffile.imread("data/test/objects/0000.tif").max()
    assert scored["true_objects"] == {"ellipse": count}


def test_a_masks_value_is_painted_and_printed_where_no_classes_toml_is(empty, type_here):
    write_set("set", 4, values=(0, 128, 255), toml=None)
    _, err = type_here("unetseg patch set --out p.h5", 2)
    assert "--ignore 255" in err
    out, _ = type_here("unetseg patch set --out p.h5 --ignore 255 --val 0.25")
    assert 'name = "128"' in out
    assert "ignore = [255]" in out
    assert out.rstrip().endswith("unetseg train p.h5")


def test_the_example_of_the_package_runs(empty):
    import unetseg

    unetseg.synthesize("data", n=6, n_test=2, settings=unetseg.SynthSettings(64, 48))
    unetseg.build_store("data/train", "data/patches.h5", unetseg.PatchSettings(size=32))
    unetseg.train("data/patches.h5", run="first", epochs=1, width=4, depth=2, on_progress=print)
    unetseg.predict(["data/test"], model=["first"])
    scores = unetseg.evaluate("data/test", model=["first"]).scores
    assert 0 <= scores.mean_iou <= 1
    assert np.sum(scores.confusion) == 2 * 64 * 48
