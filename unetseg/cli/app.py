"""The command ``unetseg``: a group of commands that are imported when called."""

import ctypes
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from unetseg import __version__, plugins, signals
from unetseg.cli import boundary, config_file
from unetseg.errors import InputError, MachineError, UnetsegError

# Name -> (module with a function of that name, one line for `unetseg --help`). A person uses the
# commands in this order.
BUILT_INS = {
    "synth": ("unetseg.cli.synth", "Make a synthetic set with a known answer"),
    "label": ("unetseg.cli.label", "Paint masks in a browser tab"),
    "check": ("unetseg.cli.check", "Look at labelled images before anything is trained"),
    "convert": ("unetseg.cli.convert", "Repair labelled images into images/ and masks/"),
    "patch": ("unetseg.cli.patch", "Cut labelled images into a patch store"),
    "train": ("unetseg.cli.train", "Train a U-Net on a patch store or a folder"),
    "predict": ("unetseg.cli.predict", "Write a mask for every image"),
    "evaluate": ("unetseg.cli.evaluate", "Score masks against the truth, class by class"),
    "compare": ("unetseg.cli.compare", "Say whether one model is better than another, or chance"),
    "suspects": ("unetseg.cli.suspects", "Rank the masks that look wrong"),
    "suggest": ("unetseg.cli.suggest", "Say which images to label next"),
    "export": ("unetseg.cli.export", "Write a model as an ONNX file"),
    "info": ("unetseg.cli.info", "Show the content of a store, a model or a run"),
    "runs": ("unetseg.cli.runs", "List all runs with their scores"),
}

# How the threads of OpenMP wait for each other; `_set_waiting` says why.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of `mallopt`, from malloc.h of glibc
_KEPT = 2**30  # bytes of freed memory that a process keeps

_PLUGIN_PANEL = "Commands of plug-ins"


class Commands(TyperGroup):
    """Lists commands without importing them, and imports the command that is called.

    Attributes:
        called: The plug-in whose command was called; None where a built-in one was.
    """

    called: plugins.Plugin | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the global options, shown in the same way as those of the commands."""
        return _tidy(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the built-ins and, sorted, of the plug-ins."""
        return [*BUILT_INS, *sorted(self._plugins(ctx))]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a stub with a name and one line of help, which is all that a list shows."""
        if cmd_name in BUILT_INS:
            return TyperCommand(cmd_name, help=_escape(BUILT_INS[cmd_name][1]))
        if plugin := self._plugins(ctx).get(cmd_name):
            text = _escape(plugin.summary or f"From {plugin.distribution}")
            return TyperCommand(cmd_name, help=text, rich_help_panel=_PLUGIN_PANEL)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        """Import the command that is called, and set its defaults from ``--config``."""
        name, *rest = args
        try:
            command = make_command(name, self._function(ctx, name))
        except Exception as error:
            if ctx.resilient_parsing:  # a shell completes the line; an error would disturb it
                return name, self.get_command(ctx, name), rest
            if self.called and not isinstance(error, UnetsegError):
                raise plugins.failure(self.called, "not usable as a command", error) from error
            raise
        if (path := ctx.params.get("config")) and not ctx.resilient_parsing:
            tables = config_file.read_tables(path)
            if not tables.keys() <= BUILT_INS.keys():
                config_file.check_tables(path, tables, self.list_commands(ctx))
            parameters = command.get_params(ctx)
            ctx.default_map = {
                name: config_file.defaults(path, name, tables.get(name, {}), parameters)
            }
        return name, command, rest

    def invoke(self, ctx: Any) -> None:
        """Run the command. The value that its function returns is not an exit code."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Abort from error  # Typer would end with an exit code and no message

    def _function(self, ctx: Any, name: str) -> Callable[..., Any]:
        if name in BUILT_INS:
            function: Callable[..., Any] = getattr(
                importlib.import_module(BUILT_INS[name][0]), name
            )
            return function
        if plugin := self._plugins(ctx).get(name):
            self.called = plugin
            function = plugins.load(plugin)
            if not inspect.isfunction(function):  # click and Typer objects can be called, too
                raise plugins.no_function(plugin, function)
            return function
        remedy = config_file.suggestion(name, self.list_commands(ctx))
        raise InputError(f"command {name!r}", "not known", remedy)

    def _plugins(self, ctx: Any) -> dict[str, plugins.Plugin]:
        if "plugins" not in ctx.meta:
            ctx.meta["plugins"], warnings = plugins.find(plugins.COMMANDS, BUILT_INS)
            for text in [] if ctx.resilient_parsing else warnings:
                boundary.say(f"unetseg: warning: {text}")
        found: dict[str, plugins.Plugin] = ctx.meta["plugins"]
        return found


