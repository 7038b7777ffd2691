"""Covering images: against MONAI, against a plain loop, by mode, by size, and in memory.

``python -m tests.benchmarks predict [PART...]`` runs some of the parts: ``monai``, ``seconds``,
``modes``, ``loop``, ``small``, ``start``, ``sizes``, ``wide`` and, which takes 20 minutes,
``huge``. Both sides of a comparison run one after the other in one call; peaks of memory are of
processes of their own.
"""

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from tests.benchmarks.common import (
    DATA,
    count_processor_time,
    machine,
    median_seconds,
    print_table,
    read_set,
)
from tests.benchmarks.pretrained import SETS
from unetseg import Model, PatchSettings, PredictSettings, train
from unetseg.classes import IGNORED, ClassTable, SegmentationClass
from unetseg.cli.app import keep_memory
from unetseg.network.unet import build_network
from unetseg.prediction.model_file import ModelCard, write_model
from unetseg.prediction.segmenter import Segmenter
from unetseg.scoring.metrics import confusion, scores

_SIZE = 96  # of a window
_MODES = ("blend", "auto", "seamless")
_SHAPES_BY_MODE = ((448, 448), (1000, 1000), (1080, 1920), (2048, 2048))
# Enough for a minute of training. They are counted, so that a busy machine changes no score.
_EPOCHS = {"camvid-100": 3, "lines-ellipses": 4, "membranes-20": 6, "drive-20": 5}
_NORM = {"means": [[128.0] * 3], "stds": [[64.0] * 3]}


def picture(side: int, channels: int = 3) -> np.ndarray:
    """Return an image (side, side, C) uint8 of smooth noise, the same each time."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))[..., :channels]


def network(name: str = "compact", channels: int = 3):
    """Return a network of three classes with the weights that it begins with."""
    torch.manual_seed(0)
    return build_network(name, channels, 3).eval()


def peak(code: str, *words: object) -> tuple[list[float], float]:
    """Return the numbers that Python code prints, and the memory in MB that it says.

    The code runs in a process of its own, which keeps memory as the commands do. In it ``size()``
    is the greatest resident size so far (Linux). The `resource` module would count that of the
    process that starts it, too. The last number that it prints is the memory.
    """
    head = (
        "import re, sys\n"
        "from unetseg.cli.app import keep_memory\n"
        "keep_memory()\n"
        "def size():\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s*(\\d+)', status)[1]) / 1024\n"
    )
    command = [sys.executable, "-c", head + code, *map(str, words)]
    *numbers, memory = map(float, subprocess.check_output(command, text=True).split())
    return numbers, memory


_COVER = """
import time, numpy as np, torch
from tests.benchmarks.predict import cover, picture
side, kind, weights = int(sys.argv[1]), sys.argv[2], sys.argv[3]
cover(kind, weights)(picture(192))  # what a first call allocates
image = picture(side)
before, begin = size(), time.perf_counter()
labels = cover(kind, weights)(image)
print(time.perf_counter() - begin)
np.save(sys.argv[4], labels)
print(size() - before)
"""


def cover(
    kind: str, weights: str = "gaussian", device: str = "cpu"
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from an image to labels: "blend", "seamless" or "monai"."""
    if kind == "monai":
        return lambda image: _monai(image, weights, device)
    stride = None if kind == "seamless" else _SIZE // 2
    ways = {"stride": stride, "weights": weights, "device": device}
    return Segmenter([network()], size=_SIZE, **ways, **_NORM).labels


@torch.inference_mode()
def _monai(image: np.ndarray, weights: str, device: str) -> np.ndarray:
    from monai.inferers import sliding_window_inference

    mode = "gaussian" if weights == "gaussian" else "constant"
    batch = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].to(device)
    seen, plain = (batch - 128) / 64, network().to(device)
    # Ours computes in bfloat16 on a GPU, too.
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        shares = sliding_window_inference(
            seen, _SIZE, 16, lambda x: plain(x).softmax(1), overlap=0.5, mode=mode
        )
    return shares[0].argmax(0).to(torch.uint8).cpu().numpy()


