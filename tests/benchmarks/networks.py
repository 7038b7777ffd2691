"""``compact`` beside ``classic``: held-out score by class after the same time of each.

``python -m tests.benchmarks networks [SECONDS [SET]]``. Nothing but the network differs, so the
augmentation too is the same; the held-out images are those of `accuracy`: of camvid-100, where
they are a whole video, unless another set is named.
"""

import tempfile
from pathlib import Path

from tests.benchmarks.accuracy import SETS
from tests.benchmarks.common import DATA, machine, print_table
from unetseg import PatchSettings, evaluate, train
from unetseg.metrics import Scores

_SECONDS = 1800.0


def measure(network: str, folders: tuple[Path, Path], run: Path, seconds: float) -> Scores:
    """Return the scores on whole held-out images of a run on all the others."""
    settings = PatchSettings(val=0)
    result = train(folders[0], run=run, patches=settings, network=network, budget=seconds)
    scores = evaluate(folders[1], models=[str(run)]).scores
    print(f"{network}: {scores.mean_iou:.4f} after {result.patches} patches", flush=True)
    return scores


def main(words: list[str]) -> None:
    """Measure and print."""
    if not DATA.exists():
        print("networks: left out, the data sets are not here")
        return
    seconds = float(words[0]) if words else _SECONDS
    name = words[1] if len(words) > 1 else "camvid-100"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        folders = SETS[name](root / name)
        ours, theirs = (
            measure(network, folders, root / network, seconds) for network in ("compact", "classic")
        )
    rows = [
        (part, ours.iou[part], theirs.iou[part], ours.iou[part] - theirs.iou[part])
        for part in ours.classes
    ]
    means = ("mean IoU", ours.mean_iou, theirs.mean_iou, ours.mean_iou - theirs.mean_iou)
    columns = ["IoU", "compact", "classic", "difference"]
    title = f"{name}, {seconds:g} s each, {len(ours.names)} images held out ({machine()})"
    print_table(title, columns, [means, *rows])
