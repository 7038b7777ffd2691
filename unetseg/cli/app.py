"""The command ``unetseg``: its commands, imported when called, and the one error boundary."""

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from unetseg import __version__, plugins, signals
from unetseg.cli import config_file
from unetseg.errors import Followed, InputError, MachineError, UnetsegError, as_option, worded
from unetseg.text import show

# Name -> (module with a function of that name, one line for `unetseg --help`), in order of use.
BUILT_INS = {
    "synth": ("unetseg.cli.synth", "Make a synthetic set with a known answer"),
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
    "info": ("unetseg.cli.info", "Show what a store, a model or a run holds"),
    "runs": ("unetseg.cli.runs", "List all runs with their scores"),
}

# How threads wait, see `_set_waiting`.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}

_PLUGIN_PANEL = "Commands of plug-ins"
# Whether this is a process of torchrun that leaves it to rank 0 to show results.
_IS_SILENT = os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"

# Typer's own click is private; the base of its public exception is the base of all it raises.
_ClickError: Any = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """Lists commands without importing them; imports the one that is called.

    Attributes:
        called: The plug-in that was called, if it was one.
    """

    called: plugins.Plugin | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options, shown as those of the commands are."""
        return _tidy(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the built-ins and, sorted, of the plug-ins."""
        return [*BUILT_INS, *sorted(self._plugins(ctx))]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """Return a stub with what lists show: name and one line of help."""
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
            if ctx.resilient_parsing:  # shell completion: say nothing
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
        """Run the command; what its function returns is no exit code."""
        try:
            super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Abort from error  # Typer would turn it into an exit code without a word

    def _function(self, ctx: Any, name: str) -> Callable[..., Any]:
        if name in BUILT_INS:
            function: Callable[..., Any] = getattr(
                importlib.import_module(BUILT_INS[name][0]), name
            )
            return function
        if plugin := self._plugins(ctx).get(name):
            self.called = plugin
            function = plugins.load(plugin)
            if not inspect.isfunction(function):  # a click or Typer object can be called, too
                raise plugins.no_function(plugin, function)
            return function
        remedy = config_file.suggestion(name, self.list_commands(ctx))
        raise InputError(f"command {name!r}", "not known", remedy)

    def _plugins(self, ctx: Any) -> dict[str, plugins.Plugin]:
        if "plugins" not in ctx.meta:
            ctx.meta["plugins"], warnings = plugins.find(plugins.COMMANDS, BUILT_INS)
            for text in [] if ctx.resilient_parsing else warnings:
                _say(f"unetseg: warning: {text}")
        found: dict[str, plugins.Plugin] = ctx.meta["plugins"]
        return found


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _tidy(super().get_params(ctx))


