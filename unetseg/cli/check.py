"""``unetseg check``."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_next, print_table
from unetseg.cli.tables import print_classes_found, write_json
from unetseg.errors import InputError, as_option
from unetseg.settings import PatchSettings
from unetseg.text import plural, quote

if TYPE_CHECKING:
    from unetseg.dataset.findings.inspection import Inspection

_FINDINGS = 20  # shown; the files of --html and --json hold all


@options.takes_settings
def check(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Labelled images: images/ and masks/.")
    ] = Path("data/train"),
    *,
    settings: Annotated[
        PatchSettings, ("size", "scale", "page", "channels", "crop", "val", "group", "line_width")
    ],
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    html: Annotated[
        Path | None,
        options.output(
            "--html", metavar="FILE", help="Write a page with every image beside its mask."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, options.output("--json", metavar="FILE", help="Write all findings.")
    ] = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", help="Replace the files of --html and --json.")
    ] = False,
) -> None:
    """Look at labelled images before anything is trained; nothing is changed.

    The tables say how the folder was understood, and for every problem what to type next. The exit
    code is 2 where something stops training.

    Example:
        unetseg check MYFOLDER
        unetseg check MYFOLDER --html sheet.html
        unetseg check MYFOLDER --ignore 255 --group '^(.+)_'
    """
    from unetseg.dataset.findings.inspection import inspect_folder
    from unetseg.progress import Note
    from unetseg.reports.dataset_sheet import write_contact_sheet

    options.check_writable(overwrite, html, json_file)
    with ProgressDisplay() as display:
        display(Note(f"looking at the labelled images of {folder}; nothing is changed"))
        found = inspect_folder(
            folder,
            settings,
            classes=classes,
            ignore=options.ignored(ignore),
            on_progress=display,
        )
        if html:
            write_contact_sheet(html, found, settings.selection, display)
    for table in found.facts():
        print_table(*table)
    if found.table and not found.classes_file:
        print_classes_found(found.table, folder)
    write_json(json_file, found.to_dict())
    if html:
        print_line(f"Wrote {html}.")
    _print_findings(found)
    if found.errors:
        count = plural(len(found.errors), "problem stops", "problems stop")
        raise InputError(folder, f"{count} training", "the lines above say what to type")
    changed = (
        (field.name, getattr(settings, field.name), field.default) for field in fields(settings)
    )
    needed: list[tuple[str, object]] = [  # options of this check that training needs, too
        *(("ignore", text) for text in ignore or ()),
        ("group", found.group or None),
        ("classes", classes and str(classes)),
        *((name, value) for name, value, default in changed if value != default),
    ]
    given = "".join(f" {as_option(name, value)}" for name, value in needed if value is not None)
    print_next(f"unetseg train {quote(folder)} --budget 10m{given}")


def _print_findings(found: "Inspection") -> None:
    prefix = f"{found.root}/"
    if len(found.findings) > _FINDINGS:
        print_line(f"{len(found.findings) - _FINDINGS:,} findings more; --json FILE holds all")
    for finding in reversed(found.findings[:_FINDINGS]):  # the worst last, where it is seen
        print_line(f"{finding.severity}: {finding.message}".replace(prefix, ""))
        if finding.line:
            print_line(f"    {finding.line}")
    if not found.findings:
        print_line("Nothing is wrong with them.")
