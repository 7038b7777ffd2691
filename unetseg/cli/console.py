"""Shows results on stdout, and progress and warnings on stderr.

Names of files and classes come from outside. They are never read as markup, and their control
characters are shown as escapes.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress as Bar,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from unetseg.errors import UnetsegError, as_option, worded
from unetseg.progress import Note, Progress
from unetseg.text import format_rate, show

_LOG_WIDTH = 100  # columns where the output is no terminal and COLUMNS does not say
_MIN_WIDTH = 60  # columns; a narrower table in a log is unreadable
_LOG_INTERVAL = 5.0  # seconds between two lines of progress in a log

# "12", "-0.5", "97 %", "3.4 MB", "120 /s", and "-" for a missing value
_NUMBER = re.compile(r"-|[-+]?\d[\d.,]*( ?%| [\w/]{1,4})?")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out progress, notes and hints where ``quiet`` is true; warnings and results stay."""
    global _quiet
    _quiet = quiet


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # raises the BrokenPipeError again, so that the error boundary ends the command


def make_console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr that neither reads markup nor adds colours."""
    console = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        columns = os.environ.get("COLUMNS", "")
        console.width = max(_MIN_WIDTH, int(columns) if columns.isdecimal() else _LOG_WIDTH)
    return console


def print_line(text: object = "") -> None:
    """Print a result on stdout, one line or several. Long lines are not broken."""
    make_console().print(_as_text(text), soft_wrap=True)


def print_next(*commands: str) -> None:
    """Print the commands to type next on stdout, one a line. ``--quiet`` leaves them out."""
    if not _quiet:
        print_line("\n".join(["Next:", *(f"  {command}" for command in commands)]))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> None:
    """Print a table on stdout.

    Columns of numbers are right-aligned. Names that do not fit are folded, never cut.

    Args:
        title: Stands above the table; may be empty.
        columns: The heading of each column.
        rows: Each row has one value a column: text, `Text` (see `swatch`), or a number. None is
            shown as "-", a float with three decimals.
        note: Stands below the table; may be empty.
    """
    texts = [[_as_cell(value) for value in row] for row in rows]
    numeric = [
        bool(texts) and all(_is_number(row[i]) for row in texts) for i in range(len(columns))
    ]
    headers = [
        Column(_as_text(name), justify="right", no_wrap=True)
        if right
        else Column(_as_text(name), overflow="fold")
        for name, right in zip(columns, numeric, strict=True)
    ]
    table = Table(*headers, box=box.SIMPLE_HEAD)
    for row in texts:
        table.add_row(*row)
    console = make_console()
    if title:
        console.print(_as_text(title, "bold"), soft_wrap=True)
    console.print(table)
    if note:
        console.print(_as_text(note), soft_wrap=True)


def swatch(colour: str) -> Text:
    """Return two cells painted in ``colour`` ("#rrggbb"), or its name where there is no colour."""
    console = make_console()
    if console.color_system is None or console.no_color:
        return Text(colour)
    return Text("  ", style=f"on {colour}")


class ProgressDisplay:
    """Shows the records of long work; use it as ``on_progress`` and as a context manager.

    On a terminal, `Progress` is one bar with rate and time left. Elsewhere it is a line every few
    seconds, and one at 100 %. `Note` is a line. Any other record is shown by ``view``, or as a
    line. With ``--quiet`` only warnings are shown. Output that fails never ends the work.

    Args:
        view: Takes a record of another type, and returns the text or table that stands above the
            bar from then on. It is called on a terminal only.
    """

    def __init__(self, view: Callable[[object], RenderableType] | None = None) -> None:
        self._console = make_console(stderr=True)
        self._view = view
        self._above: RenderableType | None = None
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
            console=self._console,
            expand=True,
        )
        self._live: Live | None = None
        self._stage, self._began, self._first, self._said = "", 0.0, 0.0, 0.0
        self._complete = self._lost = False

    def __enter__(self) -> Self:
        """Show nothing yet: the display begins with the first record."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Remove the bar, leave the last text of ``view``, and release the terminal."""
        self.pause()

    def pause(self) -> None:
        """Release the terminal until the next record, so that a table can be printed on stdout."""
        if self._live:
            self._drop_bar()
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def __call__(self, record: object) -> None:
        """Show one record."""
        warning = isinstance(record, Note) and record.warning
        if self._lost or (_quiet and not warning):
            return
        try:
            if isinstance(record, Note):
                self._print(_as_text(record, "yellow" if warning else ""))
            elif isinstance(record, Progress):
                self._show_progress(record)
            elif self._view and self._console.is_interactive:
                self._above = self._view(record)
                self._refresh()
            else:
                self._print(_as_text(record))
        except OSError:  # a full disk under a log, a pipe whose reader left
            self._lost = True  # Rich would otherwise keep all the text that it could not write

    def fail(self, error: UnetsegError) -> None:
        """Print one line that says why one input of several failed, even with ``--quiet``."""
        with suppress(OSError):
            self._print(Text(f"unetseg: error: {worded(error.message, as_option)}"))

    def _show_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._complete = progress.stage, False
            self._began = self._said = now
            self._first = progress.done
            self._drop_bar()
        if self._console.is_interactive:
            self._move_bar(progress)
        else:
            self._log(progress, now)

    def _move_bar(self, progress: Progress) -> None:
        count = f"{progress.done:,.0f}/{progress.total:,.0f} {progress.unit}"
        if not self._bar.tasks:
            self._bar.add_task(show(progress.stage), count=count, unit=progress.unit)
        self._bar.update(
            self._bar.task_ids[0], completed=progress.done, total=progress.total, count=count
        )
        self._refresh()

    def _log(self, progress: Progress, now: float) -> None:
        complete = progress.done >= progress.total
        if (complete and not self._complete) or now - self._said >= _LOG_INTERVAL:
            self._said, self._complete = now, complete
            speed = (progress.done - self._first) / max(now - self._began, 1e-9)
            self._print(Text(f"{show(progress)}{_pace(progress, speed)}"))

    def _drop_bar(self) -> None:
        for task in self._bar.task_ids:
            self._bar.remove_task(task)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _refresh(self) -> None:
        if self._live is None:
            # Results must stay on stdout; Rich would send them to stderr with the bar.
            self._live = Live(
                get_renderable=self._render, console=self._console, redirect_stdout=False
            )
            self._live.start()

    def _render(self) -> RenderableType:
        parts = (self._above, self._bar if self._bar.tasks else None)
        return Group(*(part for part in parts if part is not None))


