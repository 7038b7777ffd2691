"""Several processes work as one: the same results, one voice, one end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.distributed import TCPStore

import unetseg
from tests.support import QUICK
from unetseg import ranks
from unetseg.classes import IGNORED
from unetseg.dataset.store import open_store
from unetseg.devices import pick_device
from unetseg.errors import InputError
from unetseg.network.unet import build_network
from unetseg.prediction.run_folder import RunFolder, read_history
from unetseg.prediction.summary import read_records
from unetseg.progress import Note, Progress
from unetseg.ranks import World
from unetseg.signals import Caught
from unetseg.training import recipe, starting
from unetseg.training.batches import Batches, Patches
from unetseg.training.checkpoint import read_checkpoint, read_state
from unetseg.training.recipe import resolve

ROOT = Path(unetseg.__file__).parents[1]
LONG = {"width": 4, "depth": 2, "epochs": 8, "batch_size": 8, "device": "cpu", "run": "long"}

# Under these settings one process and two must come to the same weights. Two processes cannot halve
# the batches or the last batch (11, 11, 11, 3). Of single patches every other is ignored as a
# whole.
SUMMED = {**QUICK, "precision": "float32"}  # in bfloat16 another order of a sum shows at once
UNEVEN = {**SUMMED, "batch_size": 11, "optimizer": "sgd", "lr": 0.02, "loss": "weighted-ce+dice"}
IGNORING = {**SUMMED, "batch_size": 2, "optimizer": "sgd", "lr": 0.02, "loss": "ce+dice"}


def environment(rank=None, port=0):
    """Return the environment of a process; of one of two where it has a rank."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    env["OMP_NUM_THREADS"] = "1"
    if rank is not None:
        env |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        env |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        env["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    return env


def run_two(work):
    """Run ``tests.test_ranks.<work>()`` in two processes; return the result of each.

    Their messages are kept here, as torchrun keeps them. So they outlive the rank that ends first,
    and the port is taken from the beginning.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    code = f"import json, tests.test_ranks as t; print('=', json.dumps(t.{work}()))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment(rank, store.port),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    done = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(e for _, e in done)
    return [json.loads(out.rpartition("= ")[2]) for out, _ in done]


def without_batch_statistics(*args, **settings):
    network = build_network(*args, **settings)
    for block in network.modules():
        for name, part in block.named_children():
            if isinstance(part, nn.BatchNorm2d):
                setattr(block, name, nn.GroupNorm(1, part.num_features))
    return network


def train_alike():
    """Train as the tests below compare it; called in one process and in two."""
    keep, starting.build_network = starting.build_network, without_batch_statistics
    make = Patches.__init__

    def ignoring(self, images, masks, *rest):
        masks = np.array(masks)
        masks[1::2] = IGNORED
        make(self, images, masks, *rest)

    try:
        unetseg.train(run="uneven", **UNEVEN)
        Patches.__init__ = ignoring
        unetseg.train(run="ignoring", **IGNORING)
    finally:
        starting.build_network, Patches.__init__ = keep, make


def stop_one_rank():
    """Train until rank 0, and it alone, is sent a signal in the middle of an epoch."""

    def stop(record):
        if isinstance(record, Progress) and record.stage == "training" and record.done == 24:
            signal.raise_signal(signal.SIGTERM)

    try:
        unetseg.train(**LONG | {"run": "stopped"}, on_progress=stop)
    except unetseg.UnetsegError as error:
        return [type(error).__name__, error.exit_code]


def work_together():
    """The work of two processes in one go, as each start takes seconds."""
    found = {}
    with ranks.join() as world:
        found["gather"] = world.gather({"rank": world.rank})
        found["collect"] = world.collect([k * k for k in world.own_items(range(5))])
        found["first"] = world.on_rank_zero(lambda: f"of rank {world.rank}")
        rows = torch.arange(6.0).view(3, 2)[: 3 * world.rank]  # rank 0 has none
        found["concatenate"] = world.concatenate(rows).tolist()
        found["maximum"] = world.maximum(world.rank, -world.rank)
        parts = [torch.tensor([1.0 + world.rank]), torch.full((1, 2), 4.0 * world.rank)]
        world.average_(parts)
        found["average"] = [part.tolist() for part in parts]
        weight = torch.tensor(2.0, requires_grad=True)
        ((1.0 + world.rank) * weight).backward()
        found["single"] = float(weight.grad)
        weight.grad = None
        world.total((1.0 + world.rank) * weight).square().backward()
        found["total"] = float(weight.grad)
    train_alike()
    unetseg.train(**LONG)
    found["stopped"] = stop_one_rank()
    unetseg.train(run="stopped", resume=True)
    budgeted = {**QUICK, "epochs": None, "budget": 4.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", time.process_time)  # other work takes no time of it
        found["budget"] = unetseg.train(run="budget", **budgeted).patches
    heard = []
    scores = unetseg.evaluate("data/test", model=["long"], on_progress=heard.append).scores
    found["scores"], found["heard"] = scores.to_dict(), len(heard)
    sources = ["data/test", "data/classes.txt"]
    done = unetseg.predict(sources, model=["long"], overlay=False)
    found["predicted"] = {
        "written": [path.name for path in done.written],
        "failed": [[str(path), str(error), error.exit_code] for path, error in done.failed],
        "shares": done.shares,
    }
    found["again"] = len(unetseg.predict(sources, model=["long"], overlay=False).skipped)
    try:
        unetseg.train(run="uneven", **UNEVEN)
    except unetseg.UnetsegError as error:
        found["error"] = [type(error).__name__, error.exit_code]
    return found


@pytest.fixture(scope="module")
def together(made, tmp_path_factory):
    """The runs of one process and of two, in folders of their own, and the results of the two."""
    import shutil

    home = tmp_path_factory.mktemp("ranks")
    before = Path.cwd()
    try:
        for name in ("one", "two"):
            shutil.copytree(made, home / name)
            (home / name / "data/classes.txt").write_text("no picture")
        os.chdir(home / "one")
        train_alike()
        os.chdir(home / "two")
        return home, run_two("work_together")
    finally:
        os.chdir(before)


def test_without_torchrun_the_world_is_one_and_nothing_is_exchanged():
    with ranks.join() as world:
        assert world == ranks.world() == World(0, 1, 1)
        assert world.gather("a") == ["a"]
        assert world.own_items([3, 4]) == [3, 4]
        assert not torch.distributed.is_initialized()


def test_ranks_exchange_what_each_has(together):
    _, (zero, one) = together
    for key, value in {
        "gather": [{"rank": 0}, {"rank": 1}],
        "collect": [0, 1, 4, 9, 16],
        "first": "of rank 0",
        "concatenate": [[0, 1], [2, 3], [4, 5]],
        "maximum": [1, 0],
        "average": [[1.5], [[2, 2]]],
    }.items():
        assert zero[key] == one[key] == value, key


def test_gradients_flow_through_a_sum_over_ranks(together):
    # s = (1 + 2) w, d(s * s) / dw on rank r = 2 s (1 + r), times 2: each rank has a loss of its own
    _, found = together
    assert [one["single"] for one in found] == [1, 2]
    assert [one["total"] for one in found] == [2 * 6 * 2 * 1, 2 * 6 * 2 * 2]


@pytest.mark.parametrize("run", ["uneven", "ignoring"])
def test_two_ranks_learn_what_one_process_learns(together, run):
    home, _ = together
    one, two = (read_history(home / side / "runs" / run / "history.csv") for side in ("one", "two"))
    assert len(one) == len(two) == QUICK["epochs"]
    for row, other in zip(one, two, strict=True):
        assert (row["step"], row["patches"]) == (other["step"], other["patches"])
        assert float(row["train_loss"]) == pytest.approx(float(other["train_loss"]), rel=1e-4)
    weights, others = (
        load_file(home / side / "runs" / run / "model.safetensors") for side in ("one", "two")
    )
    for name, values in weights.items():
        np.testing.assert_allclose(values, others[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_two_ranks_find_the_temperature_of_one_process(together):
    home, _ = together
    one, two = (
        unetseg.prediction.model_file.read_card(home / side / "runs/uneven/model.safetensors")
        for side in ("one", "two")
    )
    assert one.temperature == pytest.approx(two.temperature, rel=1e-3)
    assert one.scores["mean_iou"] == pytest.approx(two.scores["mean_iou"], abs=1e-3)


def test_ranks_share_the_images_of_an_evaluation_and_know_all_scores(together, monkeypatch):
    home, (zero, one) = together
    assert zero["scores"] == one["scores"]
    assert zero["heard"] > 0
    assert one["heard"] == 0
    monkeypatch.chdir(home / "two")
    alone = unetseg.evaluate("data/test", model=["long"]).scores.to_dict()
    assert json.loads(json.dumps(alone)) == zero["scores"]


def test_ranks_share_the_images_that_are_predicted_and_know_what_all_did(together, monkeypatch):
    home, (zero, one) = together
    assert zero["predicted"] == one["predicted"]
    assert zero["predicted"]["written"] == ["im100.png", "im101.png", "im102.png"]
    ((path, text, code),) = zero["predicted"]["failed"]
    assert (path, code) == ("data/classes.txt", 2)
    assert text.startswith("data/classes.txt: not a PNG")
    assert zero["again"] == one["again"] == 3
    monkeypatch.chdir(home / "two")
    alone = unetseg.predict(["data/test"], model=["long"], out="alone", overlay=False)
    assert alone.shares == zero["predicted"]["shares"]
    for path in alone.written:
        assert path.read_bytes() == Path("predictions", path.name).read_bytes()
    rows, others = (read_records(Path(out, "summary.csv")) for out in ("alone", "predictions"))
    # A rank computes other images at once, so that sums of floats are rounded otherwise.
    sure, as_sure = ([row.pop("mean_confidence") or 0.0 for row in one] for one in (rows, others))
    assert sure == pytest.approx(as_sure, rel=1e-6)
    for row in (*rows, *others):
        del row["seconds"]
    assert rows == others


def test_a_budget_ends_all_ranks_at_the_same_step(together):
    _, (zero, one) = together
    assert zero["budget"] == one["budget"] > 0


def test_an_error_is_of_one_rank_and_the_others_follow_with_its_exit_code(together):
    _, found = together
    assert [one["error"] for one in found] == [["InputError", 2], ["Followed", 2]]


def test_a_signal_to_one_rank_stops_all_and_they_go_on_to_the_same_bits(together):
    home, (zero, one) = together
    assert sorted([zero["stopped"], one["stopped"]]) == [["Followed", 143], ["Interrupted", 143]]
    straight, stopped = (
        load_file(home / f"two/runs/{run}/model.safetensors") for run in ("long", "stopped")
    )
    for name, values in straight.items():
        np.testing.assert_array_equal(values, stopped[name], err_msg=name)


def test_the_number_of_ranks_is_recorded_and_another_one_warned_of(together, monkeypatch):
    home, _ = together
    monkeypatch.chdir(home / "two")
    path = Path("runs/long/last.pt")
    assert read_checkpoint(path)["machine"]["ranks"] == 2
    notes = []
    saved, _, _ = read_state(path)
    session = starting.Session(time.monotonic(), Caught(), notes.append)
    starting.resumed_trainer(open_store("data/patches.h5"), RunFolder("long"), saved, path, session)
    warnings = [str(n) for n in notes if isinstance(n, Note)]
    assert warnings == ["warning: not bit-exact: ranks 2 -> 1"]


@pytest.mark.parametrize(
    ("name", "gpus", "device"), [("auto", 2, "cuda:1"), ("cuda", 2, "cuda:1"), ("auto", 0, "cpu")]
)
def test_each_process_of_a_machine_gets_a_gpu_of_its_own(monkeypatch, name, gpus, device):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert pick_device(name) == torch.device(device)


@pytest.mark.parametrize(
    ("name", "text"),
    [("auto", "3 processes on this machine, 2 GPUs"), ("cuda:0", "be shared by 3")],
)
def test_more_processes_than_gpus_are_refused(monkeypatch, name, text):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=text):
        pick_device(name)


def batches_of(**settings):
    given = resolve(unetseg.TrainSettings(**{**QUICK, **settings}), 32)
    return Batches(open_store("data/patches.h5"), given)


def test_the_parts_of_a_batch_are_those_of_the_batch_of_one_process(home):
    one = batches_of(augment="strong")
    pictures, masks = one.batch(0, 0)
    for rank in range(3):
        one.ranks = World(rank, 3)
        part = one.batch(0, 0)
        torch.testing.assert_close(part[0], pictures[rank::3], rtol=0, atol=0)
        torch.testing.assert_close(part[1], masks[rank::3], rtol=0, atol=0)


def test_a_rank_without_a_patch_learns_from_one_that_counts_nowhere(home):
    one = batches_of(batch_size=2)
    one.ranks = World(2, 3)
    pictures, masks = one.batch(0, 0)
    assert pictures.shape == (1, 1, 32, 32)
    assert (masks == IGNORED).all()


def test_a_batch_smaller_than_the_ranks_is_refused(monkeypatch):
    monkeypatch.setattr(recipe, "world", lambda: World(0, 4))
    with pytest.raises(InputError, match="3 patches a step for 4 processes"):
        resolve(unetseg.TrainSettings(batch_size=3), 32)
    assert resolve(unetseg.TrainSettings(), 512).batch_size == 4


def processes_of(parent):
    """Return the processes that a process started, in the order of their starts."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children]


def wait_for_epoch(process, number):
    """Read stderr until an epoch is done; return the output so far."""
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(f"epoch {number}:"):
            return said
    raise AssertionError("".join(said))


def torchrun(*words):
    """Start a command on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--"]
    return subprocess.Popen(
        [*command, "unetseg", *words], env=environment(), stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs the processes of Linux")
def test_a_job_that_loses_a_rank_ends_and_one_that_is_stopped_saves_and_both_say_so_once(
    home, monkeypatch
):
    options = ["--epochs=100000", "--width=4", "--depth=2", "--device=cpu", "--run=./hurt"]
    with torchrun("train", *options) as job:
        said = wait_for_epoch(job, 2)
        os.kill(processes_of(job.pid)[1], signal.SIGKILL)
        said += job.stderr.readlines()
    assert job.returncode == 1  # torchrun's own, not that of the ranks
    (error,) = (line for line in said if line.startswith("unetseg: error:"))
    assert error.startswith("unetseg: error: rank 1: was lost")
    assert sum(line.startswith("epoch 2:") for line in said) == 1

    epoch = read_checkpoint("hurt/last.pt")["position"]["epoch"]
    with torchrun("train", "--resume", "--run=./hurt") as job:
        said = wait_for_epoch(job, epoch + 2)
        job.send_signal(signal.SIGTERM)
        said += job.stderr.readlines()
    assert job.returncode == 1
    (error,) = (line for line in said if line.startswith("unetseg: error:"))
    assert "everything is saved" in error
    saved = read_checkpoint("hurt/last.pt")
    assert saved["position"]["epoch"] >= epoch + 2
    assert not saved["finished"]
