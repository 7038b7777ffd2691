"""``unetseg info``."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from unetseg.cli.console import print_line, print_table

_CHANGE = "Change a model's classes, without training again"


def info(
    file: Annotated[
        str,
        Argument(metavar="FILE", help="A patch store, a model, a run's folder or a run's name."),
    ],
    rename: Annotated[
        list[str] | None,
        Option(
            "--rename",
            metavar="OLD=NEW",
            help="Give a class another name; may be repeated.",
            rich_help_panel=_CHANGE,
        ),
    ] = None,
    recolour: Annotated[
        list[str] | None,
        Option(
            "--recolour",
            metavar="NAME=#RRGGBB",
            help="Paint a class in another colour, where masks are values; may be repeated.",
            rich_help_panel=_CHANGE,
        ),
    ] = None,
) -> None:
    """Show the content of a store, a model or a run.

    Example:
        unetseg info data/patches.h5
        unetseg info default
        unetseg info default --rename 0=background --recolour 1=#ff0000
    """
    from unetseg.cli.tables import show_tables
    from unetseg.dataset import store
    from unetseg.errors import InputError
    from unetseg.prediction import model_file
    from unetseg.prediction.run_folder import resolve_model
    from unetseg.text import quote

    if Path(file).suffix in (".h5", ".hdf5") or _is_store(Path(file)):
        if rename or recolour:
            remedy = "write a classes.toml and patch again, or change the model's"
            raise InputError(file, "a store keeps the names it was made with", remedy)
        show_tables(store.open_store(file))
        return
    try:
        paths = resolve_model(file)
    except InputError as error:
        if Path(file).is_dir():
            text = "a folder without a model"
            remedy = f"for labelled images: unetseg check {quote(file)}"
            raise InputError(file, text, remedy) from None
        text = "no store, no model and no run of this name"
        raise InputError(file, text, error.remedy) from None
    for path in paths:
        if rename or recolour:
            card = model_file.change_classes(path, rename or (), recolour or ())
            print_line(f"Wrote {path}: its classes are changed, its weights are not.")
            print_line("A classes.toml beside masks to score must have the same names.")
        else:
            card = model_file.read_card(path)
        for table in model_file.tables_of(card, str(path)):
            print_table(*table)


def _is_store(path: Path) -> bool:
    """Return whether a file begins with the bytes of a patch store; its name does not count."""
    from unetseg.dataset.store import FORMAT
    from unetseg.files import open_regular

    if not path.is_file():
        return False
    with open_regular(path) as opened:
        return opened.read(len(FORMAT)) == FORMAT.encode()
