"""The only way in which unetseg writes files, whole or not at all, and opens regular files.

A file is written under a temporary name in its own folder, flushed to the disk, and renamed to its
final name. A reader sees the old file or the new one, never a part. The temporary name holds host
and process. By this name, the next process that writes into the folder recognises and removes the
file of a killed process.

A journal is the exception: `append` adds a record to it, and its reader drops a torn last one.
"""

import errno
import functools
import itertools
import os
import re
import secrets
import shutil
import socket
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

from unetseg.errors import InputError, MachineError, arg
from unetseg.text import human_bytes, show

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20] or "host"
_TOKEN = secrets.token_hex(4)  # in a container, a later process may have the same number
_NUMBERS = itertools.count()
_LEFTOVER = re.compile(rf"\..*\.{_HOST}-(\d+)-([0-9a-f]{{8}})-\d+\.tmp", re.DOTALL)

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would pass the size limit of this process",
    errno.EACCES: "no permission to write here",
    errno.EPERM: "no permission to write here",
    errno.EROFS: "this file system is read-only",
    errno.EMFILE: "too many open files",
    errno.ENOMEM: "not enough memory",
    errno.EIO: "the disk reported an input/output error",
}


def change_time(path: Path) -> int:
    """Return the time of a file's last change in nanoseconds; 0 where it cannot be told."""
    try:
        return path.stat().st_mtime_ns
    except OSError:  # it is not there, or another program replaces it at this moment
        return 0


def machine_error(path: Path, error: OSError) -> MachineError:
    """Return the `MachineError` that says in plain words why ``path`` could not be written."""
    problem = _REASONS.get(error.errno or 0, error.strerror or str(error))
    if error.errno is None:  # NumPy says how much it wrote, and not why it stopped
        problem = f"the disk is full, or a size limit is reached ({error})"
    return MachineError(path, f"not written: {problem}", "an earlier file is unchanged")


def make_folder(path: Path) -> Path:
    """Create the folder ``path`` with its parents where missing, and return it.

    Raises:
        InputError: A file stands at ``path`` or at one of its parents.
        MachineError: No permission, a full disk, a read-only file system.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(path, "a file stands where a folder is due", "choose another") from None
    except OSError as error:
        raise machine_error(path, error) from None
    return path


def check_free(path: Path, needed: int) -> None:
    """Raise `MachineError` if the disk of ``path`` has less than ``needed`` bytes + 10 % free.

    A disk that fills up later costs the work done so far. Inside HDF5 it can end the process.
    """
    folder = _existing_parent(path)
    free = shutil.disk_usage(folder).free
    if needed * 1.1 > free:
        text = f"needs {human_bytes(needed * 1.1)}, {human_bytes(free)} free on the disk"
        raise MachineError(path, text, "free some space or write elsewhere")


def reserve(file: BinaryIO, size: int) -> None:
    """Make a file ``size`` bytes long and claim them, so that a full disk is an error here.

    Later, where the file is mapped into memory, a full disk would end the process.

    Raises:
        OSError: The disk is full, or the file would pass a limit.
    """
    file.truncate(size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not on this file system
                raise


def check_writable(path: Path, overwrite: bool) -> None:
    """Fail where `replacing` would, before the work whose result goes to ``path`` is done.

    Raises:
        InputError: ``path`` exists and must not be overwritten, or no file can stand there.
        MachineError: There is no permission to write there.
    """
    if path.exists() and not overwrite:
        raise InputError(
            path, "already exists", f"choose another name, or {arg('overwrite', True)}"
        )
    _check_target(path)
    folder = _existing_parent(path)
    if not folder.is_dir():
        raise InputError(folder, "a file stands where a folder is due", "choose another")
    if not os.access(folder, os.W_OK):
        raise MachineError(folder, "no permission to write here", "choose another folder")


def _existing_parent(path: Path) -> Path:
    """Return the nearest of the parents of ``path`` that exists."""
    return next(p for p in [path.parent, *path.parent.parents, Path()] if p.exists())


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to. On success it becomes ``path`` in one durable step.

    The temporary file exists and is empty. On any exception it is removed and ``path`` stays as
    it was. Missing parent folders are made.

    Raises:
        InputError: ``path`` is a folder or a device, or its name is too long.
        MachineError: The disk is full or read-only, permission is missing, and the like.
    """
    final = Path(path)
    _check_target(final)
    make_folder(final.parent)
    _remove_leftovers(final.parent.absolute())
    temporary = _temporary_name(final)
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
        os.close(os.open(temporary, flags, 0o666))
        yield temporary
        _sync(temporary)
        os.replace(temporary, final)
        _sync_folder(final)
    except OSError as error:
        if error.filename and Path(os.fsdecode(error.filename)) not in (temporary, final):
            raise
        raise machine_error(final, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a file to write to, which becomes ``path`` as `replacing` says."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        yield file


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder to write into. On success all its files move into ``folder``.

    On any exception the temporary folder is removed, and ``folder`` stays as it was.

    Raises:
        InputError: A file stands where a folder is due.
        MachineError: The disk is read-only, permission is missing, and the like.
    """
    final = folder.absolute()
    make_folder(final.parent)
    _remove_leftovers(final.parent)
    temporary = make_folder(_temporary_name(final))
    try:
        yield temporary
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            place = final / path.relative_to(temporary)
            make_folder(place.parent)
            os.replace(path, place)
    except OSError as error:
        raise machine_error(folder, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary_name(final: Path) -> Path:
    # 40 characters are at most 160 bytes. With the rest they stay below the limit of 255.
    unique = f"{_HOST}-{os.getpid()}-{_TOKEN}-{next(_NUMBERS)}"
    return final.with_name(f".{final.name[:40]}.{unique}.tmp")


def write_bytes(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write ``data`` as the whole content of ``path``; `replacing` says what it raises."""
    with writing(path) as file:
        file.write(data)


def append(path: Path, data: bytes) -> None:
    """Add ``data`` to the end of a file, flushed to the disk; the file is made where it is missing.

    On an error the file is cut back to its earlier length. A process that is killed may leave a
    part.

    Raises:
        MachineError: The disk is full or read-only, permission is missing, and the like.
    """
    flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            before = os.fstat(descriptor).st_size
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
        finally:
            os.close(descriptor)
        if before == 0:
            _sync_folder(path)
    except OSError as error:
        raise machine_error(path, error) from None


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open an existing regular file with content for reading, and refuse anything else.

    Opening never waits for a pipe or a device. Links to files are followed.

    Raises:
        InputError: Not there, a dangling link, a folder, a pipe or device, or empty.
        MachineError: No permission to read, or the disk fails.
    """
    path = Path(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise _not_opened(path, error) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise InputError(path, "is a folder; a file is due here", "check the name")
    if stat.S_ISREG(status.st_mode):
        raise InputError(path, "is empty (0 bytes)", "copy it again, or make it again")
    raise InputError(path, "is a pipe or a device, not a regular file", "check the name")


def _not_opened(path: Path, error: OSError | ValueError) -> InputError | MachineError:
    """Return the error that says in plain words why a file cannot be opened."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, ValueError) or number in (errno.ENOENT, errno.ENOTDIR):
        if number == errno.ENOENT and path.is_symlink():
            return InputError(path, f"is a link to {path.readlink()}, which is missing", "mend it")
        return InputError(path, "not found", "check the name; URLs and archives are not read")
    if number == errno.ENAMETOOLONG:
        return InputError(path, "the name is too long", "check the name")
    if number == errno.ELOOP:
        return InputError(path, "is a link that leads back to itself", "mend it")
    if number == errno.ENXIO:
        return InputError(path, "is a socket or a device, not a regular file", "check the name")
    if os.name == "nt" and path.is_dir():
        return InputError(path, "is a folder; a file is due here", "check the name")
    if number in (errno.EACCES, errno.EPERM):
        return MachineError(path, "no permission to read it", "ask its owner, or copy it")
    return MachineError(path, f"not readable: {error}", "try again")


# The kind of a file by its first bytes. Longer beginnings stand before shorter ones.
_KINDS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a zip archive, perhaps of torch.save"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"BM", "a BMP image"),
)


