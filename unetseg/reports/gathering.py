"""The content of a report: scores of a run or an evaluation, baselines, suspects and curves."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unetseg import __version__
from unetseg.arguments import Reports, public
from unetseg.errors import InputError
from unetseg.files import check_writable, read_toml
from unetseg.prediction.calibration import Calibration, Reliability
from unetseg.prediction.run_folder import RunFolder, read_history
from unetseg.progress import Note, OnProgress, silent, steps, warn
from unetseg.reports.object_part import object_part
from unetseg.reports.score_report import Report, write_page
from unetseg.scoring.baselines import (
    Baseline,
    compare_with_baselines,
    forest_of_folds,
    forest_seconds,
    most_common,
)
from unetseg.scoring.evaluation import Evaluation, evaluation_of
from unetseg.scoring.metrics import ScoredImage, Scores
from unetseg.scoring.predictions import PassedProbabilities
from unetseg.scoring.suspects import LIKELY, Suspect, rank_suspects
from unetseg.text import plural, show
from unetseg.training.fold_record import FoldRecord
from unetseg.training.folds import CrossValidation
from unetseg.training.forecast import Afterwards
from unetseg.training.loop import TrainResult

_FOREST_PIXELS = 100_000_000  # filtering so many pixels takes about a minute
_PAGE_SECONDS = 1.0  # the imports and the pictures of a page
_PAGE_READINGS = 8.0  # looking at an image and its masks costs so many times its decoding


def after_training() -> Afterwards:
    """Return the work of `report_training`, as `unetseg.train` takes it."""
    return Afterwards(_PAGE_SECONDS, PassedProbabilities())


@public()
def write_report(
    path: str | os.PathLike[str],
    result: Evaluation | TrainResult | CrossValidation | Report,
    *,
    overwrite: bool = False,
    on_progress: Reports = warn,
) -> None:
    """Write a result as one HTML file that needs no other file and no network, whole or not at all.

    It shows the scores, the worst and the best images, and the course of the training. With folds
    it also shows simple methods and the masks that are probably wrong.

    Args:
        path: The file.
        result: The result of `evaluate`, `train` or `cross_validate`, or a `Report` of your own.
            Where `evaluate` was called without ``keep=True``, each image is predicted again.
        overwrite: Replace a file that is there.
        on_progress: Receives `Note` and `Progress`.

    Raises:
        InputError: ``path`` exists, the result has no scores, or an image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    check_writable(Path(path), overwrite)
    if isinstance(result, Evaluation):
        report_evaluation(path, result, overwrite, on_progress)
    elif isinstance(result, TrainResult):
        if result.scores is None:
            remedy = "evaluate its model on labelled images, and write that result"
            raise InputError(result.run.path, "this training scored no images", remedy)
        report_training(path, result.scores, result.run, None, overwrite, on_progress)
    elif isinstance(result, CrossValidation):
        baselines = baselines_of_folds(result, on_progress=on_progress)
        report_folds(path, result, baselines, overwrite, on_progress)
    else:
        write_page(path, result, overwrite=overwrite, on_progress=on_progress)


def seconds_after_folds(record: FoldRecord, html: bool) -> float:
    """Estimate how long `baselines_of_folds` takes, and `report_folds` where ``html`` is true.

    The speed of this machine is measured at each call.

    Args:
        record: The run before its folds are done.
        html: Whether its report will be written.
    """
    selection = record.cutting.selection
    infos = [one.pair.read_info(selection) for one in record.images]
    pixels = sum(info.height * info.width for info in infos)
    begin = time.monotonic()
    image = record.images[0].pair.read_image(selection)
    reads = (time.monotonic() - begin) * len(infos)
    seconds = _PAGE_SECONDS + _PAGE_READINGS * reads if html else 0.0
    if pixels > _FOREST_PIXELS or find_spec("sklearn") is None:
        return seconds
    return seconds + 4 * reads + forest_seconds(image, pixels, record.folds)


def baselines_of_folds(
    found: CrossValidation, until: float = math.inf, on_progress: OnProgress = silent
) -> tuple[Baseline, ...]:
    """Return the scores of simple methods on the images of a run with folds, fold by fold.

    The random forest is left out where scikit-learn is not installed, where so many pixels would
    take minutes, and where ``until``, a `time.monotonic`, is over. A note says why.
    """
    scores, folds = found.scores, [one.fold for one in found.images]
    pixels = scores.matrices.sum(axis=2)  # (images, classes), the true ones
    others = [pixels[[other != fold for other in folds]].sum(axis=0) for fold in folds]
    baselines = [most_common(scores, others)]
    try:
        if pixels.sum() > _FOREST_PIXELS:
            text = f"{pixels.sum() / 1e6:.0f} million pixels would take minutes"
            raise InputError("random forest", text, "")
        forest = forest_of_folds(
            found.scored_image,
            folds,
            scores.classes,
            groups=scores.groups,
            until=until,
            on_progress=on_progress,
        )
        baselines.append(forest)
    except InputError as error:
        on_progress(Note(f"no random forest to compare with: {error.problem}; {error.remedy}"))
    return tuple(baselines)


