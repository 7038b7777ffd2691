"""``--config FILE``: options of the commands from a TOML file with one table per command."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unetseg.errors import InputError, UnetsegError, as_option
from unetseg.files import read_toml
from unetseg.text import nearest, show

Tables = dict[str, dict[str, Any]]


def read_tables(path: Path) -> Tables:
    """Read a settings file, in which ``[train]`` stands above lines such as ``epochs = 50``.

    Raises:
        InputError: The file is not found or not TOML (with line and column), or a key stands
            outside a table.
    """
    tables = read_toml(path)
    for key, value in tables.items():
        if not isinstance(value, dict):
            text = f"{key!r} stands outside a table"
            raise InputError(path, text, "write it below its command, such as [train]")
    return tables


def check_tables(path: Path, tables: Tables, commands: Iterable[str]) -> None:
    """Raise `InputError` for a table whose name is not one of ``commands``."""
    known = list(commands)
    for name in tables:
        if name not in known:
            raise InputError(path, f"unknown table [{name}]", suggestion(name, known))


def defaults(path: Path, name: str, table: dict[str, Any], parameters: list[Any]) -> dict[str, Any]:
    """Return the values of ``[name]`` by parameter name, as the command line would give them.

    Args:
        path: The settings file, for errors.
        name: The command.
        table: Its keys are long option names, with - or _, or arguments as ``--help`` shows them.
        parameters: The parameters of the command as Typer builds them.

    Raises:
        InputError: A key is unknown (the message names the nearest known one), or a value has a
            wrong type.
    """
    by_key = {key: parameter for parameter in parameters for key in _keys(parameter)}
    values = {}
    for key, value in table.items():
        parameter = by_key.get(key.lower().replace("-", "_"))
        if parameter is None:
            known = sorted(k.replace("_", "-") for k in by_key)
            text = f"unknown key {key!r} in [{name}]"
            raise InputError(path, text, suggestion(key.replace("_", "-"), known))
        values[parameter.name] = _as_typed(f"{path}: [{name}] {key}", value, parameter)
    return values


@contextmanager
def naming_file(ctx: Any) -> Iterator[None]:
    """Let an error about an argument name the settings file where its value stands there."""
    try:
        yield
    except UnetsegError as error:
        if error.argument:
            error.what = place_of(ctx, as_option(error.argument, None)) or error.what
        raise


def place_of(ctx: Any, option: str) -> str:
    """Return where the settings file gives an option: ``FILE: [train] lr``; "" if it does not.

    Args:
        ctx: The context of the command.
        option: ``--lr``, or the name of an argument in the help.
    """
    for parameter in ctx.command.params:
        if option in (*parameter.opts, parameter.metavar):
            source = ctx.get_parameter_source(parameter.name)
            if source and source.name == "DEFAULT_MAP":
                return f"{ctx.parent.params['config']}: [{ctx.info_name}] {option.lstrip('-')}"
    return ""


def suggestion(name: str, known: list[str]) -> str:
    """Return ``did you mean 'epochs'?``, or all known names where none is close."""
    return nearest(name, known).strip() or f"known are {', '.join(sorted(known))}"


def _keys(parameter: Any) -> list[str]:
    """Return the keys of a parameter: ``val``, ``per_image``, or ``folder`` of an argument."""
    if parameter.param_type_name == "argument":
        metavar = (parameter.metavar or parameter.name).lower()
        return [parameter.name, metavar.strip("[]{}.").replace("-", "_")]
    names = [name[2:] for name in parameter.opts if name.startswith("--")]
    return [n.replace("-", "_") for n in names if n not in ("help", "version")]


def _as_typed(where: str, value: Any, parameter: Any) -> Any:
    """Return ``value`` as the text that a person would type; a switch stays true or false."""
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise InputError(where, f"{show(repr(value))} is no switch", "write true or false")
        return value
    if parameter.nargs != 1 or getattr(parameter, "multiple", False):
        items = value if isinstance(value, list) else [value]
        return [_word(where, item) for item in items]
    return _word(where, value)


def _word(where: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        problem = f"{show(repr(value))} is neither a number nor text"
        raise InputError(where, problem, "see --help for its values")
    return str(value)