def against_monai(side: int = 4096) -> None:
    """Compare `Segmenter` with MONAI's sliding_window_inference: labels, time, memory."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("gaussian", "uniform"):
            found = {}
            for kind in ("monai", "blend"):
                file = Path(folder) / f"{kind}.npy"
                (seconds,), memory = peak(_COVER, side, kind, weights, file)
                found[kind] = (seconds, memory, np.load(file))
            (a, m, labels), (b, n, ours) = found["monai"], found["blend"]
            rows.append(
                (weights, f"{100 * (labels == ours).mean():.4f} %", a, b, a / b, m, n, n / m)
            )
    columns = [
        "weights",
        "same labels",
        "MONAI s",
        "ours s",
        "times",
        "MONAI MB",
        "ours MB",
        "share",
    ]
    print_table(f"{side} x {side}, half overlap, against MONAI ({machine()})", columns, rows)


def modes(seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Compare three ways to cover by their scores on four real sets.

    All is computed by one thread, and its processor time counts, so that other work on the machine
    changes little.
    """
    count_processor_time()
    if DATA.exists():
        with tempfile.TemporaryDirectory() as folder:
            for name in ("fused", "compact"):
                mode_scores(Path(folder) / name, name, seeds)


def seconds() -> None:
    """Print the seconds of each mode by network and side of an image, windows of 224 pixels.

    They are seconds of the clock on all cores. The modes take turns, and medians of three count.
    Freed memory is kept, as by the commands.
    """
    keep_memory()
    rows = []
    for name in ("fused", "compact"):
        plain = [network(name)]
        ways = [PredictSettings(mode=kind) for kind in _MODES]
        segmenters = [
            Segmenter(plain, size=224, stride=w.stride_for(224, True), shifts=w.shifts, **_NORM)
            for w in ways
        ]
        for height, width in _SHAPES_BY_MODE:
            image = picture(max(height, width))[:height, :width]
            turns = [[_seconds_of(one, image) for one in segmenters] for _ in range(4)]
            blend, auto, seamless = np.median(turns[1:], 0)  # the first one allocates, too
            row = f"{name}, {height} x {width}", blend, auto, seamless
            rows.append((*row, blend / auto, blend / seamless))
    columns = ["network and image", *(f"{kind} s" for kind in _MODES)]
    columns += ["blend / auto", "blend / seamless"]
    print_table(f"Seconds by mode ({machine()})", columns, rows)


def _seconds_of(cover: Segmenter, image: np.ndarray) -> float:
    begin = time.perf_counter()
    cover.labels(image)
    return time.perf_counter() - begin


def mode_scores(root: Path, name: str, seeds: tuple[int, ...]) -> None:
    """Print how a network does in each mode on images kept apart, set by set."""
    rows = []
    for seed, one in itertools.product(seeds, SETS):
        folder = root / f"{one}-{seed}"
        train_folder, test_folder = SETS[one](folder)
        run, cut = folder / "run", PatchSettings(val=0, seed=seed)
        train(train_folder, run=run, seed=seed, epochs=_EPOCHS[one], patches=cut, network=name)
        rows.append((f"{one}, seed {seed}", *compare_modes(run, test_folder)))
        columns = ["images apart", *_MODES, *_WRONG, *(f"{kind} s" for kind in _MODES)]
        print_table(f"Ways to cover, {name} ({machine()})", columns, rows)


_EDGE = 8  # pixels
_WRONG = [f"{where}, {kind}" for where in ("% wrong at edge", "elsewhere") for kind in _MODES]


def compare_modes(run: Path, folder: Path) -> list[object]:
    """Return how a run does in each mode on a folder of labelled images.

    Returns:
        For each of `_MODES` the pooled mean IoU. Then the wrong pixels in percent in each mode, up
        to `_EDGE` pixels from the border of an image and elsewhere. Then the seconds of processor
        time in each mode.
    """
    images, table = read_set(folder)
    score, spent, wrong = [], [], []
    for kind in _MODES:
        model, begin = Model(run, PredictSettings(mode=kind)), time.process_time()
        found = [model.segmenter.labels(*model.scaled(one.image)[:2]) for one in images]
        spent.append(time.process_time() - begin)
        count, matrices, at_edge, elsewhere = len(table.names), [], [], []
        for one, labels in zip(images, found, strict=True):
            matrices.append(confusion(one.truth, labels, count))
            inner = np.zeros(labels.shape, np.bool_)
            inner[_EDGE:-_EDGE, _EDGE:-_EDGE] = True
            valid, differs = one.truth != IGNORED, labels != one.truth
            at_edge.append(differs[valid & ~inner])
            elsewhere.append(differs[valid & inner])
        names = [one.name for one in images]
        score.append(scores(np.array(matrices), names, table.names).mean_iou or 0.0)
        wrong.append([100 * float(np.concatenate(part).mean()) for part in (at_edge, elsewhere)])
    return [*score, *np.transpose(wrong).ravel().tolist(), *spent]