def make_command(name: str, function: Callable[..., Any]) -> Any:
    """Return the Typer command of a function with Typer annotations.

    Its docstring is the help: paragraphs are wrapped to the terminal, indented lines (an
    ``Example:``) stay as they are, and nothing in it is markup.
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
        args: What stands after ``unetseg``; None takes it from the command line.
    """
    words = list(sys.argv[1:] if args is None else args)
    _set_waiting()
    group = _group()
    try:
        with signals.exiting(), _standard_streams():
            code = group.main(words, prog_name="unetseg", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()  # a full disk shows here, and is an error like any other
        return code if isinstance(code, int) else 0
    except BaseException as error:
        if "--debug" in words and not isinstance(error, SystemExit):
            _say(traceback.format_exc().rstrip())
        return _exit_code(error, group.called)
    finally:
        _settle_streams()


def _set_waiting() -> None:
    """Choose how threads wait for each other, unless the environment says so; before torch loads.

    In a busy loop costs nothing on an idle machine and, on one that does something else as well, up
    to most of the speed. Asleep costs a third of it on some, as a training step has hundreds of
    short parallel parts. So: a busy loop of about 0.05 ms first, which only GNU's OpenMP is told.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in WAITING.items():
            os.environ.setdefault(name, value)


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
            help="Take options from a TOML file, a table a command; options given here win.",
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
        ctx.get_help()  # prints it
        return
    try:
        Path.cwd()
    except FileNotFoundError:  # Intel's MKL, which torch loads, would end the process over it
        raise MachineError("the current folder", "is deleted", "change to another") from None
    from unetseg.cli import console

    console.set_quiet(quiet)


def _help(function: Callable[..., Any]) -> str:
    """Return a docstring for Typer: markup escaped, paragraphs on one line for it to wrap."""
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    kept = (p if "\n " in p else p.replace("\n", " ") for p in paragraphs)
    return _escape("\n\n".join(kept))


def _tidy(parameters: list[Any]) -> list[Any]:
    """Show of an option what it takes: a number, or a word for it; of a switch nothing."""
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


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """Make stdout and stderr take any character, and a closed stdout an error instead of a trap.

    Where stdout is closed its number would go to the next file opened, a store for one, and
    whatever prints would print into it.
    """
    closed = sys.stdout is None
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if _IS_SILENT:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    yield
    if closed:
        raise MachineError("standard output", "closed: results not shown", "send it to a file")


def _exit_code(error: BaseException, plugin: plugins.Plugin | None) -> int:
    """Say what went wrong in one line and return the exit code that stands for it."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return 141  # what a shell shows for a program ended by SIGPIPE
    if isinstance(error, SystemExit) and not isinstance(error.code, str):
        return error.code or 0
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        if not _IS_SILENT:
            _say("unetseg: error: interrupted by Ctrl-C")
        return 130
    if isinstance(error, Followed):
        return error.exit_code
    shown = _as_shown(error, plugin)
    if not _IS_SILENT or getattr(error, "__notes__", None):  # else rank 0 says the same
        _say(f"unetseg: error: {worded(shown.message, as_option)}")
    return shown.exit_code


def _as_shown(error: BaseException, plugin: plugins.Plugin | None) -> UnetsegError:
    """Return the error of ours that says to a person what ``error`` means."""
    if isinstance(error, UnetsegError):
        return error
    if isinstance(error, _ClickError):
        return _usage_error(error)
    if isinstance(error, MemoryError) or _is_torch_memory(error):
        remedy = "use smaller images, patches or batches, or close other programs"
        return MachineError("memory", "not enough for this", remedy)
    if isinstance(error, OSError):
        return MachineError(
            show(error.filename or "input or output"), error.strerror or str(error), ""
        )
    if plugin:
        return plugins.failure(plugin, "failed", error)
    if isinstance(error, ImportError) and not (error.name or "unetseg").startswith("unetseg"):
        return MachineError(
            error.name, f"cannot be imported ({error})", "install unetseg again with pip"
        )
    problem = f"{type(error).__name__}: {error}"
    return UnetsegError("internal error", problem, "please report it with the output of --debug")


def _is_torch_memory(error: BaseException) -> bool:
    """Whether torch, which is not imported for this, found too little memory on CPU or GPU."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)


def _usage_error(error: Any) -> InputError:
    """Return Typer's error of usage as one of ours, naming the option or argument at fault."""
    ctx, parameter = error.ctx, getattr(error, "param", None)
    path = ctx.command_path if ctx else "unetseg"
    remedy = f"see '{path} --help'" if ctx else "see --help"
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _no_such_option(error, path, remedy)
    if kind == "MissingParameter" and parameter:
        return InputError(_typed_name(parameter), "missing", remedy)
    if kind == "BadOptionUsage":
        problem = error.message.removeprefix(f"Option {error.option_name!r} ").rstrip(".")
        return InputError(error.option_name, problem, remedy)
    if parameter is None:
        what = getattr(error, "param_hint", None) or path
        return InputError(what, error.format_message().rstrip("."), remedy)
    what = _typed_name(parameter)
    source = ctx.get_parameter_source(parameter.name) if ctx else None
    if getattr(source, "name", "") == "DEFAULT_MAP":
        file = ctx.parent.params["config"]
        what = f"{file}: [{ctx.info_name}] {what.removeprefix('--')}"
    return InputError(what, _bad_value(error), remedy)


def _no_such_option(error: Any, path: str, remedy: str) -> InputError:
    name, parent = error.option_name, error.ctx.parent if error.ctx else None
    if parent and any(name in p.opts for p in parent.command.get_params(parent)):
        remedy = f"it stands before the command: 'unetseg {name} ...'"
    elif error.possibilities:
        remedy = f"did you mean {error.possibilities[0]!r}?"
    return InputError(name, f"no such option of '{path}'", remedy)


def _bad_value(error: Any) -> str:
    """Return what is wrong with a value, and the value, which newer Typer leaves out."""
    message = str(error.message).rstrip(".")
    details = getattr(error.__cause__, "errors", None)
    if details is None:
        return message
    value = details()[0]["input"]
    expected = message.removeprefix("Input should be ").partition(", unable")[0]
    return f"{value!r}, expected {expected}" if expected != message else f"{value!r}: {message}"


def _typed_name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return str(max(parameter.opts, key=len))


def _settle_streams() -> None:
    """Drop what stdout and stderr hold and cannot write: Python would fail over it on exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            try:
                stream.flush()
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr full, closed or None
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
