"""The patch store: its content as plain h5py sees it, and refusals."""

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from unetseg.classes import table_of
from unetseg.dataset import store, store_writer
from unetseg.dataset.store import Source, StoreInfo, open_store
from unetseg.dataset.store_writer import write_store
from unetseg.errors import InputError, MachineError

SOURCES = tuple(
    Source(name, f"{k:064x}", f"g{k}", "val" if k == 1 else "train", 20, 12)
    for k, name in enumerate(["a.png", "b.png", "ü \x1b[31m.png", "d\udc80.png"])
)
INFO = StoreInfo(
    size=8, margin=2, seed=7, settings={"val": 0.2, "group": None}, folder="data/träin",
    classes=table_of([0, 1, 255], ignore=(7,)), mean=(1.5, 2.5, 3.5), std=(1.0, 2.0, 3.0),
    dtype="uint8", channels=3, scale=1.0, class_pixels_train=(5, 6, 2**40),
    class_pixels_val=(1, 0, 3), sources=SOURCES, version="0.1.0", created="2026-01-02T03:04:05",
)  # fmt: skip
COUNT = 6


def arrays(dtype="uint8"):
    """Patches and held-out images with every label, drawn with a fixed seed."""
    rng = np.random.default_rng(3)
    labels = np.array([0, 1, 2, 255], np.uint8)

    def pair(height, width):
        image = rng.integers(0, 250, (height, width, 3)).astype(dtype)
        return image, labels[rng.integers(0, 4, (height, width))]

    patches = [(*pair(12, 12), (0, 2, 3)[k % 3], (k, -k)) for k in range(COUNT)]
    return patches, [pair(20, 12)]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    target = tmp_path_factory.mktemp("store") / "patches.h5"
    write_store(target, INFO, COUNT, *arrays())
    return target


@pytest.fixture
def path(tmp_path, original):
    return Path(shutil.copy(original, tmp_path / "patches.h5"))


def forge(path, change):
    """Change a store with plain h5py and give it a valid checksum again, as a forger would."""
    with h5py.File(path, "r+") as h5:
        change(h5)
    store_writer._seal(path, INFO.created)


def put(h5, name, data, **how):
    """Replace a dataset."""
    del h5[name]
    h5.create_dataset(name, data=data, **how)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_is_written_is_read_back_with_its_dtype(tmp_path, dtype):
    patches, held_out = arrays(dtype)
    info = replace(INFO, dtype=dtype)
    write_store(tmp_path / "s.h5", info, COUNT, iter(patches), iter(held_out))
    store = open_store(tmp_path / "s.h5")
    assert store.info == info
    assert store.images.dtype == dtype
    assert store.images.flags.aligned
    assert not store.images.flags.writeable
    assert np.array_equal(store.images, np.stack([p[0] for p in patches]))
    assert np.array_equal(store.masks, np.stack([p[1] for p in patches]))
    assert store.source.tolist() == [0, 2, 3, 0, 2, 3]
    assert store.corner.tolist() == [[k, -k] for k in range(COUNT)]
    assert store.held_out_count == 1
    image, mask, source = store.held_out(0)
    assert np.array_equal(image, held_out[0][0])
    assert np.array_equal(mask, held_out[0][1])
    assert source == SOURCES[1]


def test_plain_h5py_finds_what_the_design_promises(path):
    patches, held_out = arrays()
    with h5py.File(path) as h5:
        assert h5.userblock_size == 512
        assert h5.attrs["format"] == b"unetseg-patches"
        assert (h5.attrs["version"], h5.attrs["complete"]) == (2, 1)
        assert (h5.attrs["size"], h5.attrs["margin"], h5.attrs["seed"]) == (8, 2, 7)
        assert h5.attrs["mean"].tolist() == [1.5, 2.5, 3.5]
        assert h5.attrs["std"].tolist() == [1.0, 2.0, 3.0]
        assert json.loads(h5.attrs["settings"]) == {"val": 0.2, "group": None}
        assert json.loads(h5.attrs["classes"])["ignore"] == [7]
        assert h5.attrs["folder"].decode() == "data/träin"
        assert h5["sources/name"].asstr(errors="surrogateescape")[:].tolist() == [
            s.name for s in SOURCES
        ]
        assert h5["sources/split"][:].tolist() == [b"train", b"val", b"train", b"train"]
        assert h5["sources/height"][:].tolist() == [20] * 4
        for name, expected in {
            "train/images": np.stack([p[0] for p in patches]),
            "train/masks": np.stack([p[1] for p in patches]),
            "val/images": held_out[0][0].reshape(-1, 3),
            "val/masks": held_out[0][1].reshape(-1),
        }.items():
            dataset = h5[name]
            assert dataset.chunks is None
            assert dataset.compression is None
            assert dataset.dtype == expected.dtype
            assert np.array_equal(dataset[:], expected)


