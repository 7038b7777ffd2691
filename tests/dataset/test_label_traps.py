"""Each way to store one small known set, through ``build_store``: the same pixels, or one error.

Files are written with Pillow, tifffile and imageio, never with unetseg.
"""

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support import typed
from unetseg.dataset.cutting import build_store
from unetseg.dataset.store import open_store
from unetseg.errors import InputError
from unetseg.settings import PatchSettings

COUNT, HEIGHT, WIDTH = 4, 40, 48
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0)], np.uint8)


def mask_of(k):
    """Return (40, 48): ground 0, a block 1 that moves with k, a stripe 2."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[30:34] = 2
    mask[4 + k : 16 + k, 6 + 4 * k : 20 + 4 * k] = 1
    return mask


def grey_of(k):
    noise = np.random.default_rng(k).integers(0, 30, (HEIGHT, WIDTH))
    return (np.array([200, 40, 120])[mask_of(k)] + noise).astype(np.uint8)


def many_of(k, channels, dtype=np.uint8):
    return np.stack([grey_of(k).astype(dtype) * (c + 1) for c in range(channels)], -1)


def png(path, array, **options):
    Image.fromarray(array).save(path.with_suffix(".png"), **options)


def tif(path, array, **options):
    tifffile.imwrite(path.with_suffix(".tif"), array, **options)


def paletted(path, mask, colours=COLOURS, ending=".png"):
    picture = Image.fromarray(mask)
    picture.putpalette(colours.tobytes())
    picture.save(path.with_suffix(ending))


def write(root, image=None, mask=None, where=("images", "masks")):
    """Write the set; ``image(path, k)`` and ``mask(path, k)`` say how, 8-bit grey PNG if not."""
    for folder in where:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k in range(COUNT):
        (image or (lambda p, k: png(p, grey_of(k))))(root / where[0] / f"im{k}", k)
        (mask or (lambda p, k: png(p, mask_of(k))))(root / where[1] / f"im{k}", k)
    return root


def write_with_line(root, middle=(100, 0, 0)):
    """Write the set without its stripe, and a line above each block, one pixel wide.

    The colour of the line is ``middle``, which lies between black and that of the block.
    """
    colours = np.array([(0, 0, 0), [2 * level for level in middle], middle], np.uint8)

    def lined(path, k):
        mask = np.where(mask_of(k) == 1, 1, 0)
        rows, columns = np.nonzero(mask)
        mask[rows.min() - 1, columns.min() : columns.max()] = 2
        png(path, colours[mask])

    return write(root, mask=lined)


def build(root, tmp_path, notes=None, **options):
    """Return the store of a folder, half of the images held out whole."""
    keys = {"size": 16, "per_image": 2, "val": 0.5}
    settings = PatchSettings(**{**keys, **options.pop("settings", {})})
    build_store(
        root,
        tmp_path / "store.h5",
        settings,
        on_progress=(notes if notes is not None else []).append,
        **options,
    )
    return open_store(tmp_path / "store.h5")


def held_out(store):
    """Yield number, image and mask of the held-out images."""
    assert store.held_out_count == COUNT // 2
    for i in range(store.held_out_count):
        image, mask, source = store.held_out(i)
        yield int(source.name[2]), image, mask


IMAGES = {
    "8-bit grey PNG": (lambda p, k: png(p, grey_of(k)), lambda k: grey_of(k)[..., None]),
    "upper-case ending": (
        lambda p, k: Image.fromarray(grey_of(k)).save(f"{p}.PNG"),
        lambda k: grey_of(k)[..., None],
    ),
    "three equal channels": (
        lambda p, k: png(p, np.repeat(grey_of(k)[..., None], 3, 2)),
        lambda k: grey_of(k)[..., None],
    ),
    "RGB BMP": (
        lambda p, k: Image.fromarray(many_of(k, 3)).save(f"{p}.bmp"),
        lambda k: many_of(k, 3),
    ),
    "RGBA": (
        lambda p, k: png(p, np.dstack([many_of(k, 3), grey_of(k)])),
        lambda k: many_of(k, 3),
    ),
    "grey GIF": (
        lambda p, k: iio.imwrite(f"{p}.gif", grey_of(k)),
        lambda k: grey_of(k)[..., None],
    ),
    "colour palette": (
        lambda p, k: paletted(p, mask_of(k)),
        lambda k: COLOURS[mask_of(k)],
    ),
    "one bit": (
        lambda p, k: Image.fromarray(grey_of(k) > 99).save(f"{p}.png"),
        lambda k: (grey_of(k) > 99)[..., None] * np.uint8(255),
    ),
    "16-bit grey PNG": (
        lambda p, k: png(p, many_of(k, 1, np.uint16)[..., 0] * 250),
        lambda k: many_of(k, 1, np.uint16) * 250,
    ),
    "16-bit RGB TIFF": (
        lambda p, k: tif(p, many_of(k, 3, np.uint16) * 80, photometric="rgb"),
        lambda k: many_of(k, 3, np.uint16) * 80,
    ),
    "five interleaved channels": (
        lambda p, k: tif(p, many_of(k, 5), photometric="minisblack", planarconfig="contig"),
        lambda k: many_of(k, 5),
    ),
    "five planar channels": (
        lambda p, k: tif(
            p,
            np.moveaxis(many_of(k, 5), 2, 0),
            photometric="minisblack",
            metadata={"axes": "CYX"},
        ),
        lambda k: many_of(k, 5),
    ),
    "float TIFF": (
        lambda p, k: tif(p, grey_of(k).astype(np.float32) / 7),
        lambda k: grey_of(k).astype(np.float32)[..., None] / 7,
    ),
    "LZW by Pillow": (
        lambda p, k: Image.fromarray(grey_of(k)).save(f"{p}.tif", compression="tiff_lzw"),
        lambda k: grey_of(k)[..., None],
    ),
    "planes of which one is asked for": (
        lambda p, k: tif(p, np.stack([255 - grey_of(k), grey_of(k)]), photometric="minisblack"),
        lambda k: grey_of(k)[..., None],
    ),
}


@pytest.mark.parametrize("way", IMAGES)
def test_every_way_to_store_images_gives_their_pixels(tmp_path, way):
    save, due = IMAGES[way]
    page = 1 if "planes" in way else None
    store = build(write(tmp_path / "set", image=save), tmp_path, settings={"page": page})
    for k, image, mask in held_out(store):
        assert image.dtype == due(k).dtype
        np.testing.assert_array_equal(image, due(k))
        np.testing.assert_array_equal(mask, mask_of(k))


MASKS = {
    "index": lambda p, k: png(p, mask_of(k)),
    "values that start at 1": lambda p, k: png(p, mask_of(k) + 1),
    "values far apart": lambda p, k: png(p, mask_of(k) * 100),
    "palette PNG": lambda p, k: paletted(p, mask_of(k)),
    "palette GIF": lambda p, k: paletted(p, mask_of(k), ending=".gif"),
    "RGB": lambda p, k: png(p, COLOURS[[0, 2, 1]][mask_of(k)]),
    "RGBA, opaque": lambda p, k: png(
        p, np.dstack([COLOURS[[0, 2, 1]][mask_of(k)], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    ),
    "RGB of greys": lambda p, k: png(p, np.repeat(mask_of(k)[..., None] * np.uint8(9), 3, 2)),
    "RGB BMP": lambda p, k: Image.fromarray(COLOURS[[0, 2, 1]][mask_of(k)]).save(f"{p}.bmp"),
    "16-bit labels": lambda p, k: png(p, mask_of(k).astype(np.uint16) * 1000),
    "32-bit labels": lambda p, k: tif(p, mask_of(k).astype(np.int32)),
    "whole numbers as floats": lambda p, k: tif(p, mask_of(k).astype(np.float32)),
}


@pytest.mark.parametrize("way", MASKS)
def test_every_way_to_store_masks_gives_the_same_classes(tmp_path, way):
    store = build(write(tmp_path / "set", mask=MASKS[way]), tmp_path)
    for k, _, mask in held_out(store):
        np.testing.assert_array_equal(mask, mask_of(k))


TWO = {
    "0 and 1": lambda p, k: png(p, (mask_of(k) > 0).astype(np.uint8)),
    "0 and 255": lambda p, k: png(p, (mask_of(k) > 0) * np.uint8(255)),
    "one bit PNG": lambda p, k: Image.fromarray(mask_of(k) > 0).save(f"{p}.png"),
    "one bit TIFF": lambda p, k: tif(p, mask_of(k) > 0, photometric="minisblack"),
    "one bit TIFF, white as zero": lambda p, k: tif(p, mask_of(k) == 0, photometric="miniswhite"),
    "black and white RGB": lambda p, k: png(
        p, np.repeat(((mask_of(k) > 0) * np.uint8(255))[..., None], 3, 2)
    ),
    "white on black GIF": lambda p, k: iio.imwrite(f"{p}.gif", (mask_of(k) > 0) * np.uint8(255)),
}


@pytest.mark.parametrize("way", TWO)
def test_two_values_are_two_classes(tmp_path, way):
    store = build(write(tmp_path / "set", mask=TWO[way]), tmp_path)
    assert len(store.info.classes.classes) == 2
    for k, _, mask in held_out(store):
        np.testing.assert_array_equal(mask, mask_of(k) > 0)


def with_255(k):
    mask = mask_of(k)
    mask[:2] = 255
    return mask


def test_an_ignored_value_is_left_out_and_nothing_else(tmp_path):
    root = write(tmp_path / "set", mask=lambda p, k: png(p, with_255(k)))
    for k, _, mask in held_out(build(root, tmp_path, ignore=[255])):
        np.testing.assert_array_equal(mask, with_255(k))


def test_an_ignored_colour_is_left_out_and_nothing_else(tmp_path):
    colours = np.vstack([COLOURS[[0, 2, 1]], np.full((253, 3), 128, np.uint8)])
    root = write(tmp_path / "set", mask=lambda p, k: png(p, colours[with_255(k)]))
    for k, _, mask in held_out(build(root, tmp_path, ignore=["#808080"])):
        np.testing.assert_array_equal(mask, with_255(k))


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_in_image_and_mask_turns_both(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    root = write(
        tmp_path / "set",
        image=lambda p, k: png(p, grey_of(k), exif=exif),
        mask=lambda p, k: png(p, mask_of(k), exif=exif),
    )
    turns = {3: 2, 6: 3}[orientation]  # quarter turns against the clock
    notes = []
    for k, image, mask in held_out(build(root, tmp_path, notes)):
        np.testing.assert_array_equal(image[..., 0], np.rot90(grey_of(k), turns))
        np.testing.assert_array_equal(mask, np.rot90(mask_of(k), turns))
    assert any("turned upright" in str(note) for note in notes)


def smooth(k):
    """Return RGB whose edges are blended, as many programs save it."""
    small = Image.fromarray(COLOURS[mask_of(k)])
    return np.asarray(small.resize((300, 250), Image.Resampling.BICUBIC))


def objects(count):
    """Return (40, 48) with ``count`` numbered blocks of 3 x 3 pixels."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint16)
    for i in range(count):
        row, column = divmod(i, 12)
        mask[row * 4 : row * 4 + 3, column * 4 : column * 4 + 3] = i + 1
    return mask


