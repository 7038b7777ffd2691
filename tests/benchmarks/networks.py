"""``compact`` beside ``classic``: held-out score by class after the same time of each.

``python -m tests.benchmarks networks [SECONDS [SET]]``. Nothing but the network differs, so the
augmentation too is the same. The set is camvid-100 unless another is named. The held-out images are
those of `accuracy`; in camvid-100 they are a whole video.
"""

import tempfile
from pathlib import Path

from tests.benchmarks.accuracy import SETS, scores_of
from tests.benchmarks.common import DATA, machine, print_table

_SECONDS = 1800.0


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
            scores_of(*folders, root, 0, network=network, budget=seconds)
            for network in ("compact", "classic")
        )
    rows = [
        (part, ours.iou[part], theirs.iou[part], ours.iou[part] - theirs.iou[part])
        for part in ours.classes
    ]
    means = ("mean IoU", ours.mean_iou, theirs.mean_iou, ours.mean_iou - theirs.mean_iou)
    columns = ["IoU", "compact", "classic", "difference"]
    title = f"{name}, {seconds:g} s each, {len(ours.names)} images held out ({machine()})"
    print_table(title, columns, [means, *rows])
