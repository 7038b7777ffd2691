"""``unetseg info``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from unetseg.cli.console import print_line, print_table, swatch

if TYPE_CHECKING:
    from unetseg.classes import ClassTable
    from unetseg.dataset.store import Store
    from unetseg.prediction.model_file import ModelCard

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
    """Show what a store, a model or a run holds.

    Example:
        unetseg info data/patches.h5
        unetseg info default
        unetseg info default --rename 0=background --recolour 1=#ff0000
    """
    from unetseg.dataset import store
    from unetseg.errors import InputError
    from unetseg.prediction import model_file
    from unetseg.prediction.run_folder import resolve_model

    if Path(file).suffix in (".h5", ".hdf5") or _is_store(Path(file)):
        if rename or recolour:
            remedy = "write a classes.toml and patch again, or change the model's"
            raise InputError(file, "a store keeps the names it was made with", remedy)
        _print_store(store.open_store(file))
        return
    for path in resolve_model(file):
        if rename or recolour:
            card = model_file.change_classes(path, rename or (), recolour or ())
            print_line(f"Wrote {path}: its classes are changed, its weights are not.")
            print_line("A classes.toml beside masks to score must have the same names.")
        else:
            card = model_file.read_card(path)
        _print_model(path, card)


def _is_store(path: Path) -> bool:
    """Whether a file begins with the bytes of a patch store, whatever its name."""
    from unetseg.dataset.store import FORMAT
    from unetseg.files import open_regular

    if not path.is_file():
        return False
    with open_regular(path) as opened:
        return opened.read(len(FORMAT)) == FORMAT.encode()


def _print_model(path: Path, card: "ModelCard") -> None:
    trained = card.images_trained_on
    score = card.scores.get("mean_iou")
    rows: list[tuple[str, Any]] = [
        ("model of run", card.name + ("" if card.finished else " (not finished)")),
        ("trained", card.trained),
        ("network", _with_settings(card.network, card.settings)),
        ("images", f"{trained} trained on, {len(card.sources) - trained} held out"),
        ("channels", f"{card.channels}, {card.dtype}"),
        ("patches", f"{card.patch_size} x {card.patch_size} pixels, {card.patches_seen:,} seen"),
        ("scale", f"{card.scale:g}"),
        ("symmetries", ", ".join(card.symmetries) or "none"),
        ("held-out mean IoU", None if score is None else f"{score:.4f}"),
        ("store", card.store),
        ("made by", ", ".join(f"{k} {v}" for k, v in card.versions.items())),
        ("SHA-256", card.sha256),
    ]
    print_table(str(path), ["", "value"], rows)
    iou = card.scores.get("iou") or {}
    _print_classes(card.classes, ("IoU", [iou.get(name) for name in card.classes.names]))


def _print_store(opened: "Store") -> None:
    info = opened.info
    held_out = len(info.held_out)
    rows: list[tuple[str, Any]] = [
        ("made", info.created),
        ("from", info.folder),
        ("images", f"{len(info.sources) - held_out} to train on, {held_out} held out whole"),
        ("patches", f"{len(opened.images):,} of {info.size} x {info.size} pixels"),
        ("margin", f"{info.margin} pixels on each side"),
        ("channels", f"{info.channels}, {info.dtype}"),
        ("scale", f"{info.scale:g}"),
        ("mean", ", ".join(f"{v:.4g}" for v in info.mean)),
        ("deviation", ", ".join(f"{v:.4g}" for v in info.std)),
        ("settings", json.dumps(dict(info.settings))),
        ("made by", f"unetseg {info.version}"),
        ("content", opened.content_hash),
    ]
    print_table(str(opened.path), ["", "value"], rows)
    _print_classes(info.classes, ("train pixels", [f"{n:,}" for n in info.class_pixels_train]))


def _print_classes(table: "ClassTable", last: tuple[str, list[Any]]) -> None:
    rows = [
        (swatch(c.colour), c.name, str(table.key(i)), last[1][i])
        for i, c in enumerate(table.classes)
    ]
    ignored = ", ".join(map(str, table.ignore))
    note = f"{ignored} in masks is ignored" if ignored else ""
    print_table("Classes", ["", "class", "in masks", last[0]], rows, note)


def _with_settings(name: str, settings: Any) -> str:
    return f"{name} ({', '.join(f'{k} {v}' for k, v in settings.items())})" if settings else name