def report_folds(
    path: str | os.PathLike[str],
    found: CrossValidation,
    baselines: Sequence[Baseline],
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> tuple[Suspect, ...]:
    """Write the report of a run with folds; return the masks that may be wrong.

    Args:
        path: The HTML file.
        found: The run.
        baselines: The result of `baselines_of_folds`.
        overwrite: Replace a file that is there.
        on_progress: Receives `Progress`.

    Raises:
        InputError: ``path`` exists, or an image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    walk = _Walk(found.scored_image, found.scores.names, on_progress)
    suspects = rank_suspects(walk.images(), found.scores.classes)
    images, folds = plural(len(found.images), "image"), plural(found.folds, "fold")
    report = Report(
        title=show(found.folder.name),
        subject=f"{images} in {folds}, each scored by a {found.settings['network']} U-Net that "
        f"never saw it; {plural(found.patches, 'patch', 'patches')} in all.",
        scores=found.scores,
        classes=found.classes,
        scored_image=found.scored_image,
        baselines=baselines,
        verdict=compare_with_baselines(found.scores, baselines),
        histories=found.histories(),
        suspects=[one for one in suspects if one.score > LIKELY],
        calibration=walk.calibration(),
        settings=_given({**found.cutting, **found.settings}),
        data={
            "folder": str(found.folder),
            "images": str(len(found.images)),
            "SHA-256 of images and masks": found.content,
        },
        versions=_versions(),
        lines=(
            f"unetseg suspects{found.run.option('')}",
            f"unetseg predict NEWIMAGES{found.run.option('--model')}",
        ),
    )
    write_page(path, report, overwrite=overwrite, on_progress=on_progress)
    return suspects


def report_training(
    path: str | os.PathLike[str],
    scores: Scores,
    run: RunFolder,
    passed: PassedProbabilities | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> None:
    """Write the report of a run from the scores of its held-out images; see `report_evaluation`.

    Args:
        path: The HTML file.
        scores: The scores of the training.
        run: The run.
        passed: The probabilities that the training computed for them, if they are known.
        overwrite: Replace a file that is there.
        on_progress: Receives `Note` and `Progress`.
    """
    held_out = evaluation_of(scores, run.path, passed, on_progress)
    report_evaluation(path, held_out, overwrite, on_progress)


def report_evaluation(
    path: str | os.PathLike[str],
    found: Evaluation,
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> None:
    """Write the report of an evaluation.

    An image is predicted again where the evaluation did not keep its prediction. Settings and
    history are those of the run in whose folder the model lies.

    Args:
        path: The HTML file.
        found: The evaluation.
        overwrite: Replace a file that is there.
        on_progress: Receives `Progress`.

    Raises:
        InputError: ``path`` exists, or an image cannot be read any more.
        MachineError: The disk is full, or writing is not permitted.
    """
    scores, model = found.scores, found.subject.model
    run = RunFolder(model.parent) if model else None
    walk = _Walk(found.subject.scored_image, scores.names, on_progress)
    for _ in walk.images():
        pass
    left_out = f"; {found.subject.trained_on} of {found.total} were trained on and are left out"
    images = plural(len(scores.names), "image")
    # The most common class of the images at hand: a baseline at least as high as any other's.
    baselines = (most_common(scores, scores.confusion.sum(axis=1)),)
    report = Report(
        title=show(found.subject.title),
        subject=f"{images}{left_out if found.subject.trained_on else ''}.",
        scores=scores,
        classes=found.subject.classes,
        scored_image=found.subject.scored_image,
        baselines=baselines,
        verdict=compare_with_baselines(scores, baselines),
        histories={run.name: read_history(run.history)} if run and run.history.exists() else {},
        thresholds=found.curves,
        calibration=walk.calibration(),
        settings=_given(read_toml(run.config)["train"]) if run and run.config.exists() else {},
        versions=_versions(),
        objects=object_part(found, found.objects, on_progress) if found.objects else None,
    )
    write_page(path, report, overwrite=overwrite, on_progress=on_progress)


class _Walk:
    """Goes through all images once, and counts on the way how often confidence is right."""

    def __init__(
        self,
        scored_image: Callable[[int], ScoredImage],
        names: Sequence[str],
        on_progress: OnProgress,
    ) -> None:
        self._scored_image, self._names, self._on_progress = scored_image, names, on_progress
        self._reliability, self._sure = Reliability(), True

    def images(self) -> Iterator[ScoredImage]:
        """Yield all images."""
        numbers = range(len(self._names))
        for k in steps(
            numbers, "looking at", "images", self._on_progress, name=self._names.__getitem__
        ):
            one = self._scored_image(k)
            if one.confidence is None:
                self._sure = False
            else:
                self._reliability.add(one.truth, one.prediction, one.confidence)
            yield one

    def calibration(self) -> Calibration | None:
        """Return whether confidence is right; None where it is not known of every image."""
        return self._reliability.calibration() if self._sure else None


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _versions() -> dict[str, str]:
    used = ("torch", "numpy", "scipy", "h5py", "pillow")
    return {
        "unetseg": __version__,
        "Python": platform.python_version(),
        **{name: version(name) for name in used},
        "machine": f"{platform.system()} {platform.machine()}",
    }