class _RateColumn(ProgressColumn):
    """The units a second, shown after two reports."""

    def render(self, task: Task) -> Text:
        """Return the rate as text; it is empty while the rate is not known."""
        return Text(_rate(task.speed, task.fields["unit"]) if task.speed else "")


def _pace(progress: Progress, speed: float) -> str:
    """Return share, rate and time left for a log: ``, 6 %, 35 tiles/s, 0:00:54 left``."""
    percent = f", {100 * progress.done / progress.total:.0f} %" if progress.total else ""
    if speed <= 0 or progress.done >= progress.total:
        return percent
    left = timedelta(seconds=round((progress.total - progress.done) / speed))
    return f"{percent}, {_rate(speed, progress.unit)}, {left} left"


def _rate(speed: float, unit: str) -> str:
    return f"{format_rate(speed)} {unit}/s"


def _as_text(value: object, style: str = "") -> Text:
    if isinstance(value, Text):
        return value
    text = worded(getattr(value, "message", None) or str(value), as_option)
    return Text("\n".join(show(line) for line in text.split("\n")), style=style)


def _as_cell(value: object) -> Text:
    if value is None:
        return Text("-")
    return _as_text(f"{value:.3f}" if isinstance(value, float) else value)


def _is_number(text: Text) -> bool:
    return _NUMBER.fullmatch(text.plain) is not None
