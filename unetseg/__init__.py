"""Multi-class semantic segmentation with U-Net from 10 to 200 labelled images.

A notebook runs the same pipeline as the command line::

    import unetseg

    unetseg.synthesize("data", n=40)
    unetseg.train("data/train", run="first", budget="2m", on_progress="bar")
    unetseg.predict("data/test", model="first")
    found = unetseg.evaluate("data/test", model="first", keep=True)
    unetseg.write_report("report.html", found)
"""

from importlib import import_module

# `typing` is slow to import, and Ctrl-C during its import would print a traceback.
TYPE_CHECKING = False

__version__ = "0.1.0"

_HOMES = {
    "classes": ("ClassTable", "SegmentationClass"),
    "dataset.conversion.copying": ("convert_folder",),
    "dataset.cutting": ("build_store",),
    "dataset.findings.inspection": ("inspect_folder",),
    "dataset.store": ("open_store",),
    "dataset.synthesis": ("synthesize",),
    "errors": (
        "DivergenceError",
        "InputError",
        "Interrupted",
        "MachineError",
        "UnetsegError",
        "UnetsegWarning",
    ),
    "prediction.model": ("Model",),
    "prediction.onnx_export": ("export_onnx",),
    "prediction.session": ("predict",),
    "prediction.suggestions": ("suggest_images",),
    "reports.gathering": ("write_report",),
    "reports.score_report": ("Report",),
    "scoring.comparison": ("compare",),
    "scoring.evaluation": ("evaluate",),
    "scoring.metrics": ("ScoredImage", "Scores"),
    "scoring.suspects": ("rank_suspects",),
    "settings": ("PatchSettings", "PredictSettings", "SynthSettings", "TrainSettings"),
    "training.folds": ("cross_validate", "load_cross_validation"),
    "training.run": ("train",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)

if TYPE_CHECKING:  # `as` tells type checkers that a name is public
    from unetseg.classes import (
        ClassTable as ClassTable,
        SegmentationClass as SegmentationClass,
    )
    from unetseg.dataset.conversion.copying import convert_folder as convert_folder
    from unetseg.dataset.cutting import build_store as build_store
    from unetseg.dataset.findings.inspection import inspect_folder as inspect_folder
    from unetseg.dataset.store import open_store as open_store
    from unetseg.dataset.synthesis import synthesize as synthesize
    from unetseg.errors import (
        DivergenceError as DivergenceError,
        InputError as InputError,
        Interrupted as Interrupted,
        MachineError as MachineError,
        UnetsegError as UnetsegError,
        UnetsegWarning as UnetsegWarning,
    )
    from unetseg.prediction.model import Model as Model
    from unetseg.prediction.onnx_export import export_onnx as export_onnx
    from unetseg.prediction.session import predict as predict
    from unetseg.prediction.suggestions import suggest_images as suggest_images
    from unetseg.reports.gathering import write_report as write_report
    from unetseg.reports.score_report import Report as Report
    from unetseg.scoring.comparison import compare as compare
    from unetseg.scoring.evaluation import evaluate as evaluate
    from unetseg.scoring.metrics import (
        ScoredImage as ScoredImage,
        Scores as Scores,
    )
    from unetseg.scoring.suspects import rank_suspects as rank_suspects
    from unetseg.settings import (
        PatchSettings as PatchSettings,
        PredictSettings as PredictSettings,
        SynthSettings as SynthSettings,
        TrainSettings as TrainSettings,
    )
    from unetseg.training.folds import (
        cross_validate as cross_validate,
        load_cross_validation as load_cross_validation,
    )
    from unetseg.training.run import train as train


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562), so that ``import unetseg`` is quick."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'unetseg' has no attribute {name!r}")
    return getattr(import_module(f"unetseg.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """Return the names that the Tab key offers: the public ones, imported or not."""
    return [*__all__, "__version__"]
