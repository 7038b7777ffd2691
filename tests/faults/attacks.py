"""Files made to do harm: code in pickles, links out of stores, bombs, hostile names and links."""

import functools
import io
import json
import os
import pickle
import resource
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.common import (
    PREDICT,
    TRAIN,
    Child,
    Lab,
    Tally,
    assert_plain,
    assert_plain_error,
    fault,
    need_tool,
    run,
    some,
)
from tests.faults.damage import seal_store
from tests.faults.tracing import ready, traced

# --- code in pickles -------------------------------------------------------------------------


class _Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class _Build(dict[str, str]):
    """Runs code when the attributes of an unpickled object are set."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (
            functools.partial,
            (print,),
            (os.mkdir, (self.canary,), {}, {"x": _mkdir(self.canary)}),
        )


def _mkdir(canary: str) -> _Call:
    return _Call(os.mkdir, canary)


def _torch_file(value: object, zipped: bool = True) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _zip(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def _tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _numpy_file(canary: str, save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.array([_mkdir(canary)], object), allow_pickle=True)
    return buffer.getvalue()


def _chain(canary: str) -> bytes:
    """Return a pickle that fetches its function attribute by attribute."""
    text = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'mkdir'\ntR"
    return text + b"(S'" + canary.encode() + b"'\ntR."


def _script(canary: str) -> str:
    return f"__import__('os').mkdir({canary!r})"


_PAYLOADS: dict[str, Callable[[str], bytes]] = {
    "os.mkdir": lambda c: pickle.dumps(_mkdir(c)),
    "os.system": lambda c: pickle.dumps(_Call(os.system, f"mkdir {c}"), 2),
    "eval": lambda c: _torch_file({"state": _Call(eval, _script(c))}),
    "exec": lambda c: _torch_file({"format": _Call(exec, _script(c))}),
    "getattr chain": _chain,
    "build": lambda c: _torch_file({"state": _Build(c)}),
    "torch zip": lambda c: _torch_file({"format": "unetseg-checkpoint", "state": _mkdir(c)}),
    "torch legacy": lambda c: _torch_file({"state": _mkdir(c)}, zipped=False),
    "nested zip": lambda c: _zip(archive__data_dot_pkl=_torch_file({"state": _mkdir(c)})),
    "torch tar": lambda c: _tar(pickle.dumps(_mkdir(c), 2)),
    "TorchScript": lambda c: _zip(
        m__constants_dot_pkl=pickle.dumps(_mkdir(c)),
        m__data_dot_pkl=pickle.dumps(_mkdir(c)),
        m__code__m_dot_py=_script(c).encode(),
    ),
    "object npy": lambda c: _numpy_file(c, np.save),
    "object npz": lambda c: _numpy_file(c, lambda b, a, allow_pickle: np.savez(b, a)),
}
# The place of a stranger's file, and the command that reads it.
_PLACES: dict[str, tuple[str, ...]] = {
    "strange.safetensors": (*PREDICT, "--model", "strange.safetensors"),
    "strange.pt": (*PREDICT, "--model", "strange.pt"),
    "from.pt": (*TRAIN, "--run", "other", "--from", "from.pt"),
    "runs/stopped/last.pt": ("train", "--resume", "--run", "stopped"),
    "strange.h5": ("train", "strange.h5", "--run", "other"),
    "strange.png": ("predict", "strange.png"),
    "strange.npy": ("predict", "strange.npy"),
    "info.bin": ("info", "info.bin"),
}


@fault("F29", "code in pickles, wherever a file is read", "exit 2, it never runs", quick=0.06)
def pickled_code(lab: Lab, share: float) -> Tally:
    tally = Tally()
    home = lab.copy(lab.trained)
    (home / "runs/stopped").mkdir()
    canary = home / "canary"
    cases = [(place, kind) for place in _PLACES for kind in _PAYLOADS]
    for place, kind in some(cases, share):
        with tally.attempt(f"{kind} as {place}"):
            (home / place).write_bytes(_PAYLOADS[kind](str(canary)))
            child = run(home, *_PLACES[place])
            assert not canary.exists(), "the code ran"
            assert_plain_error(child, 2, Path(place).name)
    return tally


# --- links out of a store --------------------------------------------------------------------


def _relink(name: str, link: Callable[[Path], Any]) -> Callable[[Any, Path], None]:
    def attack(h5: Any, target: Path) -> None:
        del h5[name]
        h5[name] = link(target)

    return attack


def _outside(name: str) -> Callable[[Path], Any]:
    import h5py

    return lambda target: h5py.ExternalLink(str(target), name)


def _stored_outside(h5: Any, target: Path) -> None:
    shape = h5["train/masks"].shape
    del h5["train/masks"]
    h5.create_dataset("train/masks", shape, "u1", external=[(str(target), 0, 2**40)])


def _virtual(h5: Any, target: Path) -> None:
    import h5py

    shape = h5["train/masks"].shape
    del h5["train/masks"]
    layout = h5py.VirtualLayout(shape, "u1")
    layout[:] = h5py.VirtualSource(str(target), "train/masks", shape)
    h5.create_virtual_dataset("train/masks", layout)


def _behind_a_soft_link(h5: Any, target: Path) -> None:
    import h5py

    del h5["train/masks"]
    h5["val"].attrs["x"] = 1
    h5["train/out"] = h5py.ExternalLink(str(target), "train")
    h5["train/masks"] = h5py.SoftLink("/train/out/masks")


def _references(h5: Any, target: Path) -> None:
    import h5py

    del h5["train/masks"]
    h5.create_dataset("train/masks", (1,), h5py.ref_dtype)


def _cycle(h5: Any, target: Path) -> None:
    del h5["val"]
    h5["val"] = h5["/"]


def _committed_type(h5: Any, target: Path) -> None:
    del h5["train/masks"]
    h5["train/masks"] = np.dtype("u1")


def _unknown_filter(h5: Any, target: Path) -> None:
    import h5py

    shape = h5["train/masks"].shape
    del h5["train/masks"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(shape)
    plan.set_filter(31999, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    space, kind = h5py.h5s.create_simple(shape), h5py.h5t.NATIVE_UINT8
    h5py.h5d.create(h5["train"].id, b"masks", kind, space, plan)


def _many_attributes(h5: Any, target: Path) -> None:
    for i in range(2000):
        h5.attrs[f"a{i}"] = i


_LINKS: dict[str, Callable[[Any, Path], None]] = {
    "external link": _relink("train/masks", _outside("train/masks")),
    "external group": _relink("val", _outside("val")),
    "external root": _relink("sources", _outside("/")),
    "behind a soft link": _behind_a_soft_link,
    "external storage": _stored_outside,
    "virtual dataset": _virtual,
    "object references": _references,
    "hard-link cycle": _cycle,
    "committed type": _committed_type,
    "unknown filter": _unknown_filter,
    "attributes": _many_attributes,
}


def _open_traced(path: Path) -> int:
    from unetseg.dataset.store import open_store
    from unetseg.errors import InputError

    ready()
    try:
        open_store(path)
    except InputError:
        return 2
    return 0


@fault("F30", "HDF5 links to another store and /etc/passwd", "exit 2, never opened", quick=0.25)
def links_out_of_a_store(lab: Lab, share: float) -> Tally:
    import h5py

    need_tool("strace")
    tally = Tally()
    for name in some(list(_LINKS), share):
        for target in (lab.made / "data/patches.h5", Path("/etc/passwd")):
            with tally.attempt(f"{name} to {target.name}"):
                forged = lab.folder() / "forged.h5"
                shutil.copy(lab.made / "data/patches.h5", forged)
                with h5py.File(forged, "r+") as h5:
                    _LINKS[name](h5, target)
                forged.write_bytes(seal_store(bytearray(forged.read_bytes())))
                child = Child(forged.parent, functools.partial(_open_traced, forged))
                with tempfile.NamedTemporaryFile("r") as log:
                    traced(child, "-e", "trace=%file", "-o", log.name).wait()
                    assert child.wait() == 2, f"exit {child.code}: {child.err[-300:]}"
                    assert str(target) not in log.read(), "the target was looked at"
    return tally


# --- bombs -----------------------------------------------------------------------------------


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = b"\x89PNG\r\n\x1a\n"
    rows = zlib.compress(bytes(1000))
    for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b"")):
        packed += struct.pack(">I", len(data)) + kind + data
        packed += struct.pack(">I", zlib.crc32(kind + data))
    return packed


def _tiff(width: int, height: int, strip: bytes, compression: int = 1, tile: int = 0) -> bytes:
    """Return a grey 8-bit TIFF of one strip, or of one tile of this side."""
    place = 8 + 2 + 12 * 8 + 4
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    if tile:
        tags += [(322, 4, tile), (323, 4, tile), (324, 4, place), (325, 4, len(strip))]
        place += 12
        tags[-2] = (324, 4, place)
    else:
        tags += [(273, 4, place), (278, 4, height), (279, 4, len(strip))]
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, kind, value in tags:
        data += struct.pack("<HHII", tag, kind, 1, value)
    return data + bytes(4) + strip


@functools.cache
def _deflated(megabytes: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(1 << 20)) for _ in range(megabytes)]
    return b"".join(parts) + packer.flush()


def _forged_model(model: Path, **changes: object) -> bytes:
    """Return a model whose card says something else, with a fitting checksum."""
    from unetseg.prediction import model_file

    data = model.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, content = json.loads(data[8 : 8 + length]), data[8 + length :]
    card = json.loads(header["__metadata__"]["unetseg"]) | changes
    arrays = {
        name: model_file._Array(name, a["dtype"], tuple(a["shape"]), *a["data_offsets"])
        for name, a in header.items()
        if name != "__metadata__"
    }
    parts = {name: content[a.begin : a.end] for name, a in arrays.items()}
    card["sha256"] = model_file._digest(card, arrays.values(), parts.__getitem__)
    header["__metadata__"]["unetseg"] = json.dumps(card)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content


def _expanded_tensor() -> bytes:
    import torch

    state = {"a": torch.ones(1).expand(10**12)}
    return _torch_file({"format": "unetseg-checkpoint", "version": 1, "state": state})


def _rezipped(checkpoint: Path, compression: int, extra: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
        root = old.namelist()[0].split("/")[0]
        for i in range(extra):
            new.writestr(f"{root}/data/{10**6 + i}", b"")
        if compression:
            new.writestr(f"{root}/data/bomb", bytes(700 << 20))
    return buffer.getvalue()


def _huge_store(store: Path, chunked: bool) -> bytes:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(store, folder))
        with h5py.File(path, "r+") as h5:
            side = h5["train/images"].shape[1]
            del h5["train/images"]
            shape = (2**30, side, side, 1)
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if chunked:
                plan.set_chunk((60000, side, side, 1))
                plan.set_deflate(9)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(h5["train"].id, b"images", h5py.h5t.NATIVE_UINT8, space, plan)
        return bytes(seal_store(bytearray(path.read_bytes())))


_Maker = Callable[[Path], bytes]  # from a trained home
_MODEL, _LAST, _STORE = "runs/default/model.safetensors", "runs/default/last.pt", "data/patches.h5"
_BOMBS: dict[str, tuple[str, _Maker]] = {
    "PNG of 2^31 squared": ("a.png", lambda _: _png(2**31 - 1, 2**31 - 1)),
    "PNG of 20,000 squared": ("a.png", lambda _: _png(20000, 20000)),
    "PNG text": ("a.png", lambda _: _png(10, 10, (b"zTXt", b"k\0\0" + _deflated(700)))),
    "PNG profile": ("a.png", lambda _: _png(10, 10, (b"iCCP", b"k\0\0" + _deflated(700)))),
    "TIFF of 10^6 squared": ("a.tif", lambda _: _tiff(10**6, 10**6, bytes(100))),
    "TIFF of one tile": ("a.tif", lambda _: _tiff(1, 1, bytes(100), tile=2**15)),
    "TIFF strip": ("a.tif", lambda _: _tiff(100, 100, _deflated(700), 8)),
    "store of 1 TB": ("a.h5", lambda h: _huge_store(h / _STORE, False)),
    "store of large chunks": ("a.h5", lambda h: _huge_store(h / _STORE, True)),
    "expanded tensor": ("a.pt", lambda _: _expanded_tensor()),
    "deflated checkpoint": ("a.pt", lambda h: _rezipped(h / _LAST, zipfile.ZIP_DEFLATED)),
    "checkpoint of many parts": ("a.pt", lambda h: _rezipped(h / _LAST, 0, 60000)),
    "model of width 10^9": ("a.safetensors", lambda h: _forged_model(
        h / _MODEL, settings={"width": 10**9, "depth": 2})),
    "model of depth 10^6": ("a.safetensors", lambda h: _forged_model(
        h / _MODEL, settings={"width": 4, "depth": 10**6})),
    "model of a deep card": ("a.safetensors", lambda h: _forged_model(
        h / _MODEL, scores=functools.reduce(lambda a, _: [a], range(900), []))),
}  # fmt: skip


def _read_measured(path: Path) -> int:
    """Read a file by its suffix; write the time and memory to a file beside it."""
    from unetseg.dataset.store import open_store
    from unetseg.errors import UnetsegError
    from unetseg.pictures.reading import read_image
    from unetseg.prediction.model_file import load_model
    from unetseg.training.checkpoint import read_checkpoint

    readers: dict[str, Callable[[Path], object]] = {
        ".h5": open_store, ".pt": read_checkpoint, ".safetensors": load_model,
    }  # fmt: skip
    before, code = resource.getrusage(resource.RUSAGE_SELF), 0
    try:
        readers.get(path.suffix, read_image)(path)
    except UnetsegError as error:
        code = error.exit_code
    after = resource.getrusage(resource.RUSAGE_SELF)
    took = [after.ru_maxrss - before.ru_maxrss, after.ru_utime - before.ru_utime]
    path.with_name("took").write_text(json.dumps(took))
    return code


@fault("F31", "bombs: small files that declare much", "<= 500 MB, <= 2 s of a core", quick=0.2)
def bombs(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for name in some(list(_BOMBS), share):
        with tally.attempt(name):
            file, make = _BOMBS[name]
            path = lab.folder() / file
            path.write_bytes(make(lab.trained))
            child = Child(path.parent, functools.partial(_read_measured, path))
            assert child.wait() in (0, 2), f"exit {child.code}: {child.err[-300:]}"
            memory, seconds = json.loads(path.with_name("took").read_text())
            assert memory <= 500_000, f"{memory} kB"
            assert seconds <= 2.0, f"{seconds} s"
    return tally


# --- hostile names and links -----------------------------------------------------------------

_NAMES = (
    b"new\nline.png", b"\x1b[31mred.png", b"[red]x[bold].png", b"\xff\xfe.png", b"-leading.png",
    b"x" * 251 + b".png", b"a b'\"$(touch x).png", b"%s{0}.png", b"~.png",
    "\N{RIGHT-TO-LEFT OVERRIDE}gnp.png".encode(),
)  # fmt: skip


@fault("F33", "hostile names of images", "masks in --out alone, names shown escaped", quick=0.2)
def hostile_names(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for name in some(_NAMES, share):
        with tally.attempt(repr(name[:40])):
            home = lab.copy(lab.trained)
            (home / "new").mkdir()
            image = next((home / "data/test/images").iterdir()).read_bytes()
            (home / "new" / os.fsdecode(name)).write_bytes(image)
            before = _files(home)
            child = run(home, "predict", "new", "--out", "masks", "--device", "cpu")
            assert child.code == 0, child.err[-300:]
            assert_plain(child.err + child.out)
            added = {path.split("/")[0] for path in _files(home) - before}
            assert added == {"masks"}, f"written outside: {added}"
    return tally


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


def _write_two(home: Path, first: str, second: str) -> None:
    image = next((home / "data/test/images").iterdir())
    (home / "new").mkdir()
    for name in (first, second):
        shutil.copy(image, home / "new" / name)


def _output_link(home: Path) -> tuple[str, ...]:
    (home / "masks").mkdir()
    (home / "theirs").write_text("theirs")
    (home / "masks/im100.png").symlink_to(home / "theirs")
    return ("predict", "data/test", "--out", "masks")


def _link_to_everything(home: Path) -> tuple[str, ...]:
    (home / "all").symlink_to("/")
    return ("predict", "all", "--out", "masks")


def _image_link(home: Path, target: str) -> tuple[str, ...]:
    (home / "new").mkdir()
    (home / "new/a.png").symlink_to(target)
    return ("predict", "new", "--out", "masks")


def _clash(home: Path, first: str, second: str) -> tuple[str, ...]:
    _write_two(home, first, second)
    return ("predict", "new", "--out", "masks")


def _run_link(home: Path) -> tuple[str, ...]:
    (home / "elsewhere").mkdir()
    (home / "elsewhere/last.pt").write_text("theirs")
    (home / "runs/linked").symlink_to(home / "elsewhere")
    return (*TRAIN, "--run", "linked")


_CONFUSIONS: dict[str, tuple[Callable[[Path], tuple[str, ...]], int]] = {
    "a loop of links": (functools.partial(_image_link, target="a.png"), 2),
    "a dangling link": (functools.partial(_image_link, target="missing.png"), 2),
    "a link to a pipe": (functools.partial(_image_link, target="/dev/zero"), 2),
    "a mask that is a link": (_output_link, 2),
    "a folder that is /": (_link_to_everything, 2),
    "a run that is a link": (_run_link, 2),
    "one stem, two suffixes": (functools.partial(_clash, first="a.png", second="a.jpg"), 2),
    "one name, two cases": (functools.partial(_clash, first="a.png", second="A.png"), 2),
}


@fault("F34", "links and names that meet", "exit 2, nothing of others is written", quick=0.4)
def links_and_clashes(lab: Lab, share: float) -> Tally:
    tally = Tally()
    for name in some(list(_CONFUSIONS), share):
        with tally.attempt(name):
            make, code = _CONFUSIONS[name]
            home = lab.copy(lab.trained)
            args = make(home)
            child = run(home, *args)
            assert_plain_error(child, code)
            for theirs in (home / "theirs", home / "elsewhere/last.pt"):
                assert not theirs.exists() or theirs.read_text() == "theirs", "overwritten"
    return tally