def kind_of(head: bytes) -> str:
    """Return the likely kind of a file from its first 600 bytes: ``"a PNG image"``."""
    for beginning, kind in _KINDS:
        if head.startswith(beginning):
            return kind
    if head[512:520] == b"\x89HDF\r\n\x1a\n":
        return "an HDF5 file"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[8:10] in (b'{"', b"{ "):
        return "a safetensors file"
    if head and not head.strip(b"\0"):
        return "nothing but zeros"
    text = head.decode("utf-8", "ignore")
    readable = len(text) > len(head) - 4 and all(c.isprintable() or c.isspace() for c in text)
    return f"text that begins {text[:12]!r}" if readable else "of an unknown format"


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's tables.

    Raises:
        InputError: Not found, not readable, not UTF-8, not TOML (with line and column).
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))  # Windows may begin it with a mark
    except FileNotFoundError:
        raise InputError(path, "not found", "check the name") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(path, f"not readable as TOML ({show(error)})", "mend it") from None


def _check_target(final: Path) -> None:
    """Refuse a target that a rename would destroy, such as ``/dev/null`` written by root."""
    try:
        mode = final.stat().st_mode
    except FileNotFoundError:
        return
    except ValueError:
        raise InputError(final, "no file can have this name", "choose another name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(final, "the name is too long", "choose a shorter one") from None
        return  # any other problem shows when the file is written
    if stat.S_ISDIR(mode):
        raise InputError(final, "is a folder; a file is due here", "choose another name")
    if not stat.S_ISREG(mode):
        raise InputError(final, "is a pipe or a device; a file is due here", "choose another name")


def _sync(path: Path) -> None:
    """Flush a file to the disk."""
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(final: Path) -> None:
    """Flush the entry for ``final`` in its folder. The file itself is written already.

    Windows cannot open folders, and some network file systems cannot flush them.
    """
    if os.name == "nt":
        return
    try:
        _sync(final.parent)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            reason = _REASONS.get(error.errno or 0, error.strerror)
            text = f"written, but a power cut now may undo it: {reason}"
            raise MachineError(final, text, "check the disk, then do it again") from None


@functools.cache  # once a folder in each process: one folder can take thousands of predictions
def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes of this host that have ended."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            match = _LEFTOVER.fullmatch(entry.name)
            if match and not _alive(int(match[1]), match[2]):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _alive(pid: int, token: str) -> bool:
    if pid == os.getpid():
        return token == _TOKEN
    if os.name == "nt":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True
