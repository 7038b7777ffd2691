"""Multi-class semantic segmentation with U-Net from 10 to 200 labelled images.

The same pipeline as the command line, for a notebook::

    import unetseg

    unetseg.synthesize("data", n=100)
    unetseg.build_store("data/train", "data/patches.h5")
    unetseg.train("data/patches.h5", run="first", budget=600, on_progress=print)
    unetseg.predict(["data/test"], models=["first"])
    print(unetseg.evaluate("data/test", models=["first"]).scores.mean_iou)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ClassTable": "classes",
    "Model": "inference",
    "PatchSettings": "config",
    "PredictSettings": "config",
    "Scores": "metrics",
    "SegmentationClass": "classes",
    "SynthSettings": "synthesis",
    "TrainSettings": "config",
    "UnetsegError": "errors",
    "build_store": "preparation",
    "convert_folder": "conversion",
    "evaluate": "evaluation",
    "inspect_folder": "inspection",
    "open_store": "store",
    "predict": "inference",
    "synthesize": "preparation",
    "train": "training",
}

__all__ = [
    "ClassTable",
    "Model",
    "PatchSettings",
    "PredictSettings",
    "Scores",
    "SegmentationClass",
    "SynthSettings",
    "TrainSettings",
    "UnetsegError",
    "build_store",
    "convert_folder",
    "evaluate",
    "inspect_folder",
    "open_store",
    "predict",
    "synthesize",
    "train",
]

if TYPE_CHECKING:
    from unetseg.classes import ClassTable, SegmentationClass
    from unetseg.config import PatchSettings, PredictSettings, TrainSettings
    from unetseg.conversion import convert_folder
    from unetseg.errors import UnetsegError
    from unetseg.evaluation import evaluate
    from unetseg.inference import Model, predict
    from unetseg.inspection import inspect_folder
    from unetseg.metrics import Scores
    from unetseg.preparation import build_store, synthesize
    from unetseg.store import open_store
    from unetseg.synthesis import SynthSettings
    from unetseg.training import train


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562), so that ``import unetseg`` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unetseg' has no attribute {name!r}")
    return getattr(import_module(f"unetseg.{_HOMES[name]}"), name)