def against_a_loop() -> None:
    """Compare with a loop of single windows through the published recipe's network."""
    image, plain = picture(400, 1)[:, :200], network("classic", 1)
    norm = {"means": [[128.0]], "stds": [[64.0]]}

    @torch.inference_mode()
    def loop() -> None:
        total = torch.zeros(3, 400, 200)
        for row in [*range(0, 304, 48), 304]:
            for column in [*range(0, 104, 48), 104]:
                window = image[row : row + 96, column : column + 96, 0].astype(np.float32)
                batch = torch.from_numpy((window - 128) / 64)[None, None]
                total[:, row : row + 96, column : column + 96] += plain(batch).softmax(1)[0]
        total.argmax(0)

    ours = Segmenter([network(channels=1)], size=96, stride=48, **norm)
    slow, fast = median_seconds(loop, 3), median_seconds(lambda: ours.labels(image), 9)
    print_table(
        f"400 x 200, stride 48 ({machine()})",
        ["plain loop s", "unetseg s", "times"],
        [(slow, fast, slow / fast)],
    )


_SHAPES = {(96, 96): 28, (192, 192): 9, (400, 200): 2}  # of small images, and how many of each


def small() -> None:
    """Compare small images computed several at once with each alone, and with larger batches.

    The sides take turns, and the processor time of one thread counts. The larger batches are of
    2^20 pixels, and of one image each.
    """
    count_processor_time()
    rows = []
    for name, (shape, count) in itertools.product(("fused", "compact"), _SHAPES.items()):
        images = [picture(512)[k : k + shape[0], k : k + shape[1]] for k in range(count)]
        norm, plain = {"size": _SIZE, "stride": _SIZE // 2, **_NORM}, [network(name)]
        ours, larger = (Segmenter(plain, batch_size=n, **norm) for n in (None, 2**20 // _SIZE**2))
        ways = [_cover_together(ours, images), _cover_alone(ours, images)]
        same = np.mean([(a == b).mean() for a, b in zip(*(way() for way in ways), strict=True)])
        ways.append(_cover_alone(larger, images))
        seconds = np.array([[_processor_seconds(way) for way in ways] for _ in range(3)])
        saved = 100 * (1 - np.median(seconds[:, :1] / seconds[:, 1:], 0))
        rows.append((f"{name}, {shape[0]} x {shape[1]}", *1e3 * np.median(seconds, 0) / count))
        rows[-1] += (*(f"{share:.0f} %" for share in saved), f"{100 * same:.3f} %")
    columns = ["images", "together ms", "alone", "alone, 2^20", "saved", "of 2^20", "same labels"]
    print_table(f"Small images, windows of 96, ms each ({machine()})", columns, rows)


def _cover_together(cover: Segmenter, images: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    return lambda: [
        cover.labels(image)
        for batch in cover.batches(images, lambda image: image.shape[:2])
        for image in cover.together(batch)
    ]


def _cover_alone(cover: Segmenter, images: list[np.ndarray]) -> Callable[[], list[np.ndarray]]:
    return lambda: [cover.labels(image) for image in images]


def _processor_seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def write_any_model(root: Path, channels: int = 3) -> Path:
    """Write a model file of the untrained compact network."""
    table = ClassTable(
        tuple(SegmentationClass(n, v, c) for v, (n, c) in enumerate(_COLOURS.items()))
    )
    card = ModelCard(
        network="compact",
        settings={},
        channels=channels,
        classes=table,
        mean=(128.0,) * channels,
        std=(64.0,) * channels,
        dtype="uint8",
        scale=1.0,
        patch_size=_SIZE,
        symmetries=(),
        scores={},
        name="any",
        store="",
        store_hash="",
        sources=(),
        trained="2026-01-01T00:00:00+00:00",
        patches_seen=0,
    )
    write_model(root / "model.safetensors", network(channels=channels).state_dict(), card)
    return root / "model.safetensors"


_COLOURS = {"ground": "#000000", "one": "#ff0000", "two": "#00ff00"}


def start() -> None:
    """Compare one small image, from start to finish, with ``import torch``."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = write_any_model(root)
        Image.fromarray(picture(200)).save(root / "img.png")
        line = ["-m", "unetseg", "-q", "predict", str(root / "img.png"), "--model", str(model)]
        line += ["--out", str(root / "out"), "--overwrite", "--stride"]
        strides = iter(range(30, 90))  # another each time: an equal call would do nothing

        def predict() -> None:
            subprocess.run(
                [sys.executable, *line, str(next(strides))], check=True, stdout=subprocess.DEVNULL
            )

        def imports() -> None:
            subprocess.run([sys.executable, "-c", "import torch"], check=True)

        mine, torchs = [], []
        for _ in range(5):  # in turn, as the machine may be shared
            mine.append(median_seconds(predict, 1))
            torchs.append(median_seconds(imports, 1))
    a, b = float(np.median(mine)), float(np.median(torchs))
    columns = ["predict s", "import torch s", "times"]
    print_table(f"One image of 200 x 200 ({machine()})", columns, [(a, b, a / b)])


_PREDICT = """
import time
from unetseg import PredictSettings, predict
image, model, out, mode = sys.argv[1:]
begin = time.perf_counter()
done = predict([image], model=[model], out=out, settings=PredictSettings(mode=mode), overlay=False)
print(time.perf_counter() - begin)
print(size())
"""


def _write_large(path: Path, height: int, width: int) -> None:
    """Write an RGB image whose rows of tiles are alike, as TIFF or PNG."""
    tile = picture(512)
    rows = np.tile(tile, (1, -(-width // 512), 1))[:, :width]
    if path.suffix == ".png":
        image = np.tile(rows, (-(-height // 512), 1, 1))[:height]
        Image.fromarray(image).save(path, compress_level=1)
        return
    parts = (
        np.ascontiguousarray(rows[:, x : x + 512])
        for _ in range(-(-height // 512))
        for x in range(0, width, 512)
    )
    tifffile.imwrite(
        path,
        parts,
        shape=(height, width, 3),
        dtype=np.uint8,
        tile=(512, 512),
        photometric="rgb",
        compression="adobe_deflate",
    )


def sizes(
    shapes: tuple[tuple[int, int], ...] = ((2000, 2000), (4000, 4000), (8000, 8000)),
    mode: str = "blend",
) -> None:
    """Measure the cost a pixel and the greatest memory of whole calls of ``predict``, by size."""
    rows, first = [], None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = write_any_model(root)
        for height, width in shapes:
            for suffix in (".tif", ".png"):
                path = root / f"image-{height}{suffix}"
                _write_large(path, height, width)
                (seconds,), memory = peak(_PREDICT, path, model, root / "out", mode)
                each = seconds / (height * width) * 1e6
                first = first or each
                rows.append((f"{height} x {width} {suffix}", seconds, each, each / first, memory))
                path.unlink()
                for made in (root / "out").glob("*.*"):
                    made.unlink()
    columns = ["image", "seconds", "s a megapixel", "of the first", "greatest memory MB"]
    print_table(f"Large images, {mode} ({machine()})", columns, rows)


def wide() -> None:
    """Measure the upper quarter of 20,000 x 20,000, whose bands of rows are as wide."""
    sizes(((5120, 20_000),), "seamless")


def huge() -> None:
    """Measure 20,000 x 20,000 in both modes."""
    for mode in ("seamless", "blend"):
        sizes(((2000, 2000), (20_000, 20_000)), mode)


PARTS = {
    "monai": against_monai,
    "seconds": seconds,
    "modes": modes,
    "loop": against_a_loop,
    "small": small,
    "start": start,
    "sizes": sizes,
    "wide": wide,
    "huge": huge,
}


def main(words: list[str]) -> None:
    """Run the parts named, or all but ``huge``."""
    for name in words or [name for name in PARTS if name != "huge"]:
        PARTS[name]()
