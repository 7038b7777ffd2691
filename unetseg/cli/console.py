"""How things are shown: results on stdout, progress and warnings on stderr.

Text from outside (names of files and classes) is never read as markup, and its control characters
are shown as escapes.
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
_MIN_WIDTH = 60  # narrower tables in a log are unreadable
_LOG_INTERVAL = 5.0  # seconds between two lines of progress in a log

# "12", "-0.5", "97 %", "3.4 MB", "120 /s", and "-" for a missing value
_NUMBER = re.compile(r"-|[-+]?\d[\d.,]*( ?%| [\w/]{1,4})?")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Show (False) or leave out (True) progress, notes and hints; warnings and results stay."""
    global _quiet
    _quiet = quiet


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError being handled: `main` ends on it, and ends every command so


def make_console(*, stderr: bool = False) -> Console:
    """Return a console for stdout or stderr that reads no markup and colours nothing by itself."""
    console = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        columns = os.environ.get("COLUMNS", "")
        console.width = max(_MIN_WIDTH, int(columns) if columns.isdecimal() else _LOG_WIDTH)
    return console


def print_line(text: object = "") -> None:
    """Print a result on stdout: one line, or several as they stand; long ones are not broken."""
    make_console().print(_as_text(text), soft_wrap=True)


def print_next(*commands: str) -> None:
    """Print on stdout what to type next, one command a line; nothing with ``--quiet``."""
    if not _quiet:
        print_line("\n".join(["Next:", *(f"  {command}" for command in commands)]))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = ""
) -> None:
    """Print a table on stdout.

    Columns of numbers are right-aligned; names that do not fit are folded, never cut.

    Args:
        title: Stands above; may be empty.
        columns: The heading of each column.
        rows: One value a column: text, `Text` (see `swatch`), numbers; None is shown as "-",
            a float with three decimals.
        note: Stands below; may be empty.
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
    """Return two cells painted in ``colour`` ("#rrggbb"), or its name where nothing is coloured."""
    console = make_console()
    if console.color_system is None or console.no_color:
        return Text(colour)
    return Text("  ", style=f"on {colour}")


class ProgressDisplay:
    """Shows what long work reports; use it as ``on_progress`` and as a context manager.

    On a terminal, `Progress` is one bar with rate and time left; elsewhere it is a line every few
    seconds and at 100 %. `Note` is a line. Any other record is shown by ``view``, or as a line.
    With ``--quiet`` only warnings are shown. Output that fails never ends the work.

    Args:
        view: Given a record of another type, returns what stands above the bar from now on (a
            table of the training so far); called on a terminal only.
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
        """Show nothing yet: the display begins with the first report."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Take the bar away, leave what ``view`` made, and give the terminal back."""
        self.pause()

    def pause(self) -> None:
        """Give the terminal back, for a table on stdout for one, until the next report."""
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
            self._lost = True  # nobody looks; Rich would keep all that it could not write

    def fail(self, error: UnetsegError) -> None:
        """Say on a line of its own that one input of several failed, and why; ``-q`` too."""
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
            # stdout keeps its own way: results must not end up on stderr
            self._live = Live(
                get_renderable=self._render, console=self._console, redirect_stdout=False
            )
            self._live.start()

    def _render(self) -> RenderableType:
        parts = (self._above, self._bar if self._bar.tasks else None)
        return Group(*(part for part in parts if part is not None))


class _RateColumn(ProgressColumn):
    """Units a second, once two reports have come."""

    def render(self, task: Task) -> Text:
        """Return the rate as text; empty while it is not known."""
        return Text(_rate(task.speed, task.fields["unit"]) if task.speed else "")


def _pace(progress: Progress, speed: float) -> str:
    """Return share, rate and time left for a line of a log: ``, 6 %, 35 tiles/s, 0:00:54 left``."""
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