def test_the_user_block_holds_the_checksum_of_the_rest(path):
    data = path.read_bytes()
    lines = dict(line.split(" ", 1) for line in data[:512].rstrip(b"\0").decode().splitlines())
    assert lines["sha256"] == hashlib.sha256(data[512:]).hexdigest()
    assert int(lines["bytes"]) == len(data)
    assert open_store(path).content_hash == lines["sha256"]


def test_a_store_without_held_out_images_is_possible(tmp_path):
    info = replace(INFO, sources=(SOURCES[0],))
    patches = [(*p[:2], 0, p[3]) for p in arrays()[0]]
    write_store(tmp_path / "s.h5", info, COUNT, patches, [])
    assert open_store(tmp_path / "s.h5").held_out_count == 0


def test_a_store_that_is_replaced_stays_as_it_was_opened(path):
    store = open_store(path)
    before = store.images.copy()
    patches, held_out = arrays()
    write_store(path, INFO, 1, patches[3:4], held_out)
    assert np.array_equal(store.images, before)
    assert len(open_store(path).images) == 1


# --- writing that fails ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda p, h: (p[:-1], h),
        lambda p, h: ([*p, p[0]], h),
        lambda p, h: (p, []),
        lambda p, h: (p, h * 2),
        lambda p, h: ([(p[0][0][:-1], *p[0][1:]), *p[1:]], h),
        lambda p, h: ([(p[0][0].astype("uint16"), *p[0][1:]), *p[1:]], h),
        lambda p, h: (p, [(h[0][0], h[0][1][:-1])]),
    ],
    ids=["few", "many", "held-out-few", "held-out-many", "shape", "dtype", "held-out-shape"],
)
def test_arrays_other_than_declared_are_refused_and_nothing_is_written(tmp_path, change):
    patches, held_out = change(*arrays())
    with pytest.raises(ValueError):
        write_store(tmp_path / "s.h5", INFO, COUNT, patches, held_out)
    assert list(tmp_path.iterdir()) == []


def test_a_label_that_is_no_class_is_not_written(tmp_path):
    patches, held_out = arrays()
    patches[1][1][3, 4] = 3
    with pytest.raises(InputError, match=r"s\.h5: not written: .*label 3 at \(1, 3, 4\)"):
        write_store(tmp_path / "s.h5", INFO, COUNT, patches, held_out)
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_is_said_before_the_first_patch_is_asked_for(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    def never():
        raise AssertionError("asked for")
        yield

    with pytest.raises(MachineError, match=r"needs .* 1\.0 kB free"):
        write_store(tmp_path / "s.h5", INFO, COUNT, never(), never())


SCRIPT = """
    import resource, sys, time
    from unetseg.errors import MachineError
    from unetseg.dataset.store_writer import write_store
    from tests.dataset.test_store import COUNT, INFO, arrays
    def slow(patches):
        for patch in patches:
            print("cutting", flush=True)
            yield patch
            time.sleep(float(sys.argv[3]))
    for limit in map(int, sys.argv[2].split(",")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
        patches, held_out = arrays()
        try:
            write_store(sys.argv[1], INFO, COUNT, slow(patches), held_out)
        except MachineError as error:
            print(error)
"""


def start(target, limits="-1", pause=0.0):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(target), limits, str(pause)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_a_writer_killed_while_it_cuts_leaves_no_store(tmp_path):
    with start(tmp_path / "s.h5", pause=0.5) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "cutting\n"
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "s.h5").exists()
    write_store(tmp_path / "s.h5", INFO, COUNT, *arrays())
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_a_file_that_cannot_grow_is_an_error_and_no_crash(tmp_path):
    with start(tmp_path / "s.h5", limits="100,3000,20000") as process:
        output = process.communicate()[0]
    assert process.returncode == 0
    assert output.count("size limit of this process") == 3
    assert "cutting" not in output  # said before any work
    assert list(tmp_path.iterdir()) == []


# --- reading damaged stores ------------------------------------------------------------------


def test_every_flipped_bit_is_noticed(path):
    good = path.read_bytes()
    rng = random.Random(1)
    places = [*rng.sample(range(512), 20), *rng.sample(range(512, len(good)), 40)]
    for place in places:
        data = bytearray(good)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        with pytest.raises(InputError):
            open_store(path)


