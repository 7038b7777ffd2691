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

TYPE_CHECKING = False  # typing itself is slow to import: Ctrl-C meanwhile would be a traceback

__version__ = "0.1.0"

_HOMES = {
    "ClassTable": "classes",
    "Model": "models",
    "PatchSettings": "config",
    "PredictSettings": "config",
    "Report": "html_report",
    "Scores": "metrics",
    "SegmentationClass": "classes",
    "SynthSettings": "synthesis",
    "TrainSettings": "config",
    "UnetsegError": "errors",
    "build_store": "preparation",
    "compare": "comparison",
    "convert_folder": "conversion",
    "cross_validate": "cross_validation",
    "evaluate": "evaluation",
    "export_onnx": "onnx_export",
    "inspect_folder": "inspection",
    "load_cross_validation": "cross_validation",
    "open_store": "store",
    "predict": "inference",
    "rank_suspects": "suspects",
    "suggest_images": "suggestions",
    "synthesize": "preparation",
    "train": "training",
    "write_report": "html_report",
}

__all__ = [
    "ClassTable",
    "Model",
    "PatchSettings",
    "PredictSettings",
    "Report",
    "Scores",
    "SegmentationClass",
    "SynthSettings",
    "TrainSettings",
    "UnetsegError",
    "build_store",
    "compare",
    "convert_folder",
    "cross_validate",
    "evaluate",
    "export_onnx",
    "inspect_folder",
    "load_cross_validation",
    "open_store",
    "predict",
    "rank_suspects",
    "suggest_images",
    "synthesize",
    "train",
    "write_report",
]

if TYPE_CHECKING:
    from unetseg.classes import ClassTable, SegmentationClass
    from unetseg.comparison import compare
    from unetseg.config import PatchSettings, PredictSettings, TrainSettings
    from unetseg.conversion import convert_folder
    from unetseg.cross_validation import cross_validate, load_cross_validation
    from unetseg.errors import UnetsegError
    from unetseg.evaluation import evaluate
    from unetseg.html_report import Report, write_report
    from unetseg.inference import predict
    from unetseg.inspection import inspect_folder
    from unetseg.metrics import Scores
    from unetseg.models import Model
    from unetseg.onnx_export import export_onnx
    from unetseg.preparation import build_store, synthesize
    from unetseg.store import open_store
    from unetseg.suggestions import suggest_images
    from unetseg.suspects import rank_suspects
    from unetseg.synthesis import SynthSettings
    from unetseg.training import train


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), so that ``import unetseg`` is quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'unetseg' has no attribute {name!r}")
    return getattr(import_module(f"unetseg.{_HOMES[name]}"), name)
