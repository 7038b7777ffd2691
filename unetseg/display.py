"""Shows the reports of long work as they come: a bar with a table in a terminal or a notebook.

Names of files and classes come from outside. They are never read as markup, and their control
characters are shown as escapes.
"""

import io
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress as Bar,
    ProgressColumn,
    Task,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from unetseg.errors import Wording, as_argument, worded
from unetseg.progress import EpochDone, Note, Plan, Progress
from unetseg.text import format_rate, show

_LOG_WIDTH = 100  # columns where the output is no terminal and COLUMNS does not say
_MIN_WIDTH = 60  # columns; a narrower table in a log is unreadable
_LOG_INTERVAL = 5.0  # seconds between two lines of progress in a log
_CELL_INTERVAL = 0.2  # seconds between two pictures of the bar in a notebook
_EPOCHS = 8  # in the live table


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


def as_text(value: object, style: str, wording: Wording) -> Text:
    """Return a record or another value as text, in which arguments are said by ``wording``."""
    if isinstance(value, Text):
        return value
    text = worded(getattr(value, "message", None) or str(value), wording)
    return Text("\n".join(show(line) for line in text.split("\n")), style=style)


class ProgressDisplay:
    """Shows the records of long work; use it as ``on_progress`` and as a context manager.

    On a terminal and in a notebook, `Progress` is one bar with rate and time left, and `Plan` and
    `EpochDone` are a table above it. Elsewhere `Progress` is a line every few seconds, and one at
    100 %. Any other record is a line. Output that fails never ends the work.

    Args:
        wording: Says the arguments that a message names.
        quiet: Show warnings only.
    """

    def __init__(self, wording: Wording = as_argument, quiet: bool = False) -> None:
        self._console = make_console(stderr=True)
        self._wording, self._quiet = wording, quiet
        self._is_live = self._console.is_interactive or self._console.is_jupyter
        self._training = _TrainingView()
        self._above: RenderableType | None = None
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            _RateColumn(),
            _LeftColumn(),
            console=self._console,
            expand=True,
        )
        self._live: Live | _Cell | None = None
        self._stage, self._began, self._first, self._said = "", 0.0, 0.0, 0.0
        self._complete = self._lost = False

    def __enter__(self) -> Self:
        """Show nothing yet: the display begins with the first record."""
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        """Remove the bar, leave the table above it, and release the terminal."""
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
        if self._lost or (self._quiet and not warning):
            return
        try:
            if isinstance(record, Progress):
                self._show_progress(record)
            elif isinstance(record, Plan | EpochDone) and self._is_live:
                self._above = self._training.show(record)
                self._refresh()
            else:
                self._print(as_text(record, "yellow" if warning else "", self._wording))
        except OSError:  # a full disk under a log, a pipe whose reader left
            self._lost = True  # Rich would otherwise keep all the text that it could not write

    def _show_progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self._stage, self._complete = progress.stage, False
            self._began = self._said = now
            self._first = progress.done
            self._drop_bar()
        if self._is_live:
            self._move_bar(progress)
        else:
            self._log(progress, now)

    def _move_bar(self, progress: Progress) -> None:
        count = f"{progress.done:,.0f}/{progress.total:,.0f} {progress.unit}"
        if not self._bar.tasks:
            self._bar.add_task(show(progress.stage), count=count, unit=progress.unit, left=None)
        self._bar.update(
            self._bar.task_ids[0],
            completed=progress.done,
            total=progress.total,
            count=count,
            left=progress.seconds_left,
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
            self._live = self._new_live()
            self._live.start()
        elif isinstance(self._live, _Cell):
            self._live.refresh()

    def _new_live(self) -> "Live | _Cell":
        if self._console.is_jupyter:
            return _Cell(self._render)
        # Results must stay on stdout; Rich would send them to stderr with the bar.
        return Live(get_renderable=self._render, console=self._console, redirect_stdout=False)

    def _render(self) -> RenderableType:
        parts = (self._above, self._bar if self._bar.tasks else None)
        return Group(*(part for part in parts if part is not None))


class _Cell:
    """A text below the cell of a notebook, which is drawn anew while the cell runs.

    Rich's own `Live` needs a further package there.

    Args:
        render: A function that returns the current text.
    """

    def __init__(self, render: Callable[[], RenderableType]) -> None:
        self._render, self._drawn, self._handle = render, 0.0, None

    def start(self) -> None:
        """Show the text."""
        from IPython import display

        shown: Any = display.display  # it has no types
        self._handle = shown(self, display_id=True)

    def refresh(self) -> None:
        """Draw the text anew, unless it was drawn just now."""
        if time.monotonic() - self._drawn >= _CELL_INTERVAL:
            self._draw()

    def stop(self) -> None:
        """Draw the text for the last time."""
        self._draw()

    def _draw(self) -> None:
        handle: Any = self._handle
        handle.update(self)
        self._drawn = time.monotonic()

    def __repr__(self) -> str:
        return self._printed(Console.export_text)

    def _repr_html_(self) -> str:
        form = '<pre style="line-height: normal">{code}</pre>'
        return self._printed(Console.export_html, inline_styles=True, code_format=form)

    def _printed(self, export: Callable[..., str], **form: Any) -> str:
        console = Console(
            file=io.StringIO(), record=True, width=_LOG_WIDTH, force_jupyter=False, highlight=False
        )
        console.print(self._render())
        return export(console, **form)


class _RateColumn(ProgressColumn):
    """The units a second, shown after two reports."""

    def render(self, task: Task) -> Text:
        """Return the rate as text; it is empty while the rate is not known."""
        return Text(_rate(task.speed, task.fields["unit"]) if task.speed else "")


class _LeftColumn(ProgressColumn):
    """The time left: as reported, else by the speed that the bar sees."""

    def render(self, task: Task) -> Text:
        """Return the time left as text; it is empty while it is not known."""
        left = task.fields["left"]
        if left is None:
            left = task.time_remaining
        return Text("" if left is None else _clock(left))


def _clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: ``0:00:54``."""
    return str(timedelta(seconds=round(seconds)))


def _pace(progress: Progress, speed: float) -> str:
    """Return share, rate and time left for a log: ``, 6 %, 35 tiles/s, 0:00:54 left``."""
    percent = f", {100 * progress.done / progress.total:.0f} %" if progress.total else ""
    if speed <= 0 or progress.done >= progress.total:
        return percent
    left = progress.seconds_left
    if left is None:
        left = (progress.total - progress.done) / speed
    return f"{percent}, {_rate(speed, progress.unit)}, {_clock(left)} left"


def _rate(speed: float, unit: str) -> str:
    return f"{format_rate(speed)} {unit}/s"


class _TrainingView:
    """The live table of a run: its plan, then the last epochs, newest at the bottom."""

    def __init__(self) -> None:
        self._plan = ""
        self._rows: list[dict[str, float | None]] = []

    def show(self, record: Plan | EpochDone) -> RenderableType:
        """Take a record of training, and return the table to show from now on."""
        if isinstance(record, EpochDone):
            self._rows = [*self._rows, dict(record.row)][-_EPOCHS:]
        else:  # a run begins, or a fold
            self._plan, self._rows = str(record), []
        if not self._rows:
            return Text(self._plan)
        return Group(Text(self._plan), self._table())

    def _table(self) -> Table:
        """Return the table of the epochs so far."""
        names = [key.removeprefix("iou_") for key in self._rows[0] if key.startswith("iou_")]
        shown = names[:6]  # more columns do not fit a terminal; the last table has all classes
        table = Table(box=box.SIMPLE_HEAD)
        for title in ("epoch", "loss", "mean IoU", *(show(n)[:12] for n in shown), "patches/s"):
            table.add_column(Text(title), justify="right")
        for row in self._rows:
            scored = ("val_mean_iou", *(f"iou_{name}" for name in shown))
            cells = (f"{row[key]:.3f}" if row[key] is not None else "" for key in scored)
            table.add_row(
                f"{row['epoch']:.0f}",
                f"{row['train_loss']:.4f}",
                *cells,
                format_rate(row["patches_per_second"] or 0),
            )
        return table
