"""``unetseg export``."""

from pathlib import Path
from typing import Annotated

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_table


def export(
    model: options.Models = None,
    out: Annotated[Path, options.output("--out", metavar="FILE", help="The file.")] = Path(
        "model.onnx"
    ),
    opset: Annotated[
        int | None,
        options.output(
            "--opset",
            metavar="N",
            help="Version of the ONNX operators, 18 to 25.",
            show_default="the one that PyTorch writes best",
        ),
    ] = None,
    overwrite: Annotated[bool, options.output("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a model as one ONNX file, for programs without PyTorch.

    Normalisation, softmax and temperature are inside: raw pixels go in, probabilities come out. The
    file is compared with PyTorch before it is written.

    Example:
        unetseg export
        unetseg export --model wide --out wide.onnx
    """
    from unetseg.prediction.onnx_export import export_onnx
    from unetseg.progress import Note
    from unetseg.text import human_bytes, plural

    with ProgressDisplay() as display:
        if out.suffix != ".onnx":
            text = f"{out} will be ONNX, which programs know by the ending .onnx"
            display(Note(text, warning=True))
        done = export_onnx(
            model or ["default"], out, opset=opset, overwrite=overwrite, on_progress=display
        )
    rows = [
        ("image", " x ".join(map(str, done.inputs)), "float32, as in the training images"),
        ("probabilities", " x ".join(map(str, done.outputs)), "float32, in class order"),
    ]
    print_table("Goes in, comes out", ["name", "axes", "values"], rows)
    size = human_bytes(done.path.stat().st_size)
    print_line(
        f"Wrote {done.path} ({size}, opset {done.opset}): ONNX Runtime and PyTorch differ by at "
        f"most {done.difference:.1g}, at {plural(len(done.checked), 'size')}."
    )
