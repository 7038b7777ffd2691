"""unetseg beside others: the same images, the same minutes, the same two cores, one judge.

``python -m tests.benchmarks rivals [MINUTES... SET... METHOD...]`` takes other times (3, 10 and 30
minutes by default), sets or methods. The time covers all from the folder of labelled images to the
trained model: planning, cutting, training. Prediction comes after it. Each method predicts images
that no method has seen, and `evaluate` scores the masks. The scores go into ``rivals.csv`` and
``rivals.svg`` beside this file. ``tests/pictures/gallery`` has a prediction of each set after three
minutes.

Methods:
    unetseg: The command, with its defaults.
    nnunet: nnU-Net v2 with its own planning, preprocessing, augmentation, network, loss and
        optimizer. Its trainer is asked for as many iterations as fit into the time, and its
        learning rate falls over that time as over its epochs. It is installed into an environment
        of its own, in the folder that UNETSEG_RIVALS names.
    recipe: The U-Net of 2015 on 96 x 96 patches, trained as in the project that unetseg grew out
        of. It uses SGD with momentum, batches of 16, and 20 random patches an image.
    forest: The random forest on simple filters that `train --folds` compares with.
    monai: MONAI's BasicUNet in a plain loop: Adam, flips, Dice and cross-entropy.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.benchmarks import rivals_plot
from tests.benchmarks.common import (
    DATA,
    machine,
    names_in,
    numbers_in,
    print_table,
    write_values,
)
from tests.benchmarks.pretrained import SETS
from tests.benchmarks.rivals_plot import Row
from unetseg import compare, evaluate
from unetseg.classes import IGNORED, ClassTable, read_classes
from unetseg.dataset import pairing
from unetseg.network.unet import build_network
from unetseg.pictures import drawing, masks, reading, writing
from unetseg.pictures.transforms import collapse_grey
from unetseg.scoring.baselines import Forest, draw_samples
from unetseg.scoring.metrics import iou_of

_MINUTES, _SHOWN, _PATCH = (3.0, 10.0, 30.0), 3.0, 96
_HOME = Path(os.environ.get("UNETSEG_RIVALS", Path(tempfile.gettempdir()) / "unetseg-rivals"))
_TRAINER = Path(__file__).with_name("nnunet_timed.py")
_GALLERY = Path(__file__).parents[1] / "pictures" / "gallery"


@dataclass(frozen=True)
class Task:
    """The input of every method.

    Attributes:
        train: Folder of labelled images to learn from; masks are class values, 255 ignored.
        test: Folder of labelled images to predict.
        out: Where the predicted masks go.
        seconds: The time from here to the trained model.
    """

    train: Path
    test: Path
    out: Path
    seconds: float

    @property
    def table(self) -> ClassTable:
        """The classes."""
        return read_classes(self.train / "classes.toml")

    def labelled(self) -> Iterator[tuple[NDArray, NDArray[np.uint8]]]:
        """Yield the training images (H, W, C) and their masks (H, W)."""
        for pair in pairing.find_pairs(self.train):
            mask = masks.decode(pair.read_mask(), self.table, pair.mask)
            yield collapse_grey(reading.read_image(pair.image)), mask

    def predict(self, labels_of: Callable[[NDArray], NDArray[np.uint8]]) -> None:
        """Write the masks of all test images."""
        for pair in pairing.find_pairs(self.test):
            labels = labels_of(collapse_grey(reading.read_image(pair.image)))
            writing.write_mask(self.out / f"{pair.name}.png", labels, self.table)


# --- methods ---------------------------------------------------------------------------------


def by_unetseg(task: Task) -> None:
    """Train and predict by the commands."""
    run = str(task.out.with_name(f"{task.out.name}-run"))
    call = [sys.executable, "-m", "unetseg", "-q"]
    budget = ["--budget", f"{task.seconds:g}s", "--val", "0"]
    subprocess.run([*call, "train", str(task.train), "--run", run, *budget], check=True)
    words = ["predict", str(task.test / "images"), "--model", run, "--out", str(task.out)]
    subprocess.run([*call, *words, "--no-overlay"], check=True)


def by_forest(task: Task) -> None:
    """Fit the forest; it takes a minute of any time given."""
    forest = Forest(len(task.table.classes))
    forest.fit(draw_samples(task.labelled(), len(task.table.classes)))
    task.predict(forest.predict)


def by_recipe(task: Task) -> None:
    """Train the network of 2015 in a plain loop."""
    network = build_network("classic", _channels(task), len(task.table.classes))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    loss = nn.CrossEntropyLoss(ignore_index=IGNORED)
    _train_plainly(task, network, optimizer, loss, flips=False)


def by_monai(task: Task) -> None:
    """Train MONAI's U-Net in a plain loop."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    channels, classes = _channels(task), len(task.table.classes)
    network = BasicUNet(spatial_dims=2, in_channels=channels, out_channels=classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    whole = all((mask != IGNORED).all() for _, mask in task.labelled())
    both = DiceCELoss(softmax=True, to_onehot_y=True)  # it cannot ignore pixels
    plain = nn.CrossEntropyLoss(ignore_index=IGNORED)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return both(logits, target[:, None]) if whole else plain(logits, target)

    _train_plainly(task, network, optimizer, loss, flips=True)


def by_nnunet(task: Task) -> None:
    """Plan, preprocess, train and predict by nnU-Net's own programs."""
    place = _nnunet()
    with tempfile.TemporaryDirectory() as folder:
        root, begin = Path(folder), time.time()
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        variables = {name: str(root / name) for name in names}
        variables |= {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "PYTHONWARNINGS": "ignore"}
        environment = os.environ | variables | {"NNUNET_END": str(begin + task.seconds)}
        apart = _raw_dataset(task, root / "nnUNet_raw" / "Dataset001_set")

        def call(program: str, *words: str) -> None:
            log = task.out.with_name(f"{task.out.name}.log")
            with open(log, "a") as file:
                line = [str(place / "bin" / program), *words]
                subprocess.run(line, check=True, env=environment, stdout=file, stderr=file)

        call("nnUNetv2_plan_and_preprocess", "-d", "1", "-c", "2d", "-np", "2", "-npfp", "2")
        call("python", str(_TRAINER))
        made = root / "made"
        words = f"-i {apart} -o {made} -d 1 -c 2d -f all -tr nnUNetTrainerTimed -device cpu"
        call("nnUNetv2_predict", *words.split(), "-npp", "1", "-nps", "1")
        task.out.mkdir(parents=True)
        for mask in made.glob("*.png"):
            shutil.copy(mask, task.out / mask.name)


METHODS: dict[str, Callable[[Task], None]] = {
    "unetseg": by_unetseg,
    "nnunet": by_nnunet,
    "recipe": by_recipe,
    "forest": by_forest,
    "monai": by_monai,
}


# --- data and models -------------------------------------------------------------------------


def _channels(task: Task) -> int:
    return max(image.shape[2] for image, _ in task.labelled())


def _train_plainly(
    task: Task,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    flips: bool,
) -> None:
    """Train on 20 random patches an image until the time is over; predict by sliding windows."""
    from monai.inferers import sliding_window_inference

    until, rng = time.monotonic() + task.seconds, np.random.default_rng(0)
    torch.manual_seed(0)
    images, targets = [], []
    for image, mask in task.labelled():
        for _ in range(20):
            row, column = (rng.integers(0, max(1, side - _PATCH + 1)) for side in mask.shape)
            place = slice(row, row + _PATCH), slice(column, column + _PATCH)
            images.append(torch.from_numpy(image[place].astype(np.float32) / 255).movedim(2, 0))
            targets.append(torch.from_numpy(mask[place].astype(np.int64)))
    pictures, labels = torch.stack(images), torch.stack(targets)
    network.train()
    while time.monotonic() < until:
        for chosen in torch.randperm(len(pictures)).split(16):
            x, y = pictures[chosen], labels[chosen]
            for axis in (-1, -2) if flips else ():
                if rng.random() < 0.5:
                    x, y = x.flip(axis), y.flip(axis)
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
            if time.monotonic() > until:
                break
    network.eval()

    def labels_of(image: NDArray) -> NDArray[np.uint8]:
        x = torch.from_numpy(image.astype(np.float32) / 255).movedim(2, 0)[None]
        with torch.no_grad():
            logits = sliding_window_inference(x, _PATCH, 16, network, 0.5, "gaussian")
        return logits[0].argmax(0).numpy().astype(np.uint8)

    task.predict(labels_of)


def _nnunet() -> Path:
    """Return an environment with nnU-Net, which is made where it is missing."""
    place = _HOME / "nnunet"
    if not (place / "bin" / "nnUNetv2_predict").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        packages = [f"torch=={torch.__version__.partition('+')[0]}", "nnunetv2"]
        subprocess.run([str(place / "bin" / "pip"), "install", "-q", *packages], check=True)
    return place


def _raw_dataset(task: Task, root: Path) -> Path:
    """Write the training images as nnU-Net wants them; return the folder of the test images."""
    apart, classes = root / "imagesTs", task.table.names
    channels = _channels(task)
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (root / part).mkdir(parents=True)
    for pair in pairing.find_pairs(task.train):
        mask = masks.decode(pair.read_mask(), task.table, pair.mask)
        mask = np.where(mask == IGNORED, len(classes), mask).astype(np.uint8)
        writing.write_picture(root / "labelsTr" / f"{pair.name}.png", mask[..., None])
        _write_image(pair.image, root / "imagesTr" / f"{pair.name}_0000.png")
    for pair in pairing.find_pairs(task.test):
        _write_image(pair.image, apart / f"{pair.name}_0000.png")
    labels = {"background": 0} | {f"class {k}": k for k in range(1, len(classes))}
    about = {
        "channel_names": {str(k): f"channel {k}" for k in range(channels)},
        "labels": labels | {"ignore": len(classes)},
        "numTraining": len(pairing.find_pairs(task.train)),
        "file_ending": ".png",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return apart


def _write_image(source: Path, target: Path) -> None:
    writing.write_picture(target, collapse_grey(reading.read_image(source)))


# --- the table -------------------------------------------------------------------------------


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("rivals: left out, the data sets are not here")
        return
    minutes = numbers_in(words) or _MINUTES
    sets, methods = names_in(words, SETS), names_in(words, METHODS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in sets:
            train, apart = SETS[name](root / name)
            train = write_values(train, root / f"{name}-train")
            test = write_values(apart, root / f"{name}-test")
            for limit in minutes:
                outs = {m: root / f"{name}-{limit:g}-{m}" for m in methods}
                for method in methods:
                    METHODS[method](Task(train, test, outs[method], limit * 60))
                    rows.append(_judge(name, limit, test, outs, method))
                    print(rows[-1], flush=True)
                if limit == _SHOWN and "unetseg" in outs:
                    _show(test, outs["unetseg"], _GALLERY / f"{name}.png")
    rivals_plot.draw(rivals_plot.add_rows(rows))
    columns = ["set", "minutes", "method", "mean IoU", "95 %", "less than unetseg by", "95 %"]
    lines = [
        (
            *(r.data, r.minutes, r.method, r.mean_iou, f"{r.low:.3f} to {r.high:.3f}"),
            *(r.less, r.between),
        )
        for r in rows
    ]
    print_table(f"The same minutes on the same cores ({machine()})", columns, lines)


def _judge(name: str, minutes: float, test: Path, outs: dict[str, Path], method: str) -> Row:
    found = evaluate(test, predictions=outs[method]).scores
    low, high = found.mean_iou_ci95 or (0.0, 1.0)
    less = between = ""
    if method != "unetseg" and "unetseg" in outs and outs["unetseg"].exists():
        pair = compare(str(outs[method]), str(outs["unetseg"]), test).mean
        less = f"{pair.difference:.3f}"
        between = "{:.3f} to {:.3f}".format(*pair.ci95) if pair.ci95 else ""
    score = found.mean_iou or 0.0
    return Row(name, minutes, method, score, low, high, less, between, machine())


def _show(test: Path, made: Path, path: Path) -> None:
    """Draw the test image whose score is the middle one: itself, its truth, its prediction."""
    table = read_classes(test / "classes.toml")
    found = evaluate(test, predictions=made).scores
    order = np.argsort(np.nanmean(iou_of(found.matrices), 1))
    name = found.names[order[len(order) // 2]]
    (pair,) = (pair for pair in pairing.find_pairs(test) if pair.name == name)
    truth, predicted = (
        masks.decode(reading.read_mask(file), table) for file in (pair.mask, made / f"{name}.png")
    )
    row = collapse_grey(reading.read_image(pair.image)), truth, predicted
    writing.write_picture(path, drawing.validation_sheet([row], table))
