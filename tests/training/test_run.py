"""Training: the files of a run, how it goes on, and when it refuses to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image

import unetseg
from tests.support import (
    NAMES,
    QUICK,
    VALUES_TOML,
    assert_equal_runs,
    at_patches,
    at_step,
    draw,
    rows_of,
    stopping,
    typed,
    weights,
    write_image,
    write_set,
)
from unetseg.errors import DivergenceError, InputError, Interrupted, MachineError
from unetseg.network.optimizers import DEFAULT_LR, rate_at
from unetseg.network.unet import build_network
from unetseg.prediction.model_file import load_model, read_card
from unetseg.prediction.run_folder import RunFolder
from unetseg.progress import EpochDone, Note, Plan, Progress
from unetseg.signals import exiting
from unetseg.training import starting
from unetseg.training.checkpoint import read_checkpoint
from unetseg.training.clock import StepClock

ROOT = Path(__file__).parents[2]
STORE = "data/patches.h5"
# Patches 36, so 5 steps of 8 an epoch; held-out images are scored after every epoch.
RUN = {**QUICK, "epochs": 3, "validate": 1, "seed": 7}


def notes(run):
    """Return (result of ``run(on_progress)``, the records it reported)."""
    seen = []
    return run(seen.append), seen


# --- the files of a run ----------------------------------------------------------------------


def test_history_has_the_columns_of_the_design_and_counts_up(home):
    rows = rows_of("default")
    assert list(rows[0]) == [
        *("epoch", "step", "seconds", "patches", "lr", "train_loss", "val_loss", "val_mean_iou"),
        *(f"iou_{name}" for name in NAMES),
        "patches_per_second",
    ]
    assert [int(r["epoch"]) for r in rows] == list(range(1, 13))
    assert [int(r["step"]) for r in rows] == [5 * k for k in range(1, 13)]  # 36 patches by 8
    assert [int(r["patches"]) for r in rows] == [36 * k for k in range(1, 13)]
    seconds = [float(r["seconds"]) for r in rows]
    assert seconds == sorted(seconds)
    assert rows[-1]["val_mean_iou"]


def test_training_learns_what_is_easy(home):
    rows = rows_of("default")
    assert float(rows[-1]["train_loss"]) < 0.7 * float(rows[0]["train_loss"])
    assert float(rows[-1]["val_mean_iou"]) > 0.6


def test_model_carries_what_its_reader_needs(home):
    card = read_card("runs/default/model.safetensors")
    assert card.finished
    assert card.kept == "final"
    assert card.classes.names == NAMES
    assert (card.channels, card.dtype, card.patch_size, card.scale) == (1, "uint8", 32, 1.0)
    assert card.patches_seen == 12 * 36
    assert len(card.sources) == 12
    assert sum(s.split == "val" for s in card.sources) == 3
    assert card.scores["images"] == 3
    assert float(rows_of("default")[-1]["val_mean_iou"]) == pytest.approx(
        card.scores["mean_iou"], abs=1e-5
    )


def test_the_model_is_the_averaged_weights_and_not_the_last_ones(home):
    saved = read_checkpoint("runs/default/last.pt")
    model = weights("default")
    for name, value in model.items():
        np.testing.assert_array_equal(saved["average"][f"module.{name}"].numpy(), value)
    differing = [n for n, v in saved["network"].items() if not np.array_equal(v.numpy(), model[n])]
    assert any("weight" in name for name in differing)


def test_without_averaging_the_model_is_the_last_weights(home):
    unetseg.train(run="plain", **{**QUICK, "epochs": 1, "ema": 0.0})
    saved, model = read_checkpoint("runs/plain/last.pt"), weights("plain")
    for name, value in saved["network"].items():
        np.testing.assert_array_equal(value.numpy(), model[name])


def test_pictures_have_the_sizes_of_what_they_show(home):
    samples = Image.open("runs/default/samples.png")
    # One batch of 8 patches in a row, 4 white pixels between; each above its mask, 2 pixels apart.
    # The heading above is wider; the legend below has two rows.
    assert samples.size == (335, 28 + 32 + 2 + 32 + 42)
    sheet = np.asarray(samples)[28 : 28 + 66]
    white = (sheet == 255).all((0, 2))
    assert np.flatnonzero(white).tolist() == [
        *(36 * i + 32 + j for i in range(8) for j in range(4)),
        *range(8 * 36, 335),
    ]
    validation = Image.open("runs/default/validation.png")
    assert validation.size[0] >= 3 * 56  # image, truth, prediction side by side
    assert validation.size[1] >= 3 * 64  # a row for each of 3 images; a legend may be below
    assert samples.mode == validation.mode == "RGB"


def test_settings_are_written_as_a_file_that_the_command_takes(home):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unetseg", "--config", "runs/default/config.toml"]
    again = [*command, "train", "--run", "again", "--epochs", "1"]
    done = subprocess.run(again, env=env, text=True, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    first, second = (
        read_checkpoint(f"runs/{run}/last.pt")["settings"] for run in ("default", "again")
    )
    assert {k: (first[k], second[k]) for k in first if first[k] != second[k]} == {"epochs": (12, 1)}


def test_settings_of_the_library_alone_stay_out_of_the_file_for_the_command(home):
    unetseg.train(run="own", **{**QUICK, "epochs": 1, "validate": 1})
    from unetseg.cli import app

    assert app.main(["--config", "runs/own/config.toml", "train", "--run", "own", "--resume"]) == 0


def test_equal_seeds_give_equal_runs_and_other_seeds_others(home):
    for run, seed in (("a", 5), ("b", 5), ("c", 6)):
        unetseg.train(run=run, **{**QUICK, "epochs": 1, "seed": seed})
    assert_equal_runs("a", "b")
    assert any(not np.array_equal(weights("a")[k], weights("c")[k]) for k in weights("a"))


def test_the_rate_of_an_epoch_is_the_schedules_at_its_last_step(home):
    unetseg.train(run="lr", **{**QUICK, "lr": 0.01})
    # 2 epochs of 5 steps: the last of them are taken at 4/10 and 9/10 of the training
    expected = [0.01 * rate_at("one-cycle", p) for p in (0.4, 0.9)]
    assert [float(r["lr"]) for r in rows_of("lr")] == pytest.approx(expected, rel=1e-4)


def test_validations_at_intervals_leave_cells_empty_and_the_last_row_full(home):
    unetseg.train(run="v", **{**QUICK, "epochs": 5, "validate": 2})
    filled = [bool(r["val_mean_iou"]) for r in rows_of("v")]
    assert filled == [False, True, False, True, True]


@pytest.mark.usefixtures("processor_time")
def test_plan_comes_first_and_every_epoch_is_reported(home):
    _, seen = notes(lambda p: unetseg.train(run="n", **QUICK, on_progress=p))
    seen = [record for record in seen if not isinstance(record, Note)]
    assert isinstance(seen[0], Plan)
    assert (seen[0].patches, seen[0].epochs, seen[0].resumed) == (36, 2, 0)
    assert seen[0].memory == 36 * (32 + 2 * 7) ** 2 * 2  # an image byte and a mask byte a pixel
    done = [r for r in seen if isinstance(r, EpochDone)]
    assert [r.row["epoch"] for r in done] == [1, 2]
    assert done[-1].seconds_left == pytest.approx(0, abs=0.5)
    assert all(str(r) for r in seen)


def test_the_bar_and_the_line_of_an_epoch_have_the_time_left_of_the_clock(home, monkeypatch):
    monkeypatch.setattr(StepClock, "left", lambda clock: 100.0 - clock.share)
    _, seen = notes(lambda p: unetseg.train(run="left", **QUICK, on_progress=p))
    (plan,) = (record for record in seen if isinstance(record, Plan))
    bar = [r.seconds_left for r in seen if isinstance(r, Progress) and r.stage == "training"]
    lines = [record.seconds_left for record in seen if isinstance(record, EpochDone)]
    assert plan.seconds == 100
    assert bar == pytest.approx([100.0 - step / 10 for step in range(10)])  # before each step
    assert lines == [99.5, 99.0]


@pytest.mark.parametrize(
    "look",
    [
        {"channels": 3},
        {"channels": 1, "dtype": np.uint16},
        {"channels": 5, "dtype": np.uint16},
        {"channels": 2, "dtype": np.float32},
    ],
    ids=["rgb", "grey16", "five-channels", "float"],
)
def test_images_of_many_kinds_train_and_predict(empty, look):
    write_set("set", 4, **look)
    settings = unetseg.PatchSettings(size=32, per_image=4)
    result = unetseg.train("set", patches=settings, run="kind", **{**QUICK, "epochs": 1})
    assert result.scores.mean_iou is not None
    done = unetseg.predict(["set/images"], model=["kind"])
    assert len(done.written) == 4
    assert np.array(Image.open(done.written[0])).shape == (64, 56)


def test_ignored_pixels_are_neither_trained_on_nor_scored(empty):
    write_set("set", 5, ignored=9, toml=f"ignore = [9]\n{VALUES_TOML}")
    patches = unetseg.PatchSettings(size=32, per_image=4)
    result = unetseg.train("set", patches=patches, run="ign", **{**QUICK, "epochs": 1})
    assert result.scores.confusion.sum() == len(result.names) * (64 - 5) * 56


def test_a_patch_of_ignored_pixels_alone_does_no_harm(empty):
    write_set("set", 4, toml=None)
    for path in Path("set/masks").glob("im*.png"):
        mask = np.array(Image.open(path))
        mask[:58], mask[58:, :20] = 7, 1
        Image.fromarray(mask).save(path)
    patches = unetseg.PatchSettings(size=16, per_image=12, rare=0)
    result = unetseg.train(
        "set", patches=patches, ignore=(7,), **{**QUICK, "batch_size": 1, "epochs": 1}
    )
    assert all(np.isfinite(v).all() for v in weights("default").values())
    assert result.patches == 36


def test_no_held_out_image_is_no_score_and_no_error(empty):
    write_set("set", 3)
    patches = unetseg.PatchSettings(size=32, per_image=2, val=0)
    result = unetseg.train("set", patches=patches, **{**QUICK, "epochs": 1})
    assert result.scores is None
    assert rows_of("default")[-1]["val_mean_iou"] == ""
    assert not Path("runs/default/validation.png").exists()
    with pytest.raises(InputError, match="patience"):
        unetseg.train("set", run="p", patches=patches, **{**QUICK, "epochs": 1, "patience": 1})


# --- going on --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def straight_once(made, tmp_path_factory):
    home = shutil.copytree(made, tmp_path_factory.mktemp("straight") / "home")
    before = Path.cwd()
    os.chdir(home)
    try:
        unetseg.train(run="straight", **RUN)
    finally:
        os.chdir(before)
    return home / "runs/straight"


@pytest.fixture
def straight(straight_once, home):
    """The run ``straight`` beside the others: `RUN` without a stop."""
    shutil.copytree(straight_once, home / "runs/straight")


@pytest.mark.parametrize(
    ("when", "step"),
    [
        (at_patches(8), 1),
        (at_patches(24), 3),
        (at_patches(36), 5),
        (lambda r: isinstance(r, EpochDone) and r.row["epoch"] == 1, 6),
        (lambda r: isinstance(r, Progress) and r.stage == "scoring", 5),
        (at_patches(108), 15),
        (lambda r: isinstance(r, EpochDone) and r.row["epoch"] == 3, 15),
    ],
    ids=[
        "first-step", "mid-epoch", "last-step-of-an-epoch", "between-epochs", "validation",
        "very-last-step", "last-validation",
    ],
)  # fmt: skip
def test_a_stopped_run_goes_on_to_the_same_bits(straight, home, when, step):
    with pytest.raises(Interrupted) as stop:
        unetseg.train(run="stopped", **RUN, on_progress=stopping(when))
    assert stop.value.exit_code == 128 + signal.SIGTERM
    assert "unetseg train --resume --run stopped" in typed(stop.value)
    assert "unetseg.train(run='stopped', resume=True)" in str(stop.value)
    assert read_checkpoint("runs/stopped/last.pt")["position"]["step"] == step
    assert not read_card("runs/stopped/model.safetensors").finished
    unetseg.train(run="stopped", resume=True)
    assert_equal_runs("straight", "stopped")


def test_a_run_stopped_again_and_again_goes_on_to_the_same_bits(straight, home):
    settings = RUN
    for patches in (16, 40, 72, 100, 108):
        with pytest.raises(Interrupted):
            unetseg.train(run="often", **settings, on_progress=stopping(at_step(patches)))
        settings = {"resume": True}
    unetseg.train(run="often", resume=True)
    assert_equal_runs("straight", "often")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_precision_is_resumed_to_the_same_bits(home, precision):
    settings = {**RUN, "precision": precision}
    unetseg.train(run="whole", **settings)
    with pytest.raises(Interrupted):
        unetseg.train(run="halves", **settings, on_progress=stopping(at_patches(24)))
    unetseg.train(run="halves", resume=True)
    assert_equal_runs("whole", "halves")


def test_convolutions_are_trained_in_the_precision_asked_for_and_weights_in_float32(
    home, monkeypatch
):
    seen = set()

    def watched(*arguments, **settings):
        network = build_network(*arguments, **settings)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(lambda module, _, found: seen.add(found.dtype))
        return network

    monkeypatch.setattr(starting, "build_network", watched)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        seen.clear()
        run = f"in-{precision}"
        unetseg.train(run=run, **{**RUN, "epochs": 1, "validate": 2, "precision": precision})
        assert dtype in seen
        assert all(value.dtype == np.float32 for value in weights(run).values() if value.ndim > 1)


@pytest.mark.parametrize(
    ("found", "precision"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True}, "bfloat16"), ({}, "float32")],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_what_it_became_is_recorded(
    home, monkeypatch, found, precision
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    seen = []
    unetseg.train(run="auto", **{**QUICK, "epochs": 1}, on_progress=seen.append)
    (plan,) = [record for record in seen if isinstance(record, Plan)]
    assert plan.device == f"the CPU (1 thread), {precision}"
    config = (home / "runs/auto/config.toml").read_text()
    assert f'precision = "{precision}"' in config


def test_a_killed_run_goes_on_from_what_it_saved_last(straight, home):
    class Killed(BaseException):
        pass

    def die(record):
        if isinstance(record, Progress) and record.stage == "training" and record.done > 40:
            raise Killed

    with pytest.raises(Killed):
        unetseg.train(run="killed", **RUN, on_progress=die)
    unetseg.train(run="killed", resume=True)
    assert_equal_runs("straight", "killed")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_ctrl_c_saves_and_says_how_to_go_on(straight, home):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unetseg", "train", "--run", "typed", "--epochs", "100000"]
    command += ["--width", "4", "--depth", "2", "--device", "cpu"]
    with subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for line in process.stderr:
            if "epoch 1" in line:
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.strip().endswith("go on with: unetseg train --resume --run typed")
    assert read_checkpoint("runs/typed/last.pt")["position"]["step"] > 0


@pytest.mark.usefixtures("processor_time")
@pytest.mark.usefixtures("processor_time")
def test_a_stop_while_a_budget_run_is_scored_leaves_a_run_that_can_be_finished(home):
    def when(record):
        return isinstance(record, Progress) and record.stage == "scoring"

    settings = {**QUICK, "budget": 6.0}
    del settings["epochs"]
    with pytest.raises(Interrupted):
        unetseg.train(run="b", **settings, on_progress=stopping(when))
    result = unetseg.train(run="b", resume=True)
    assert read_card("runs/b/model.safetensors").finished
    assert result.scores


@pytest.mark.usefixtures("processor_time")
def test_a_stopped_budget_run_goes_on_with_the_rest_of_its_schedule(home):
    settings = {**QUICK, "budget": 10.0}
    del settings["epochs"]
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        unetseg.train(
            run="b", **settings, on_progress=stopping(lambda _: time.monotonic() > begin + 5.5)
        )
    before = read_checkpoint("runs/b/last.pt")["seconds"]
    unetseg.train(run="b", resume=True)
    rates = [float(r["lr"]) for r in rows_of("b") if float(r["seconds"]) > 0.3 * 10]
    assert rates == sorted(rates, reverse=True)  # the warm-up is not done again
    assert before < float(rows_of("b")[-1]["seconds"]) < 10


# --- states of the folder --------------------------------------------------------------------


def test_state_new_starts_and_has_nothing_to_resume(home):
    with pytest.raises(InputError, match="nothing is saved"):
        unetseg.train(run="fresh", resume=True)
    unetseg.train(run="fresh", **{**QUICK, "epochs": 1})
    assert read_card("runs/fresh/model.safetensors").finished


def test_state_interrupted_refuses_and_prints_both_lines(home):
    with pytest.raises(Interrupted):
        unetseg.train(run="half", **RUN, on_progress=stopping(at_step(10)))
    with pytest.raises(InputError) as refused:
        unetseg.train(run="half", **RUN)
    assert "unetseg train --resume --run half" in typed(refused.value)
    assert "--run half --overwrite" in typed(refused.value)
    unetseg.train(run="half", overwrite=True, **{**RUN, "epochs": 1})
    assert len(rows_of("half")) == 1


def test_state_finished_refuses_and_names_another_run(home):
    before = Path("runs/default/model.safetensors").read_bytes()
    with pytest.raises(InputError, match="run='default-2', or overwrite=True"):
        unetseg.train(**QUICK)
    result = unetseg.train(resume=True)
    assert result.already
    assert result.patches == 12 * 36
    assert Path("runs/default/model.safetensors").read_bytes() == before


def test_state_running_refuses_and_says_who(home):
    refused = []

    def second(record):
        if isinstance(record, Plan):
            for resume in (False, True):
                with pytest.raises(MachineError) as error:
                    unetseg.train(run="busy", resume=resume)
                refused.append(str(error.value))

    unetseg.train(run="busy", **{**QUICK, "epochs": 1}, on_progress=second)
    assert len(refused) == 2
    assert all(f"in use by process {os.getpid()} on " in text for text in refused)


def test_a_signal_while_a_failed_run_lets_go_of_its_folder_does_not_hide_the_failure(
    home, monkeypatch
):
    locked = RunFolder.locked

    @contextmanager
    def signalled(folder):
        with locked(folder):
            try:
                yield
            finally:
                signal.raise_signal(signal.SIGTERM)

    def fail(_):
        raise LookupError("the reason")

    monkeypatch.setattr(RunFolder, "locked", signalled)
    with exiting(), pytest.raises(LookupError, match="the reason"):
        unetseg.train(run="failed", **QUICK, on_progress=fail)


@pytest.mark.parametrize(
    ("wrong", "listed"),
    [
        ({"lr": 0.5}, f"lr {DEFAULT_LR['muon']} -> 0.5"),
        ({"epochs": 9, "seed": 8}, "epochs 3 -> 9, seed 7 -> 8"),
        ({"network": "classic"}, "network compact -> classic"),
        ({"patches": unetseg.PatchSettings(48, 4, 0.25)}, "size as it was -> 48"),
        ({"ignore": (2,)}, "ignore as it was -> [2]"),
        ({"start_from": "default"}, "start_from as it was -> default"),
    ],
)
def test_flags_that_disagree_with_the_stopped_run_are_refused_and_listed(home, wrong, listed):
    with pytest.raises(Interrupted):
        unetseg.train(run="half", **RUN, on_progress=stopping(at_step(10)))
    with pytest.raises(InputError) as refused:
        unetseg.train(run="half", resume=True, **wrong)
    assert listed in str(refused.value)


def test_flags_that_agree_with_the_stopped_run_are_taken(home):
    with pytest.raises(Interrupted):
        unetseg.train(run="half", **RUN, on_progress=stopping(at_step(80)))
    store = Path(STORE).absolute()  # the same file by another name
    unetseg.train(store, run="half", resume=True, epochs=3, seed=7)
    assert read_card("runs/half/model.safetensors").finished


def test_another_store_is_refused_on_resume(home):
    with pytest.raises(Interrupted):
        unetseg.train(run="half", **RUN, on_progress=stopping(at_step(10)))
    settings = unetseg.PatchSettings(size=32, per_image=4, val=0.25, seed=1)
    unetseg.build_store("data/train", "other.h5", settings)
    with pytest.raises(InputError, match=r"store data/patches.h5 -> other.h5"):
        unetseg.train("other.h5", run="half", resume=True)
    Path("other.h5").replace(STORE)
    with pytest.raises(InputError, match="has changed since"):
        unetseg.train(run="half", resume=True)


def test_a_mistyped_store_costs_no_finished_run(home):
    before = Path("runs/default/model.safetensors").read_bytes()
    with pytest.raises(InputError):
        unetseg.train("mistyped.h5", overwrite=True, **QUICK)
    with pytest.raises(InputError):
        unetseg.train(overwrite=True, **{**QUICK, "network": "compakt"})
    assert Path("runs/default/model.safetensors").read_bytes() == before


def test_a_run_can_be_started_again_from_its_own_store_and_model(empty):
    write_set("set", 4)
    patches = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.train("set", patches=patches, **{**QUICK, "epochs": 1})
    store = "runs/default/patches.h5"
    unetseg.train(store, overwrite=True, start_from="default", **{**QUICK, "epochs": 1})
    assert read_card("runs/default/model.safetensors").store == store


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(straight, home):
    with pytest.raises(Interrupted):
        unetseg.train(run="half", **RUN, on_progress=stopping(at_step(40)))
    path = Path("runs/half/last.pt")
    path.write_bytes(path.read_bytes()[:-200])
    _, seen = notes(lambda p: unetseg.train(run="half", resume=True, on_progress=p))
    assert any(isinstance(r, Note) and r.warning and "last" in r.text for r in seen)
    assert_equal_runs("straight", "half")


# --- other ends and beginnings ---------------------------------------------------------------


def test_patience_stops_keeps_the_best_epoch_and_says_so(home):
    settings = {**QUICK, "epochs": 60, "patience": 2, "validate": 1, "lr": 0.02, "ema": 0.0}
    result = unetseg.train(run="patient", **settings)
    rows = rows_of("patient")
    scores = [float(r["val_mean_iou"]) for r in rows]
    best = int(np.argmax(scores))
    assert len(rows) == best + 3 < 60
    assert result.kept == f"best epoch {best + 1}"
    card = read_card("runs/patient/model.safetensors")
    assert card.kept == result.kept
    assert result.scores.mean_iou == pytest.approx(scores[best], abs=1e-5)


def test_a_run_stopped_at_the_end_of_its_patience_still_keeps_the_best(home):
    settings = {**QUICK, "epochs": 60, "patience": 1, "validate": 1, "lr": 0.02, "seed": 3}
    straight = unetseg.train(run="patient", **settings)
    ended = len(rows_of("patient"))

    def when(record):
        return isinstance(record, EpochDone) and record.row["epoch"] == ended

    with pytest.raises(Interrupted):
        unetseg.train(run="stopped", **settings, on_progress=stopping(when))
    result = unetseg.train(run="stopped", resume=True)
    assert result.kept == straight.kept
    assert_equal_runs("patient", "stopped")


def test_from_a_model_of_the_same_classes_takes_all_its_weights(home):
    _, seen = notes(
        lambda p: unetseg.train(
            run="on",
            start_from="default",
            **{**QUICK, "epochs": 1, "lr": 1e-12, "ema": 0.0},
            on_progress=p,
        )
    )
    old, new = weights("default"), weights("on")
    for name in (n for n in old if n.endswith(".weight")):
        np.testing.assert_allclose(new[name], old[name], atol=1e-6)
    said = next(r for r in seen if isinstance(r, Note))
    assert not said.warning
    assert "starting from runs/default/model.safetensors" in said.text


def test_from_a_model_of_other_classes_makes_the_last_layer_new_and_says_so(home):
    write_set("two", 3, values=(0, 1, 1), toml=None)
    unetseg.build_store("two", "two.h5", unetseg.PatchSettings(size=32, per_image=4))
    settings = {**QUICK, "epochs": 1, "lr": 1e-12, "ema": 0.0}
    _, seen = notes(
        lambda p: unetseg.train("two.h5", run="on", start_from="default", **settings, on_progress=p)
    )
    said = next(r for r in seen if isinstance(r, Note))
    assert said.warning
    assert "other classes (ground, square, stripe there)" in said.text
    assert "last layer (head) is new" in said.text
    old, new = weights("default"), weights("on")
    assert new["head.weight"].shape[0] == 2
    for name in (n for n in old if n.endswith(".weight") and not n.startswith("head")):
        np.testing.assert_allclose(new[name], old[name], atol=1e-6)


def test_a_model_knows_the_images_that_its_weights_learned_from_before(empty):
    cutting = unetseg.PatchSettings(size=32, per_image=4)
    for number, (run, start) in enumerate([("a", None), ("b", "a"), ("c", "b")]):
        write_set(run, 4, first=4 * number)
        settings = {**QUICK, "epochs": 2, "start_from": start, "run": run}
        with pytest.raises(Interrupted):
            unetseg.train(run, patches=cutting, **settings, on_progress=stopping(at_step(2)))
        if start:
            shutil.rmtree(Path("runs", start))
        unetseg.train(run=run, resume=True)
    card = read_card("runs/c/model.safetensors")
    assert card.images_trained_on == 3
    assert len(card.trained_on) == 9
    assert unetseg.evaluate("a", model=["c"]).subject.trained_on == 3


@pytest.mark.parametrize(("val", "told"), [(0, 1), (0.25, 0)])
def test_held_out_images_that_the_first_weights_learned_from_are_warned_of(empty, val, told):
    write_set("set", 4)
    settings = {**QUICK, "epochs": 1}
    cutting = {"size": 32, "per_image": 4}
    unetseg.train("set", patches=unetseg.PatchSettings(val=val, **cutting), **settings)
    again = {**settings, "patches": unetseg.PatchSettings(val=0.25, **cutting)}
    _, seen = notes(
        lambda p: unetseg.train("set", run="on", start_from="default", **again, on_progress=p)
    )
    warned = [r.text for r in seen if isinstance(r, Note) and r.warning and "held out" in r.text]
    assert len(warned) == told
    assert all("was trained on 1 of the 1 image held out" in text for text in warned)


@pytest.mark.parametrize("asked", [{"network": "classic"}, {"width": 8}, {"depth": 3}])
def test_from_a_model_with_another_network_is_refused(home, asked):
    option = f"{next(iter(asked))}"
    with pytest.raises(InputError, match=f"{option}: .*the model to start from has"):
        unetseg.train(run="on", start_from="default", epochs=1, **asked)


def test_from_the_same_classes_in_another_order_makes_the_last_layer_new(home):
    write_set("set", 3)
    toml = VALUES_TOML.split("[[class]]")
    Path("turned.toml").write_text("[[class]]".join([toml[0], *reversed(toml[1:])]))
    cutting = unetseg.PatchSettings(size=32, per_image=4)
    unetseg.build_store("set", "turned.h5", cutting, classes=Path("turned.toml"))
    settings = {"run": "on", "start_from": "default", "epochs": 1}
    _, seen = notes(lambda p: unetseg.train("turned.h5", **settings, on_progress=p))
    said = next(r for r in seen if isinstance(r, Note))
    assert "last layer (head) is new" in said.text


def test_a_last_batch_of_one_patch_joins_the_one_before(home):
    seen = []
    unetseg.train(
        run="b", **{**QUICK, "epochs": 1, "batch_size": 5}, on_progress=seen.append
    )  # 36 patches: 7 steps of 5, the last of 6
    assert int(rows_of("b")[-1]["step"]) == 7
    assert int(rows_of("b")[-1]["patches"]) == 36


def test_from_a_model_of_other_channels_is_refused(home):
    write_set("rgb", 3, channels=3)
    unetseg.build_store("rgb", "rgb.h5", unetseg.PatchSettings(size=32, per_image=2))
    with pytest.raises(InputError, match="trained on 1 channel, the images have 3"):
        unetseg.train("rgb.h5", run="on", start_from="default", **QUICK)


def test_a_run_begun_from_a_model_is_resumed_like_any_other(home):
    settings = {**RUN, "start_from": "default"}
    settings.pop("width")
    unetseg.train(run="a", **settings)
    with pytest.raises(Interrupted):
        unetseg.train(run="b", **settings, on_progress=stopping(at_step(40)))
    unetseg.train(run="b", resume=True)
    assert_equal_runs("a", "b")


@pytest.mark.usefixtures("processor_time")
def test_a_budget_holds_for_the_whole_command(home):
    settings = {**QUICK, "budget": 5.0}
    del settings["epochs"]
    begin = time.monotonic()
    result = unetseg.train(run="b", **settings, started=begin)
    assert 5 - 2 < time.monotonic() - begin < 5 + 1
    assert result.patches > 0
    card = read_card("runs/b/model.safetensors")
    assert card.finished
    assert card.scores["images"] == 3
    # The schedule is annealed: a thousandth of the highest rate is where it ends.
    assert float(rows_of("b")[-1]["lr"]) < 0.05 * DEFAULT_LR["muon"]


def test_a_budget_too_small_says_what_is_enough(home):
    said = r"budget: 1 s leaves no time to train; for one pass over all patches give budget='\d+s'"
    said += r", or smaller images \(scale=0.5\)"
    with pytest.raises(InputError, match=said):
        unetseg.train(run="b", budget=1.0, width=4, depth=2, device="cpu")


def test_a_budget_too_small_for_a_folder_is_refused_before_it_is_cut(home):
    seen = []
    with pytest.raises(InputError, match=r"leaves no time to train; .* \(scale=0.25\)"):
        unetseg.train(
            "data/train",
            run="b",
            budget=1.0,
            width=4,
            depth=2,
            patches=unetseg.PatchSettings(scale=0.5),
            started=time.monotonic() - 1,
            on_progress=seen.append,
        )
    assert seen == []


def test_work_that_is_done_is_never_thrown_away_for_lack_of_time(home, monkeypatch):
    # as if the estimate had been wrong
    monkeypatch.setattr("unetseg.training.run.check_budget", lambda *_: None)
    result = unetseg.train(
        "data/train",
        run="b",
        budget=2.0,
        width=4,
        depth=2,
        started=time.monotonic() - 2,
    )
    assert result.scores
    assert result.patches > 0


@pytest.mark.parametrize("seed", range(3))
def test_a_loss_that_is_not_finite_ends_with_code_4_and_finite_files(home, seed):
    with pytest.raises(DivergenceError) as error:
        unetseg.train(run="wild", **{**RUN, "epochs": 9, "lr": 1e30, "seed": seed})
    assert error.value.exit_code == 4
    text = str(error.value)
    assert "not finite" in text
    assert "step" in text
    assert "try a smaller lr" in text
    if Path("runs/wild/model.safetensors").exists():
        assert all(np.isfinite(v).all() for v in weights("wild").values())
        network, _ = load_model("runs/wild/model.safetensors")
        assert all(bool(torch.isfinite(p).all()) for p in network.parameters())
    if Path("runs/wild/history.csv").exists():
        assert "nan" not in Path("runs/wild/history.csv").read_text()


def test_settings_out_of_range_name_their_option(home):
    for wrong, option in (
        ({"epochs": 0}, "epochs"),
        ({"lr": float("nan")}, "lr"),
        ({"epochs": 2, "budget": 60.0}, "epochs"),
        ({"loss": "ce+dise"}, "did you mean 'ce\\+dice'"),
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "float16"}, "precision"),
    ):
        with pytest.raises(InputError, match=option):
            unetseg.train(run="x", **wrong)
    assert not Path("runs/x/model.safetensors").exists()


def test_options_that_cut_patches_need_a_folder(home):
    with pytest.raises(InputError, match="need a folder"):
        unetseg.train(STORE, run="x", patches=unetseg.PatchSettings(size=32), **QUICK)


def test_no_store_says_what_to_run_first(empty):
    with pytest.raises(
        InputError, match=r"data/patches.h5: not found; call unetseg.build_store first"
    ):
        unetseg.train(**QUICK)


def test_the_header_of_a_model_is_plain_json(home):
    with safetensors.safe_open("runs/default/model.safetensors", "numpy") as file:
        (text,) = file.metadata().values()
    assert json.loads(text)["patch_size"] == 32


# --- refusals before anything is done ---------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [{"device": "gpu"}, {"resume": True}, {"network": "compakt"}, {"source": "nowhere"}],
)
def test_a_refused_call_leaves_no_folder(empty, refused):
    write_set("set", 4)
    seen = []
    settings = {"source": "set", "epochs": 1, "width": 2, "depth": 1, **refused}
    with pytest.raises(InputError):
        unetseg.train(run="deep/nope", on_progress=seen.append, **settings)
    assert seen == []  # nothing was read
    assert not Path("deep").exists()


def test_a_folder_refused_after_it_was_cut_leaves_no_store(empty):
    write_set("set", 4)
    with pytest.raises(InputError, match="no image is held out to judge by"):
        unetseg.train("set", run="x", patches=unetseg.PatchSettings(val=0), patience=2, **QUICK)
    assert not Path("runs").exists()


def test_the_line_to_start_again_carries_the_options_given(home):
    with pytest.raises(InputError) as refused:
        unetseg.train(
            "data/train",
            budget=90.0,
            start_from="my run",
            ignore=(7, "#ffff00"),
            patches=unetseg.PatchSettings(size=64, channels="0,2"),
        )
    line = "unetseg train data/train --budget 90s --from 'my run' --size 64 --channels 0,2 "
    assert line + "--ignore 7 --ignore '#ffff00' --run default-2" in typed(refused.value)


def test_images_that_the_first_weights_learned_from_are_not_held_out_where_others_are(empty):
    write_set("set", 12)
    cutting = {"patches": unetseg.PatchSettings(size=32, per_image=2, val=0.25)}
    settings = {**QUICK, "epochs": 1, **cutting}
    unetseg.train("set", **settings)
    learned = read_card("runs/default/model.safetensors").trained_on
    for k in range(20, 24):
        image, mask = draw(k)
        write_image(Path(f"set/images/im{k}"), image)
        Image.fromarray(mask).save(f"set/masks/im{k}.png")
    _, seen = notes(
        lambda p: unetseg.train("set", run="on", start_from="default", **settings, on_progress=p)
    )
    assert not [r for r in seen if isinstance(r, Note) and "score will be too good" in r.text]
    held = [s for s in unetseg.open_store("runs/on/patches.h5").info.sources if s.split == "val"]
    assert len(held) == 4
    assert not learned & {one.sha256 for one in held}
    assert 'from = "default"' in Path("runs/on/config.toml").read_text()


def test_a_report_shows_held_out_images_that_the_first_weights_learned_from(empty):
    write_set("set", 4)
    cutting = {"size": 32, "per_image": 2}
    unetseg.train("set", patches=unetseg.PatchSettings(val=0, **cutting), **QUICK)
    patches = unetseg.PatchSettings(val=0.25, **cutting)
    found = unetseg.train("set", run="on", start_from="default", patches=patches, **QUICK)
    unetseg.write_report("page.html", found)
    assert "1 image" in Path("page.html").read_text()


def test_a_folder_that_is_written_otherwise_is_the_same_folder_on_resume(empty):
    write_set("set", 4)
    cutting = {"patches": unetseg.PatchSettings(size=32, per_image=4)}
    with pytest.raises(Interrupted):
        unetseg.train("set/", **cutting, **QUICK, on_progress=stopping(at_step(2)))
    unetseg.train("./set", resume=True)


def test_batches_of_one_patch_that_shrinks_to_a_pixel_are_refused(home):
    settings = {**QUICK, "batch_size": 1, "depth": 5, "network": "compact"}
    with pytest.raises(InputError, match=r"batch_size=1: leaves batch normalisation one pixel"):
        unetseg.train(run="small", **settings)
