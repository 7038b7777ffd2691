"""Writing a file whole or not at all, and opening one."""

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from unetseg import files
from unetseg.errors import InputError, MachineError
from unetseg.text import human_bytes


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def run(code: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a Python of its own; its first line of output means that it is ready."""
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path):
    files.write_bytes(tmp_path / "new" / "a.txt", b"one")
    files.write_bytes(tmp_path / "new" / "a.txt", b"two")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"two"
    assert names(tmp_path / "new") == ["a.txt"]


def test_an_error_while_writing_leaves_the_old_file_and_no_temporary(tmp_path):
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    with suppress(ZeroDivisionError), files.replacing(target) as temporary:
        temporary.write_bytes(b"half")
        assert target.read_bytes() == b"old"
        raise ZeroDivisionError
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EIO, "input/output error"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_a_failed_flush_is_a_failure_and_keeps_the_old_file(tmp_path, monkeypatch, number, words):
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match=words):
        files.write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


def test_the_file_is_flushed_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        steps.append("folder" if is_folder(descriptor) else "file")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.write_bytes(tmp_path / "a.txt", b"x")
    assert steps == ["file", "rename", "folder"]


def fail_on_folders(monkeypatch, number):
    """Let the flush of a folder fail with an error of the system."""
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if is_folder(descriptor):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_file_system_that_cannot_flush_folders_is_no_error(tmp_path, monkeypatch):
    fail_on_folders(monkeypatch, errno.EINVAL)
    files.write_bytes(tmp_path / "a.txt", b"x")
    assert (tmp_path / "a.txt").read_bytes() == b"x"


def test_a_killed_writer_leaves_no_file_and_the_next_process_removes_its_temporary(tmp_path):
    code = """
        import sys, time
        from unetseg import files
        with files.replacing(sys.argv[1]) as temporary:
            temporary.write_bytes(b"half of it")
            print("ready", flush=True)
            time.sleep(60)
    """
    target = tmp_path / "a.txt"
    with run(code, target) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not target.exists()
    assert len(names(tmp_path)) == 1
    files.write_bytes(tmp_path / "b.txt", b"x")
    assert names(tmp_path) == ["b.txt"]


def test_leftovers_of_the_same_process_number_are_removed_those_of_the_living_stay(tmp_path):
    host, pid = files._HOST, os.getpid()
    dead = tmp_path / f".a.txt.{host}-{pid}-00000000-0.tmp"  # before a container's restart
    alive = tmp_path / f".a.txt.{host}-{os.getppid()}-00000000-0.tmp"
    elsewhere = tmp_path / f".a.txt.x{host}-999999999-00000000-0.tmp"
    for path in (dead, alive, elsewhere):
        path.touch()
    files.write_bytes(tmp_path / "a.txt", b"x")
    assert names(tmp_path) == sorted([alive.name, elsewhere.name, "a.txt"])


def test_two_writers_of_one_name_in_one_process_do_not_meet(tmp_path):
    target = tmp_path / "a.txt"
    with files.replacing(target) as first, files.replacing(target) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert target.read_bytes() == b"first"  # the outer block ends last
    assert names(tmp_path) == ["a.txt"]


def test_names_of_255_bytes_are_written(tmp_path):
    for name in ("x" * 255, "é" * 127, "\N{GRINNING FACE}" * 63):
        files.write_bytes(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path):
    (tmp_path / "other").write_bytes(b"theirs")
    (tmp_path / "a.txt").symlink_to("other")
    files.write_bytes(tmp_path / "a.txt", b"ours")
    assert (tmp_path / "other").read_bytes() == b"theirs"
    assert (tmp_path / "a.txt").read_bytes() == b"ours"


@pytest.mark.parametrize(
    ("name", "words"),
    [("folder", "is a folder"), ("pipe", "device"), ("y" * 256, "too long"), ("a\0b", "name")],
)
def test_targets_that_are_no_file_are_refused_and_stay(tmp_path, name, words):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    with pytest.raises(InputError, match=words):
        files.write_bytes(tmp_path / name, b"x")
    assert names(tmp_path) == before


def test_a_file_where_a_folder_is_due_is_an_input_error(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(InputError, match="a file stands where a folder is due"):
        files.write_bytes(tmp_path / "a" / "b.txt", b"x")


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    files.check_free(tmp_path / "a" / "b", 900_000)
    with pytest.raises(MachineError, match=r"needs 1\.0 MB, 1\.0 MB free"):
        files.check_free(tmp_path / "a" / "b", 910_000)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSPC])
def test_a_file_system_that_reserves_nothing_is_written_to(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with open(tmp_path / "f", "wb") as file:
        if number == errno.ENOSPC:
            with pytest.raises(OSError, match="refused"):
                files.reserve(file, 1000)
        else:
            files.reserve(file, 1000)
            assert (tmp_path / "f").stat().st_size == 1000


def test_a_size_limit_of_the_process_is_an_error_and_keeps_the_old_file(tmp_path):
    code = """
        import resource, sys
        from unetseg import files
        from unetseg.errors import MachineError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write_bytes(sys.argv[1], bytes(5000))
        except MachineError as error:
            print(error)
    """
    target = tmp_path / "a.txt"
    target.write_bytes(b"old")
    with run(code, target) as process:
        output = process.communicate()[0]
    assert "size limit" in output
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="needs root and setpriv to give up rights",
)
def test_missing_permission_is_an_environment_error(tmp_path):
    code = """
        import sys
        from unetseg import files
        from unetseg.errors import MachineError
        folder = sys.argv[1]
        for action in (
            lambda: files.write_bytes(folder + "/b.txt", b"x"),
            lambda: files.open_regular(folder + "/a.txt"),
        ):
            try:
                action()
            except MachineError as error:
                print(error)
    """
    (tmp_path / "a.txt").write_bytes(b"secret")
    (tmp_path / "a.txt").chmod(0o600)
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own are closed to others
        folder.chmod(0o755)
    # the interpreter is looked for first: a home folder may be closed to others
    wrapper = ("setpriv", "--reuid=65534", "--clear-groups")
    if subprocess.run([*wrapper, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("another user cannot start this Python")
    with run(code, tmp_path, wrapper=wrapper) as process:
        output = process.communicate()[0]
    assert "no permission to write" in output
    assert "no permission to read" in output


def test_regular_files_and_links_to_them_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with files.open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_what_is_no_file_with_content_is_refused_without_waiting(tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    cases = {
        "missing": "not found",
        "missing/deeper": "not found",
        "empty": "is empty",
        "folder": "is a folder",
        "dangling": "link to nowhere",
        "loop": "leads back to itself",
        "pipe": "not a regular file",
        "s": "not a regular file",
        "z" * 300: "name is too long",
        "a\0b": "not found",
        "http://example.org/a.h5": "not found",
    }
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            files.open_regular(tmp_path / name)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
        (b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (bytes(512) + b"\x89HDF\r\n\x1a\n....", "an HDF5 file"),
        (b"PK\x03\x04....", "a zip archive, perhaps of torch.save"),
        (b"\x80\x04\x95....", "a Python pickle"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (b"\x10\0\0\0\0\0\0\0" + b'{"a":1}', "a safetensors file"),
        (b"hello world", "text that begins 'hello world'"),
        ("größer".encode()[:4], "text that begins 'gr\u00f6'"),
        (bytes(600), "nothing but zeros"),
        (bytes(range(200)), "of an unknown format"),
    ],
)
def test_a_file_is_named_by_its_first_bytes(head, kind):
    assert files.kind_of(head) == kind


def test_sizes_read_as_people_write_them():
    expected = {999: "999 B", 1500: "1.5 kB", 3_400_000: "3.4 MB", 120_000_000: "120 MB"}
    assert {n: human_bytes(n) for n in expected} == expected


def test_a_folder_that_cannot_be_flushed_is_told_apart_from_a_file_not_written(
    tmp_path, monkeypatch
):
    fail_on_folders(monkeypatch, errno.EIO)
    with pytest.raises(MachineError, match="written, but a power cut now may undo it"):
        files.write_bytes(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new"
    assert names(tmp_path) == ["a.txt"]


def test_a_write_that_fits_in_part_names_what_may_be_full(tmp_path):
    with (
        pytest.raises(MachineError, match="the disk is full, or a size limit is reached"),
        files.replacing(tmp_path / "a.txt"),
    ):
        raise OSError("1000 requested and 114 written")  # as NumPy's tofile does
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("mine")
    for path, overwrite, problem in (
        (tmp_path / "notes", False, "already exists"),
        (tmp_path, True, "is a folder; a file is due here"),
        (tmp_path / "notes" / "a.html", False, "notes: a file stands where a folder is due"),
    ):
        with pytest.raises(InputError, match=problem):
            files.check_writable(path, overwrite)
    files.check_writable(tmp_path / "new" / "a.html", False)
    assert names(tmp_path) == ["notes"]
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(MachineError, match="no permission to write here"):
        files.check_writable(tmp_path / "new" / "a.html", False)
