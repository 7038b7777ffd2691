"""``unetseg suspects``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from unetseg.cli import options
from unetseg.cli.console import ProgressDisplay, print_line, print_table
from unetseg.errors import InputError, arg
from unetseg.settings import PredictSettings
from unetseg.text import plural, quote, show

if TYPE_CHECKING:
    from unetseg.scoring.subjects import Subject
    from unetseg.scoring.suspects import Suspect
    from unetseg.training.folds import CrossValidation


@options.takes_settings
def suspects(
    run: Annotated[
        Path | None,
        Argument(
            metavar="RUN",
            help="A run made with --folds; with --predictions, the folder of labelled images.",
            show_default="default",
        ),
    ] = None,
    *,
    predictions: Annotated[
        Path | None,
        Option(
            "--predictions",
            metavar="FOLDER",
            help="Compare with these masks, made by any program that did not see the true ones.",
        ),
    ] = None,
    n: Annotated[int, Option("--n", min=1, help="Masks shown, the likeliest first.")] = 20,
    html: Annotated[
        Path | None,
        options.output(
            "--html", metavar="FILE", help="Write a page with image, mask and prediction of each."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, options.output("--json", metavar="FILE", help="Write all suspects.")
    ] = None,
    overwrite: Annotated[
        bool, options.output("--overwrite", help="Replace the files of --html and --json.")
    ] = False,
    settings: Annotated[PredictSettings, ("page", "channels", "crop")],
    classes: options.Classes = None,
    ignore: options.Ignore = None,
) -> None:
    """Rank the masks that look wrong, the likeliest mistake first; nothing is changed.

    Each mask is compared with the sure predictions of a model that never saw it. So the command
    needs a run with folds: unetseg train FOLDER --folds 5.

    Example:
        unetseg suspects
        unetseg suspects wide --html suspects.html
        unetseg suspects MYFOLDER --predictions MASKS
    """
    from unetseg.cli.tables import write_json
    from unetseg.progress import Note, steps
    from unetseg.scoring.suspects import rank_suspects

    options.check_writable(overwrite, html, json_file)
    with ProgressDisplay() as display:
        found: CrossValidation | Subject
        if predictions:
            from unetseg.scoring.evaluation import evaluate

            found = evaluate(
                run,
                predictions=predictions,
                settings=settings,
                classes=classes,
                ignore=options.ignored(ignore),
                on_progress=display,
            ).subject
            names, title = found.names, found.title
        else:
            for name, given in (
                *((name, getattr(settings, name)) for name in ("page", "channels", "crop")),
                ("classes", classes),
                ("ignore", ignore),
            ):
                if given is not None:
                    raise InputError(
                        arg(name), "is for --predictions", "leave it out: the run has it"
                    )
            found = _run_with_folds(run or Path("default"))
            names, title = found.scores.names, f"{found.folder} against {found.run.path}"
        display(Note(f"looking for wrong masks among the {len(names)} of {show(title)}"))

        numbers = steps(range(len(names)), "comparing", "images", display, name=names.__getitem__)
        ranked = rank_suspects(map(found.scored_image, numbers), found.classes.names)
        if html:
            from unetseg.reports.suspect_sheet import write_suspects

            places = {name: k for k, name in enumerate(names)}
            write_suspects(
                html,
                ranked[:n],
                lambda name: found.scored_image(places[name]),
                found.classes,
                title,
                display,
            )
    _print_ranked(ranked, n, f"{title}: {plural(len(names), 'mask')}")
    write_json(json_file, [_to_dict(k, s) for k, s in enumerate(ranked, 1)])
    if html:
        print_line(f"Wrote {html}.")


def _run_with_folds(run: Path) -> "CrossValidation":
    from unetseg.prediction.run_folder import RunFolder
    from unetseg.training.folds import load_cross_validation

    place = RunFolder(run)
    if place.model.exists() and not place.folds.exists():
        text = "its masks of training images were made by a model that saw them"
        line = f"unetseg train FOLDER --folds 5 --run {quote(f'{run.name}-folds')}"
        raise InputError(place.path, text, f"train with --folds 5: {line}")
    return load_cross_validation(run)


def _print_ranked(ranked: "tuple[Suspect, ...]", n: int, title: str) -> None:
    if not ranked:
        print_line(f"{title}. Nothing speaks against any of them.")
        return
    from unetseg.scoring.suspects import LIKELY

    rare = sum(s.score > LIKELY for s in ranked)
    rows = [
        (str(k), s.name, f"{s.score:.1f}", s.text, _span(*s.box[::2]), _span(*s.box[1::2]))
        for k, s in enumerate(ranked[:n], 1)
    ]
    count = plural(rare, "of them scores", "of them score")
    note = f"{count} over {LIKELY:g}, which is rare among correct masks."
    if len(ranked) > n:
        hidden = plural(len(ranked) - n, "more is", "more are")
        note += f" {hidden} not shown: --n {len(ranked)}."
    print_table(title, ["rank", "image", "score", "suspicion", "rows", "columns"], rows, note)


def _span(first: int, length: int) -> str:
    return f"{first} to {first + length - 1}"


def _to_dict(rank: int, suspect: "Suspect") -> dict[str, object]:
    names = ("top", "left", "height", "width")
    return {
        "rank": rank,
        "image": suspect.name,
        "score": suspect.score,
        "text": suspect.text,
        "box": dict(zip(names, suspect.box, strict=True)),
    }
