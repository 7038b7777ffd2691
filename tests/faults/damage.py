"""Files changed at random: images, stores, checkpoints and models."""

import contextlib
import functools
import hashlib
import json
import os
import resource
import signal
import struct
import traceback
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.common import LIMIT, Child, Lab, Tally, fault, some

_SECONDS = 10  # for one file
_GROWTH = 1_000_000  # kilobytes of memory that one file may take

# --- changes ---------------------------------------------------------------------------------

Change = Callable[[bytearray, np.random.Generator], bytearray]


def _truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(0, len(data))]


def _flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(data), rng.integers(1, 20)):
        data[place] ^= 1 << rng.integers(0, 8)
    return data


def _edit_head(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Change bytes where a header most likely lies."""
    for place in rng.integers(0, min(len(data), 700), rng.integers(1, 8)):
        data[place] = rng.integers(0, 256)
    return data


def _edit_tail(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Change bytes where the directory of a zip or TIFF file most likely lies."""
    for place in rng.integers(1, min(len(data), 400), rng.integers(1, 8)):
        data[-place] = rng.integers(0, 256)
    return data


def _large_number(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Put a very large number somewhere, as sizes and offsets of forged files are."""
    place = rng.integers(0, max(1, min(len(data), 2000) - 8))
    number = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)[rng.integers(0, 6)]
    data[place : place + 8] = struct.pack("<Q" if rng.integers(0, 2) else ">Q", number)
    return data


def _swap_parts(data: bytearray, rng: np.random.Generator) -> bytearray:
    first, second = sorted(rng.integers(0, len(data), 2).tolist())
    return data[second:] + data[first:second] + data[:first]


def _repeat_part(data: bytearray, rng: np.random.Generator) -> bytearray:
    first, second = sorted(rng.integers(0, len(data), 2).tolist())
    return data[:second] + data[first:second] * 3 + data[second:]


_CHANGES: tuple[Change, ...] = (
    _truncate, _flip_bits, _edit_head, _edit_tail, _large_number, _swap_parts, _repeat_part,
)  # fmt: skip


def seal_store(data: bytearray) -> bytearray:
    """Make the checksums of a changed store fit, as a forger would."""
    if len(data) <= 512:
        return data
    block = bytes(data[:512]).split(b"\ncheck ")[0]
    lines = block.split(b"\n")[:2]
    lines += [b"bytes %d" % len(data), b"sha256 " + hashlib.sha256(data[512:]).hexdigest().encode()]
    text = b"\n".join(lines) + b"\n"
    text += b"check " + hashlib.sha256(text).hexdigest().encode() + b"\n"
    return bytearray(text.ljust(512, b"\0")) + data[512:]


def _rezip(data: bytearray, change: Callable[[bytearray], bytearray]) -> bytearray:
    """Change the pickle of a checkpoint and zip it again, so that its checksums fit."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        members = [(m, bytearray(archive.read(m))) for m in archive.namelist()]
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            changed = change(content) if name.endswith("data.pkl") else content
            archive.writestr(name, bytes(changed))
    return bytearray(buffer.getvalue())


def _reheader(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Change a model's header as text, its length told rightly."""
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    for _ in range(rng.integers(1, 4)):
        place = rng.integers(0, len(header))
        header[place] = int(rng.choice(np.frombuffer(b'0123456789"{}[],:-eE.nultrfas\\', np.uint8)))
    return bytearray(len(header).to_bytes(8, "little")) + header + data[8 + length :]


def mutate(kind: str, data: bytes, seed: int) -> bytes:
    """Return a file changed in a way that ``seed`` decides, at the level of bytes or below it."""
    rng, changed = np.random.default_rng([seed, len(data)]), bytearray(data)
    change = _CHANGES[seed % len(_CHANGES)]
    if seed % 2 and kind == "store":
        return bytes(seal_store(change(changed, rng)))
    if seed % 2 and kind == "checkpoint":
        return bytes(_rezip(changed, lambda member: change(member, rng)))
    if seed % 2 and kind == "model":
        return bytes(_reheader(changed, rng))
    return bytes(change(changed, rng))


# --- reading ---------------------------------------------------------------------------------


def _read_picture(path: Path) -> object:
    from unetseg.errors import UnetsegError
    from unetseg.pictures import reading

    for read in (reading.read_info, reading.read_mask, reading.read_text):
        with contextlib.suppress(UnetsegError):
            read(path)
    return reading.read_image(path)


def _read_model(path: Path) -> object:
    from unetseg.prediction.model_file import load_model, read_card

    read_card(path)
    network, card = load_model(path)
    return card, {k: v.tolist() for k, v in network.state_dict().items()}


def _read_checkpoint(path: Path) -> object:
    from unetseg.training.checkpoint import read_checkpoint

    return _as_lists(read_checkpoint(path))


def _as_lists(value: Any) -> Any:
    """Return a checkpoint's state with the content of its tensors, to be compared."""
    if isinstance(value, dict):
        return {k: _as_lists(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_as_lists(v) for v in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _read_store(path: Path) -> object:
    from unetseg.dataset.store import open_store

    store = open_store(path)
    whole = [[a.tolist() for a in store.held_out(k)[:2]] for k in range(store.held_out_count)]
    return store.info, store.images.tolist(), store.masks.tolist(), whole


_READERS: dict[str, Callable[[Path], object]] = {
    "image": _read_picture,
    "store": _read_store,
    "checkpoint": _read_checkpoint,
    "model": _read_model,
}


def _judge(read: Callable[[Path], object], path: Path) -> str:
    """Read a file as a command would; return the problem of that reading, or ""."""
    from unetseg.errors import InputError, UnetsegError

    signal.alarm(_SECONDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read(path)
    except InputError as error:
        if path.name not in str(error) or "\n" in str(error):
            return f"does not name the file in one line: {error}"
    except UnetsegError as error:
        return f"exit {error.exit_code}: {error}"
    except BaseException:
        return traceback.format_exc()[-300:]
    finally:
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"took {grown} kB" if grown > _GROWTH else ""


def _judge_all(kind: str, source: Path, seeds: list[int], folder: Path) -> int:
    """Read mutated files one after the other; a line of JSON before and after each."""
    data = source.read_bytes()
    path = folder / f"mutated{source.suffix}"
    with (folder / "verdicts").open("a") as verdicts:
        for seed in seeds:
            verdicts.write(json.dumps([seed]) + "\n")
            verdicts.flush()
            path.write_bytes(mutate(kind, data, seed))
            verdicts.write(json.dumps([seed, _judge(_READERS[kind], path)]) + "\n")
            verdicts.flush()
    return 0


def _mutate_all(lab: Lab, kind: str, sources: list[Path], count: int, share: float) -> Tally:
    """Read mutated files in a child; another takes over where one ends before the last."""
    tally = Tally()
    for source in sources:
        folder, seeds = lab.folder(), some(range(count // len(sources)), share)
        while seeds:
            child = Child(folder, functools.partial(_judge_all, kind, source, seeds, folder))
            child.wait(LIMIT + _SECONDS * len(seeds))  # an alarm bounds each file
            lines = [json.loads(li) for li in (folder / "verdicts").read_text().splitlines()]
            done = {line[0]: line[1] for line in lines if len(line) == 2}
            fatal = [line[0] for line in lines if line[0] not in done]
            if child.code and not fatal:
                fatal = seeds[:1]
            done |= {seed: f"ended with {child.code}: {child.err[-300:]}" for seed in fatal}
            for seed in [s for s in seeds if s in done]:
                with tally.attempt(f"{source.name} mutated by {seed}"):
                    assert not done[seed], done[seed]
            seeds = [s for s in seeds if s not in done]
    return tally


def _pictures(lab: Lab) -> list[Path]:
    """Write one picture of each format that is read."""
    import tifffile
    from PIL import Image

    folder, rng = lab.folder(), np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8))
    for suffix in ("png", "jpg", "bmp", "gif"):
        colours.save(folder / f"colours.{suffix}")
    colours.quantize(16).save(folder / "palette.png")
    tifffile.imwrite(folder / "deep.tif", rng.integers(0, 60000, (40, 50), np.uint16))
    floats = rng.random((3, 40, 50), np.float32)
    tifffile.imwrite(folder / "floats.tif", floats, photometric="minisblack", tile=(16, 16))
    tifffile.imwrite(folder / "packed.tif", np.asarray(colours), compression="zlib")
    return sorted(folder.iterdir())


@fault("F26", "mutated images", "read, or one line that names it", quick=0.05)
def mutated_images(lab: Lab, share: float) -> Tally:
    return _mutate_all(lab, "image", _pictures(lab), 200, share)


@fault("F27", "mutated stores, half with fitting checksums", "read, or one line", quick=0.05)
def mutated_stores(lab: Lab, share: float) -> Tally:
    return _mutate_all(lab, "store", [lab.made / "data/patches.h5"], 200, share)


@fault("F28", "mutated checkpoints, zip and pickle", "read, or one line", quick=0.05)
def mutated_checkpoints(lab: Lab, share: float) -> Tally:
    return _mutate_all(lab, "checkpoint", [lab.trained / "runs/default/last.pt"], 200, share)


@fault("F28", "mutated models, bytes and header", "read, or one line", quick=0.05)
def mutated_models(lab: Lab, share: float) -> Tally:
    model = lab.trained / "runs/default/model.safetensors"
    return _mutate_all(lab, "model", [model], 200, share)


# --- one bit ---------------------------------------------------------------------------------


@fault(
    "F32", "one bit of a store, a checkpoint, a model", "noticed, or nothing changed", quick=0.02
)
def flipped_bits(lab: Lab, share: float) -> Tally:
    from unetseg.errors import InputError

    run = lab.trained / "runs/default"
    files = {"store": lab.made / "data/patches.h5", "checkpoint": run / "last.pt",
             "model": run / "model.safetensors"}  # fmt: skip
    tally, folder = Tally(), lab.folder()
    for kind, source in files.items():
        read, data = _READERS[kind], bytearray(source.read_bytes())
        content, path = read(source), folder / source.name
        rng = np.random.default_rng(0)
        for bit in some(rng.integers(0, 8 * len(data), 500).tolist(), share):
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
            data[bit // 8] ^= 1 << bit % 8
            with tally.attempt(f"bit {bit} of {source.name}"), contextlib.suppress(InputError):
                assert read(path) == content, "another content, and no word"
        os.unlink(path)
    return tally