def test_every_truncation_is_noticed(path):
    good = path.read_bytes()
    for length in (1, 8, 100, 512, 520, 600, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(InputError):
            open_store(path)
    path.write_bytes(good[:5000])
    with pytest.raises(InputError, match=f"truncated: 5,000 of {len(good):,} bytes"):
        open_store(path)
    path.write_bytes(good + b"x")
    with pytest.raises(InputError, match="longer than written"):
        open_store(path)


def edit(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


def other_hdf5(path):
    with h5py.File(path, "w") as h5:
        h5["x"] = 1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.write_bytes(bytes(512) + p.read_bytes()[512:]), "unfinished store"),
        (lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x63"), "checksum differs"),
        (edit(b"patches 2\n", b"patches 3\n"), "format 3; this unetseg reads up to 2"),
        (edit(b"2026", b"2027"), "first 512 bytes are damaged"),
        (other_hdf5, "HDF5 file of another program"),
        (lambda p: p.write_bytes(b"hello world"), "not a patch store .it is text"),
        (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" * 100), "it is a PNG image"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.unlink(), "not found"),
        (lambda p: (p.unlink(), p.mkdir()), "is a folder"),
        (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(path, damage, words):
    damage(path)
    with pytest.raises(InputError, match=words) as caught:
        open_store(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# --- reading forged stores: the checksum fits ------------------------------------------------


@pytest.fixture
def secret(path):
    """A store that a link would lead to; its access time is 0 until it is read."""
    copy = Path(shutil.copy(path, path.with_name("SECRET")))
    os.utime(copy, ns=(0, copy.stat().st_mtime_ns))
    copy.read_bytes()
    if copy.stat().st_atime_ns == 0:
        pytest.skip("this file system keeps no access times")
    os.utime(copy, ns=(0, copy.stat().st_mtime_ns))
    return copy


def external_dataset(h5):
    del h5["train/masks"]
    h5["train/masks"] = h5py.ExternalLink("SECRET", "train/masks")


def external_group(h5):
    del h5["val"]
    h5["val"] = h5py.ExternalLink("SECRET", "val")


def soft(h5):
    h5.move("train/masks", "train/elsewhere")
    h5["train/masks"] = h5py.SoftLink("/train/elsewhere")
    del h5["train/elsewhere"]


def external_storage(h5):
    del h5["train/masks"]
    h5.create_dataset("train/masks", (COUNT, 12, 12), "u1", external=[("SECRET", 0, 1000)])


def virtual(h5):
    del h5["train/masks"]
    layout = h5py.VirtualLayout((COUNT, 12, 12), "u1")
    layout[:] = h5py.VirtualSource("SECRET", "train/masks", (COUNT, 12, 12))
    h5.create_virtual_dataset("train/masks", layout)


@pytest.mark.parametrize(
    "attack", [external_dataset, external_group, soft, external_storage, virtual]
)
def test_external_data_is_refused_and_never_opened(path, secret, attack, monkeypatch):
    monkeypatch.chdir(path.parent)
    forge(path, attack)
    with pytest.raises(InputError, match="external data is not allowed"):
        open_store(path)
    assert secret.stat().st_atime_ns == 0


def bomb(h5):
    del h5["train/images"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    h5.create_dataset("train/images", (10**9, 12, 12, 3), "u1", dcpl=plan)


def cycle(h5):
    del h5["val"]
    h5["val"] = h5["/"]


def named_type(h5):
    del h5["train/masks"]
    h5["train/masks"] = np.dtype("u1")


def big_attribute(h5):
    h5.attrs["folder"] = "x" * 60_000


PLACES = np.zeros(COUNT, "<i4")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bomb, "declares 432,000,000,000 bytes, which the file does not hold"),
        (cycle, "val holds other names"),
        (named_type, "masks is no dataset"),
        (lambda h: h.attrs.__setitem__("complete", np.uint8(0)), "unfinished store"),
        (lambda h: h.attrs.__delitem__("complete"), "attributes are not those"),
        (lambda h: h.attrs.__setitem__("more", 1), "attributes are not those"),
        (big_attribute, "attribute folder is of type"),
        (lambda h: h.attrs.__setitem__("size", 10**6), "size is 1000000, not at most 65536"),
        (lambda h: h.attrs.__setitem__("std", np.zeros(3)), "std"),
        (lambda h: h.attrs.__setitem__("classes", np.bytes_("[]")), "not readable|class"),
        (lambda h: h.attrs.__setitem__("settings", np.bytes_("[" * 50000)), "not readable"),
        (lambda h: h.create_group("extra"), "/ holds other names"),
        (lambda h: h.__delitem__("val"), "/ holds other names"),
        (lambda h: h.create_group("val/1"), "val holds other names"),
        (lambda h: put(h, "train/masks", np.zeros((COUNT, 12, 11), "u1")), "of shape"),
        (lambda h: put(h, "train/masks", np.zeros((COUNT - 1, 12, 12), "u1")), "of shape"),
        (lambda h: put(h, "train/masks", np.zeros((COUNT, 12, 12), "i1")), "of type int8"),
        (lambda h: put(h, "train/images", np.zeros((COUNT, 12, 12, 3), ">u2")), "of type >u2"),
        (lambda h: put(h, "train/images", np.zeros((COUNT, 12, 12, 3), "f8")), "of type float64"),
        (lambda h: put(h, "train/images", np.zeros((COUNT, 12, 12), "u1")), r"not \(N, P, P, C\)"),
        (lambda h: put(h, "train/images", np.zeros((0, 12, 12, 3), "u1")), "train/images"),
        (lambda h: put(h, "train/masks", np.zeros((COUNT, 12, 12), "u1"), compression="gzip"),
         "chunked or compressed"),
        (lambda h: put(h, "sources/name", ["a"] * 4), "of type object"),
        (lambda h: put(h, "sources/height", np.full(3, 20, "<i4")), "different lengths"),
        (lambda h: put(h, "sources/sha256", np.full(4, b"x" * 64)), "sha256"),
        (lambda h: put(h, "sources/split", np.full(4, b"test")), "split is 'test', not 'train'"),
        (lambda h: put(h, "train/source", PLACES + 4), "a patch of no source"),
        (lambda h: put(h, "train/source", PLACES - 1), "a patch of no source"),
        (lambda h: put(h, "train/source", PLACES + 1), "a patch of a held-out image"),
        (lambda h: put(h, "train/corner", np.full((COUNT, 2), 12, "<i4")), "outside its image"),
        (lambda h: put(h, "train/corner", np.full((COUNT, 2), -8, "<i4")), "outside its image"),
        (lambda h: h["train/masks"].__setitem__((2, 3, 4), 3), r"label 3 at \(2, 3, 4\)"),
        (lambda h: h["val/masks"].__setitem__(239, 254), r"held out: label 254 at \(19, 11\)"),
        (lambda h: put(h, "val/masks", np.zeros(239, "u1")), "val/masks of shape"),
    ],
)  # fmt: skip
def test_a_forged_store_is_refused_in_one_line(path, change, words):
    forge(path, change)
    with pytest.raises(InputError, match=words) as caught:
        open_store(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_float_image_that_is_not_finite_is_refused_with_its_place(tmp_path):
    path = tmp_path / "s.h5"
    write_store(path, replace(INFO, dtype="float32"), COUNT, *arrays("float32"))
    forge(path, lambda h: h["train/images"].__setitem__((1, 2, 3, 0), np.nan))
    with pytest.raises(InputError, match=r"train: value nan at \(1, 2, 3, 0\)"):
        open_store(path)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0}, {"margin": -1}, {"seed": -1}, {"seed": 2**63}, {"dtype": "float64"},
        {"mean": (1.0,)}, {"mean": (np.nan,) * 3}, {"std": (1.0, 0.0, 1.0)}, {"scale": 0.0},
        {"class_pixels_val": (1,)}, {"sources": SOURCES[1:2]}, {"created": "\n"},
        {"channels": 2},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_when_the_header_is_made(change):
    with pytest.raises(ValueError):
        replace(INFO, **change)


def test_equal_input_gives_equal_content_at_another_time(original, tmp_path):
    # HDF5 keeps times in whole seconds, where it keeps them
    time.sleep(max(0.0, original.stat().st_mtime + 1.1 - time.time()))
    later = replace(INFO, created="2030-01-01T00:00:00")
    write_store(tmp_path / "later.h5", later, COUNT, *arrays())
    assert (tmp_path / "later.h5").read_bytes()[512:] == original.read_bytes()[512:]
    assert open_store(tmp_path / "later.h5").info.created == "2030-01-01T00:00:00"


def test_a_store_that_reads_back_otherwise_than_written_is_not_kept(tmp_path, monkeypatch):
    # HDF5 passes over a failed write of some of its parts: the disk then holds zeros there.
    columns = store_writer._source_columns

    def lose_the_groups(info):
        found = columns(info)
        return found | {"sources/group": np.zeros_like(found["sources/group"])}

    monkeypatch.setattr(store_writer, "_source_columns", lose_the_groups)
    with pytest.raises(MachineError, match="not written: it reads back with other content"):
        write_store(tmp_path / "patches.h5", INFO, COUNT, *arrays())
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_hdf5_is_a_failed_write_and_keeps_the_old_store(path, monkeypatch):
    def fail(*_):
        raise RuntimeError("Can't decrement id (errno = 28, error message = 'No space left', x)")

    before = path.read_bytes()
    monkeypatch.setattr(store_writer, "_create", fail)
    with pytest.raises(MachineError, match="not written: No space left; an earlier file is"):
        write_store(path, INFO, COUNT, *arrays())
    assert path.read_bytes() == before


def test_a_disk_that_fails_while_a_store_is_read_is_no_fault_of_the_store(path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(store, "_read_structure", fail)
    with pytest.raises(MachineError, match="the disk reported an input/output error"):
        open_store(path)