class _Command(TyperCommand):
    """A command whose errors name the settings file if that file gives the wrong value."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _tidy(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with config_file.naming_file(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with config_file.naming_file(ctx):
            return super().invoke(ctx)


def make_command(name: str, function: Callable[..., Any]) -> Any:
    """Return the Typer command of a function with Typer annotations.

    The help is the docstring of the function. Paragraphs are wrapped to the width of the terminal.
    Indented lines, such as those of an ``Example:``, stay as they are. Nothing in it is markup.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(name, cls=_Command, help=_help(function))(function)
    command: Any = typer.main.get_command(app)
    for parameter in command.params:
        parameter.help = _escape(parameter.help or "")
    return command


def main(args: Sequence[str] | None = None) -> int:
    """Run ``unetseg`` and return its exit code; every error becomes one line on stderr.

    Args:
        args: The words after ``unetseg``; None takes them from the command line.
    """
    words = _as_options(list(sys.argv[1:] if args is None else args))
    _set_waiting()
    keep_memory()
    group = _group()
    try:
        with signals.exiting(), boundary.standard_streams():
            started = process_start() if args is None else time.monotonic()
            code = group.main(words, prog_name="unetseg", standalone_mode=False, obj=started)
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, and is an error like any other
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return boundary.end_with(error, group.called, debug="--debug" in words)
    finally:
        boundary.settle_streams()


def _as_options(words: list[str]) -> list[str]:
    """Return the words of a command line in which help and version are options.

    Other programs know ``help``, ``help COMMAND``, ``version`` and ``-help``.
    """
    words = ["--help" if word == "-help" else word for word in words]
    if words[:1] == ["help"]:
        return [*words[1:2], "--help"]
    return ["--version"] if words == ["version"] else words


def process_start() -> float:
    """Return the `time.monotonic` at which this process began, before Python read a module.

    Linux alone can tell. Elsewhere the processor time spent so far stands for the time since then,
    because a process that starts does nothing but compute.
    """
    try:
        text = Path("/proc/self/stat").read_text()
        ticks = int(text.rpartition(")")[2].split()[19])  # since the machine started
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        age = -1.0
    if not 0 <= age < 3600:  # containers may count from another moment
        age = time.process_time()
    return time.monotonic() - age


def _set_waiting() -> None:
    """Choose how threads wait for each other, unless the environment does. Runs before torch loads.

    Threads that wait in a busy loop cost nothing on an idle machine. On a machine with other work
    they can cost most of the speed. Threads that sleep at once cost up to a third of the speed,
    because a training step has hundreds of short parallel parts. So threads first wait for about
    0.05 ms in a busy loop. Only GNU's OpenMP has a setting for that time.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)


def keep_memory() -> None:
    """Keep freed memory for the next layer of a network, unless the environment says otherwise.

    glibc returns each block of over 32 MB to the system when it is freed. The system clears every
    page of the next block, which took a third of the time of a seamless pass. Other C libraries do
    not have this setting.
    """
    if "MALLOC_MMAP_MAX_" in os.environ:
        return
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _group() -> Commands:
    app = typer.Typer(
        cls=Commands,
        invoke_without_command=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help=_help(_global_options),
    )
    app.callback()(_global_options)
    group = typer.main.get_command(app)
    assert isinstance(group, Commands)
    return group


def _show_version(wanted: bool) -> None:
    if wanted:
        python = ".".join(map(str, sys.version_info[:3]))
        try:
            torch = metadata.version("torch")
        except metadata.PackageNotFoundError:
            torch = "not installed"
        typer.echo(f"unetseg {__version__}, torch {torch}, Python {python}")
        raise typer.Exit


def _global_options(
    ctx: typer.Context,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Show results, warnings and errors only.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Take options from a TOML file, a table for each command; options given here win.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Segment images with a U-Net that learns from 10 to 200 labelled ones.

    Example:
        unetseg synth --n 100
        unetseg patch --size 96 --per-image 20
        unetseg train --budget 10m
        unetseg predict img.png
        unetseg evaluate
        unetseg train MYFOLDER --folds 5 --budget 10m --html report.html
    """
    if ctx.invoked_subcommand is None:
        ctx.get_help()  # Typer prints the help here
        return
    try:
        Path.cwd()
    except FileNotFoundError:  # Intel's MKL, which torch loads, would end the process
        raise MachineError("the current folder", "is deleted", "change to another") from None
    from unetseg.cli import console

    console.set_quiet(quiet)


def _help(function: Callable[..., Any]) -> str:
    """Return a docstring for Typer: markup escaped, paragraphs on one line for it to wrap.

    Typer removes the indentation that all lines but the first have in common. An empty tag of
    markup before an indented line keeps it.
    """
    paragraphs = _escape(inspect.getdoc(function) or "").split("\n\n")
    kept = (
        p.replace("\n ", "\n[b][/b] ") if "\n " in p else p.replace("\n", " ") for p in paragraphs
    )
    return "\n\n".join(kept)


def _tidy(parameters: list[Any]) -> list[Any]:
    """Show the kind of value beside each option: N for a number, nothing for a switch."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "option" and not parameter.metavar:
            is_number = parameter.type_descriptor.annotation in (int, float)
            parameter.metavar = "N" if is_number else parameter.name.upper()
    return parameters


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