def wide(path, k, image=False):
    picture = np.asarray(Image.fromarray(grey_of(k)).resize((300, 250)))
    png(path, picture)


def some(k, first, other):
    return first if k != 2 else other


def tagged(path, k):
    exif = Image.Exif()
    exif[274] = 3
    png(path, grey_of(k), exif=exif)


TRAPS = {
    "255 beside others": (
        {"mask": lambda p, k: png(p, with_255(k))},
        ["255 stands beside", "ignore=255"],
    ),
    "JPEG masks": (
        {"mask": lambda p, k: Image.fromarray(mask_of(k) * 100).save(f"{p}.jpg")},
        ["im0.jpg", "lossy"],
    ),
    "smoothed masks": ({"image": wide, "mask": lambda p, k: png(p, smooth(k))}, ["looks like"]),
    "over 64 objects": (
        {"mask": lambda p, k: png(p, objects(100 + k))},
        ["one for each object", "--instances"],
    ),
    "few objects": (
        {"mask": lambda p, k: png(p, objects(8 + 3 * k).astype(np.uint8))},
        ["look like one for each object", "classes.toml"],
    ),
    "fractions": (
        {"mask": lambda p, k: tif(p, mask_of(k) / np.float32(2))},
        ["no whole number"],
    ),
    "negative labels": ({"mask": lambda p, k: tif(p, mask_of(k).astype(np.int16) - 1)}, ["negat"]),
    "transparent masks": (
        {"mask": lambda p, k: png(p, np.dstack([COLOURS[mask_of(k)], mask_of(k)]))},
        ["transparent"],
    ),
    "another size": (
        {"mask": lambda p, k: png(p, mask_of(k)[:, :-1])},
        ["40 x 48", "40 x 47"],
    ),
    "turned image, untagged mask": ({"image": tagged}, ["EXIF", "both ways", "unetseg convert"]),
    "pages": (
        {"image": lambda p, k: tif(p, np.stack([grey_of(k)] * 2), photometric="minisblack")},
        ["2 pages", "page=0"],
    ),
    "one of another depth": (
        {"image": lambda p, k: png(p, some(k, grey_of(k), grey_of(k).astype(np.uint16) * 99))},
        ["im2.png", "is uint16", "uint8"],
    ),
    "one of other channels": (
        {
            "image": lambda p, k: tif(
                p, many_of(k, some(k, 5, 4)), photometric="minisblack", planarconfig="contig"
            )
        },
        ["im2.tif", "has 4 channels", "has 5"],
    ),
    "NaN": (
        {"image": lambda p, k: tif(p, np.full((HEIGHT, WIDTH), np.nan, np.float32))},
        ["not finite"],
    ),
    "palettes that differ": (
        {"mask": lambda p, k: paletted(p, mask_of(k), some(k, COLOURS, COLOURS[::-1].copy()))},
        ["palette entry"],
    ),
    "values and colours": (
        {"mask": lambda p, k: png(p, some(k, mask_of(k), COLOURS[mask_of(k)]))},
        ["holds values", "holds colours"],
    ),
    "one that is cut off": (
        {"image": lambda p, k: p.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")},
        ["im0.png", "not readable as PNG"],
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_could_be_read_wrongly_is_one_error_that_names_it(tmp_path, trap):
    how, texts = TRAPS[trap]
    with pytest.raises(InputError) as caught:
        build(write(tmp_path / "set", **how), tmp_path)
    for text in texts:
        assert text in str(caught.value) + typed(caught.value)
    assert not (tmp_path / "store.h5").exists()


def test_two_folders_of_masks_are_asked_about_and_the_field_of_view_named(tmp_path):
    root = write(tmp_path / "set", where=("images", "1st_manual"))
    write(root, where=("images", "mask"))
    with pytest.raises(InputError, match=r"1st_manual/ and mask/.*fov='mask'"):
        build(root, tmp_path)


def test_what_is_read_otherwise_than_stored_is_said_once(tmp_path):
    alpha, palette, equal = (
        IMAGES[k][0] for k in ("RGBA", "colour palette", "three equal channels")
    )
    for i, (save, text) in enumerate(
        [(alpha, "transparency is dropped"), (palette, "palette"), (equal, "one grey channel")]
    ):
        notes = []
        home = tmp_path / str(i)
        build(write(home / "set", image=save), home, notes)
        said = [str(n) for n in notes if text in str(n)]
        assert len(said) == 1, (text, notes)
