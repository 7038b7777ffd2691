"""``unetseg check``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import Reporter, print_line, print_next, print_table, swatch
from unetseg.errors import InputError
from unetseg.text import quote

if TYPE_CHECKING:
    from unetseg.dataset.survey import Inspection

_OUT = "What is written"
_FINDINGS = 20  # shown; the files of --html and --json hold all


def check(
    folder: Annotated[
        Path, Argument(metavar="FOLDER", help="Labelled images: images/ and masks/.")
    ] = Path("data/train"),
    size: options.Size = "auto",
    scale: options.Scale = 1.0,
    page: options.Page = None,
    val: options.Val = 0.2,
    group: options.Group = None,
    classes: options.Classes = None,
    ignore: options.Ignore = None,
    html: Annotated[
        Path | None,
        Option(
            "--html",
            metavar="FILE",
            help="Write a page with every image beside its mask.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        Option("--json", metavar="FILE", help="Write all findings.", rich_help_panel=_OUT),
    ] = None,
    overwrite: Annotated[
        bool,
        Option("--overwrite", help="Replace the files of --html and --json.", rich_help_panel=_OUT),
    ] = False,
) -> None:
    """Look at labelled images before anything is trained; nothing is changed.

    Says what was understood, and for every problem what to type next. Ends with exit code 2 where
    something stops training.

    Example:
        unetseg check MYFOLDER
        unetseg check MYFOLDER --html sheet.html
        unetseg check MYFOLDER --ignore 255 --group '^(.+)_'
    """
    from unetseg import files
    from unetseg.dataset.survey import inspect_folder
    from unetseg.progress import Note
    from unetseg.reports.dataset_sheet import write_contact_sheet

    options.refuse_existing(overwrite, html, json_file)
    settings = options.patch_settings(size, "auto", 1 / 3, val, group, scale, 0, page)
    with Reporter() as report:
        report(Note(f"looking at the labelled images of {folder}; nothing is changed"))
        found = inspect_folder(
            folder,
            settings,
            classes=classes,
            ignored=options.ignored(ignore),
            on_progress=report,
        )
        if html:
            write_contact_sheet(html, found, page, report)
    _print_facts(found)
    _print_findings(found)
    if json_file:
        text = json.dumps(found.to_dict(), indent=2, ensure_ascii=True)
        files.write_bytes(json_file, f"{text}\n".encode())
    for path in filter(None, (html, json_file)):
        print_line(f"Wrote {path}.")
    if found.table and not found.classes_file:
        print_line(
            f"Classes as found in the masks; to name them, save this as {folder / 'classes.toml'}:"
        )
        lines = found.table.to_toml().rstrip().split("\n")
        print_line("\n".join(f"    {line}".rstrip() for line in lines))
    if found.errors:
        count = (
            "1 problem stops" if len(found.errors) == 1 else f"{len(found.errors)} problems stop"
        )
        raise InputError(folder, f"{count} training", "see above for what to type")
    needed: list[tuple[str, object]] = [  # options of this check that training needs, too
        *(("--ignore", text) for text in ignore or ()),
        ("--group", found.group or group),  # the one suggested, else the one given
        ("--classes", classes),
        ("--page", page),
        ("--size", None if size == "auto" else size),
        ("--scale", None if scale == 1 else f"{scale:g}"),
        ("--val", None if val == 0.2 else f"{val:g}"),
    ]
    given = "".join(f" {name} {quote(value)}" for name, value in needed if value is not None)
    print_next(f"unetseg train {quote(folder)} --budget 10m{given}")


def _print_facts(found: "Inspection") -> None:
    facts = found.to_dict()
    if not facts["images"]:
        return
    sizes = [f"{height} x {width}" for height, width in facts["sizes"]]
    several = f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}"
    formats = ", ".join(f"{count} {name}" for name, count in facts["formats"].items())
    masks = ", ".join(f"{name} ({count})" for name, count in facts["mask_encodings"].items())
    rows = [
        ("images", formats),
        ("rows x columns", sizes[0] if len(sizes) == 1 else several),
        ("channels", " or ".join(map(str, facts["channels"]))),
        ("values", " and ".join(facts["dtypes"])),
        ("masks", masks),
        ("suggested", f"--size {found.size} --scale {found.scale:g}"),
    ]
    first = found.surveys[0].pair
    note = f"Paired by name, such as {first.image.name} with {first.mask.name}."
    print_table(f"{found.root}: {facts['images']} labelled images", ["", "found"], rows, note)
    if facts["classes"]:
        print_table(
            "Classes",
            ["", "class", "in masks", "pixels", "share", "images"],
            [
                (
                    swatch(c["colour"]),
                    c["name"],
                    str(c["in_masks"]),
                    f"{c['pixels']:,}",
                    f"{100 * c['share']:.2f} %",
                    str(c["images"]),
                )
                for c in facts["classes"]
            ],
        )


def _print_findings(found: "Inspection") -> None:
    prefix = f"{found.root}/"
    for finding in found.findings[:_FINDINGS]:
        print_line(f"{finding.severity}: {finding.message}".replace(prefix, ""))
        if finding.line:
            print_line(f"    {finding.line}")
    if len(found.findings) > _FINDINGS:
        print_line(f"and {len(found.findings) - _FINDINGS} more; --json FILE holds all")
    if not found.findings:
        print_line("Nothing is wrong with them.")
