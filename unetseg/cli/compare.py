"""``unetseg compare``."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay
from unetseg.settings import PredictSettings


@options.takes_settings
def compare(
    a: Annotated[
        str, Argument(metavar="A", help="A run, a model file, or a folder of masks of any program.")
    ],
    b: Annotated[str, Argument(metavar="B", help="Another of these, to be compared with A.")],
    folder: Annotated[
        Path | None,
        Argument(
            metavar="FOLDER",
            help="Labelled images.",
            show_default="data/test, else the images the stores of both models held out",
        ),
    ] = None,
    *,
    include_trained: options.IncludeTrained = False,
    group: options.Groups = None,
    settings: PredictSettings,
    json_file: Annotated[
        Path | None, options.output("--json", metavar="FILE", help="Write all numbers.")
    ] = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", help="Replace the file of --json.")
    ] = False,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Say whether one model is better than another, or whether it is chance.

    Both are scored on the same images, without those that either was trained on. The interval is
    that of their difference, image by image. If it holds 0, the images show no difference.

    Example:
        unetseg compare default wide
        unetseg compare default OTHER_MASKS MYTEST --json difference.json
    """
    from unetseg.cli.tables import show_tables, write_json
    from unetseg.scoring.comparison import compare as compare_models

    options.check_writable(overwrite, json_file)
    with ProgressDisplay() as display:
        found = compare_models(
            a,
            b,
            folder,
            settings=settings,
            include_trained=include_trained,
            classes=classes,
            ignore=options.ignored(ignore),
            group=group,
            on_progress=display,
        )
    show_tables(found)
    write_json(json_file, found.to_dict())
