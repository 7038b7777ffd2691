"""Covering a whole image: against a slow double loop over all windows."""

import itertools
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from unetseg.dataset.geometry import tiles, window_weights
from unetseg.errors import InputError
from unetseg.network.unet import build_classic, build_compact, build_fused, fill_to_multiple
from unetseg.prediction import segmenter
from unetseg.prediction.segmenter import Segmenter, resized

# Pixels that tiles see of sides of 1449 and 2048: they keep 832 and the rest, with margins of 96.
_SEEN = {1449: (928, 713), 2048: (928, 1024, 480)}


class Local(nn.Module):
    """Three classes from the pixels of a 3 x 3 window and from its place: seams would show."""

    def __init__(self, seed=0, channels=1):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x):
        ramp = torch.linspace(-1, 1, x.shape[3], device=x.device)
        return 2 * self.layer(x) + ramp * torch.tensor([0.5, -1.0, 0.2]).view(3, 1, 1)


def set_tile(monkeypatch, pixels):
    """Cut images on the processor into tiles of so many pixels."""
    monkeypatch.setattr(segmenter, "_TILE", {"cpu": pixels})
    monkeypatch.setattr(segmenter, "_WHOLE", 0)


def segmenter_of(networks, **changes):
    count = len(networks)
    norm = {"means": [[100.0]] * count, "stds": [[40.0]] * count}
    options = {"size": 16, "stride": 8, "batch_size": 5, **norm}
    return Segmenter(networks, **{**options, **changes})


def slow(networks, image, size, stride, kind, flips=(), mean=100.0, std=40.0):
    height, width = image.shape[:2]
    fill = [(0, max(0, size - height)), (0, max(0, size - width)), (0, 0)]
    padded = np.pad(image, fill, mode="symmetric")
    total, weight = np.zeros((3, *padded.shape[:2])), np.zeros(padded.shape[:2])
    weights = window_weights(size, kind)
    last = padded.shape[0] - size, padded.shape[1] - size
    for row in [*range(0, last[0], stride), last[0]]:
        for column in [*range(0, last[1], stride), last[1]]:
            window = padded[row : row + size, column : column + size].astype(np.float32)
            batch = torch.from_numpy((window - mean) / std).permute(2, 0, 1)[None].float()
            views = []
            with torch.inference_mode():
                for network in networks:
                    for axes in ((), *flips):
                        seen = batch.flip(axes) if axes else batch
                        shares = network(seen).softmax(1)
                        views.append((shares.flip(axes) if axes else shares)[0].numpy())
            total[:, row : row + size, column : column + size] += np.mean(views, 0) * weights
            weight[row : row + size, column : column + size] += weights
    return (total / weight)[:, :height, :width]


def unet(build=build_compact, depth=2, seed=0):
    """An untrained U-Net whose batch normalisation has statistics of its own, as after training."""
    torch.manual_seed(seed)
    network = build(1, 3, width=4, depth=depth)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    network.head.weight.data.mul_(4)
    return network.eval()


@pytest.mark.parametrize("stride", [8, None])
@pytest.mark.parametrize("place", [(0, 0), (20, 30)])
def test_an_image_from_which_no_numbers_come_is_refused_and_others_beside_it_are_not(stride, place):
    seen = segmenter_of([unet()], stride=stride, stds=[[1e-3]])
    good = np.full((24, 32, 1), 120, np.float32)
    bad = good.copy()
    bad[place] = 3e38  # beyond float32 within the network
    with pytest.raises(InputError, match=r"^the network: computes no numbers from an image"):
        seen.labels(bad)
    one, other = seen.together([good, bad])
    np.testing.assert_array_equal(seen.labels(one), seen.labels(good))
    with pytest.raises(InputError, match="computes no numbers"):
        seen.labels(other)


def whole(networks, image, flips=()):
    """The probabilities of one pass over the whole image, a view after the other."""
    views = []
    batch = torch.from_numpy((image.astype(np.float32) - 100) / 40).permute(2, 0, 1)[None]
    with torch.inference_mode():
        for network in networks:
            views.append(network(batch).softmax(1)[0])
            for axes in flips:
                filled = fill_to_multiple(batch, network.multiple).flip(axes)
                shares = network(filled).softmax(1).flip(axes)[0]
                views.append(shares[:, : image.shape[0], : image.shape[1]])
    return torch.stack(views).mean(0).numpy()


class Lazy:
    """Rows that are had by slices alone, and remembered."""

    def __init__(self, image):
        self.image, self.shape, self.asked = image, image.shape, []

    def __getitem__(self, rows):
        self.asked.append((rows.start, rows.stop))
        return self.image[rows]


def picture(shape, channels=1, dtype=np.uint8):
    return np.random.default_rng(3).integers(0, 250, (*shape, channels)).astype(dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_computes_in_the_precision_of_training():
    seen = []

    class Spy(Local):
        def forward(self, x):
            seen.append(torch.get_autocast_dtype("cuda"))
            return super().forward(x.float())

    segmenter_of([Spy()], device="cuda").labels(picture((20, 20)))
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("shape", [(40, 56), (37, 51), (16, 16), (17, 33), (9, 50), (5, 3)])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_blending_equals_a_slow_loop(shape, kind):
    network = Local()
    image = picture(shape)
    found = segmenter_of([network], weights=kind).probabilities(image)
    assert found.shape == (3, *shape)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, slow([network], image, 16, 8, kind), atol=2e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(300, 260), (257, 301), (16, 1400), (1399, 17), (96, 64)])
@pytest.mark.parametrize(("build", "depth"), [(build_compact, 2), (build_classic, 2)])
@pytest.mark.parametrize("flips", [(), ((-1,), (-2,), (-2, -1))])
def test_seamless_tiles_equal_one_pass_over_the_whole(monkeypatch, shape, build, depth, flips):
    set_tile(monkeypatch, 128**2)
    network, image = unet(build, depth), picture(shape)
    found = segmenter_of([network], stride=None, flips=flips).probabilities(image)
    np.testing.assert_allclose(found, whole([network], image, flips), atol=1e-5)


@pytest.mark.parametrize("shape", [(300, 260), (257, 301), (16, 1400), (96, 64)])
@pytest.mark.parametrize("flips", [(), ((-1,), (-2,), (-2, -1))])
def test_seamless_passes_over_moved_images_are_averaged(monkeypatch, shape, flips):
    set_tile(monkeypatch, 128**2)
    network, image = unet(), picture(shape)
    cover = segmenter_of([network], stride=None, shifts=[(0, 0), (5, 11)], flips=flips)
    moved = np.pad(image, [(5, 0), (11, 0), (0, 0)], mode="symmetric")
    passes = whole([network], image, flips), whole([network], moved, flips)[:, 5:, 11:]
    assert np.abs(passes[0] - passes[1]).max() > 1e-2  # pooled with other neighbours
    np.testing.assert_allclose(cover.probabilities(image), np.mean(passes, 0), atol=1e-5)


@pytest.mark.parametrize("shape", [(97, 65), (65, 130)])
def test_tiles_of_a_network_that_sees_near_are_wider_than_a_shift(monkeypatch, shape):
    set_tile(monkeypatch, 40**2)
    torch.manual_seed(0)
    network, image = nn.Conv2d(1, 3, 3, padding=1), picture(shape)
    network.halo = network.multiple = 1
    cover = segmenter_of([network], stride=None, shifts=[(0, 0), (5, 11)])
    _, kept = segmenter.tiling([network], shape, torch.device("cpu"))
    assert 1 in {side % part for side, part in zip(shape, kept, strict=True)}
    moved = np.pad(image, [(5, 0), (11, 0), (0, 0)], mode="symmetric")
    passes = whole([network], image), whole([network], moved)[:, 5:, 11:]
    np.testing.assert_allclose(cover.probabilities(image), np.mean(passes, 0), atol=1e-5)


def test_windows_are_computed_once_whatever_passes_move_by():
    image, options = picture((40, 56)), {"stride": 8, "shifts": [(0, 0), (5, 11)]}
    found = segmenter_of([unet()], **options).probabilities(image)
    np.testing.assert_array_equal(found, segmenter_of([unet()]).probabilities(image))


def test_seamless_tiles_of_a_deep_network_equal_one_pass(monkeypatch):
    set_tile(monkeypatch, 288**2)
    network, image = unet(depth=4), picture((333, 350))
    tiled = segmenter_of([network], stride=None)
    halo, kept = segmenter.tiling([network], (333, 350), torch.device("cpu"))
    assert (halo, kept) == (96, (96, 96))  # nine tiles and more
    np.testing.assert_allclose(tiled.probabilities(image), whole([network], image), atol=1e-5)


@pytest.mark.parametrize(
    ("build", "shape", "tiles"),
    [
        (build_compact, (1024, 1024), [(1024, 1024)]),
        (build_compact, (1, 2048), [(96, 2048)]),  # filled up to a window
        (build_fused, (1448, 1448), [(1448, 1448)]),
        (build_fused, (1080, 1920), [(1080, 1920)]),
        (build_fused, (1449, 1449), list(itertools.product(_SEEN[1449], _SEEN[1449]))),
        (build_compact, (2048, 1449), list(itertools.product(_SEEN[2048], _SEEN[1449]))),
    ],
)
def test_an_image_of_up_to_two_megapixels_is_one_tile(build, shape, tiles):
    cpu = torch.device("cpu")
    computed = segmenter.computed_pixels(shape, [build(1, 2)], 96, None, [(0, 0)], cpu)
    assert computed == sum(height * width for height, width in tiles)


def test_a_tile_sees_as_far_as_its_networks_up_to_a_margin(monkeypatch):
    set_tile(monkeypatch, 1)

    def margin(*networks):
        return segmenter.tiling(networks, (5000, 5000), torch.device("cpu"))[0]

    shallow, compact, classic, deep = (
        build_compact(1, 2, depth=2),
        *(build(1, 2) for build in (build_compact, build_classic, build_fused)),
    )
    assert margin(shallow) == shallow.halo < margin(compact) == compact.halo == 96
    assert margin(compact, classic) == classic.halo == 112  # both are computed exactly
    assert deep.halo == 480
    assert margin(deep) == 96  # on its grid of 32


def test_tiles_of_a_network_that_sees_farther_have_the_pixels_of_the_margin(monkeypatch):
    set_tile(monkeypatch, 80**2)
    monkeypatch.setattr(segmenter, "_MARGIN", 16)
    network, image = unet(depth=3), picture((130, 140))
    found = segmenter_of([network], stride=None).probabilities(image)
    margin, kept = segmenter.tiling([network], (130, 140), torch.device("cpu"))
    assert (margin, kept) == (16, (48, 48))
    for (rows, high), (columns, wide) in itertools.product(tiles(130, 48, 16), tiles(140, 48, 16)):
        part = whole([network], image[rows, columns])[:, high, wide]
        top, left = rows.start + high.start, columns.start + wide.start
        place = found[:, top : top + part.shape[1], left : left + part.shape[2]]
        np.testing.assert_allclose(place, part, atol=1e-5)


def test_windows_for_which_there_is_no_memory_are_computed_in_parts():
    class Small(Local):
        def forward(self, x):
            if len(x) > 3:
                raise torch.OutOfMemoryError("4 windows are too many")
            return super().forward(x)

    image = picture((40, 56))
    cover = segmenter_of([Small()], batch_size=8)
    np.testing.assert_array_equal(cover.labels(image), segmenter_of([Local()]).labels(image))
    assert cover.batch_size == 3  # half of the 6 windows in a row


def test_a_window_for_which_there_is_no_memory_is_an_error():
    class Empty(Local):
        def forward(self, x):
            raise torch.OutOfMemoryError("one is too many")

    with pytest.raises(torch.OutOfMemoryError):
        segmenter_of([Empty()]).labels(picture((40, 56)))


@pytest.mark.parametrize("stride", [None, 8, 5])
@pytest.mark.parametrize("shifts", [[(0, 0)], [(0, 0), (5, 11)]])
@pytest.mark.parametrize("shape", [(200, 170), (10, 300)])
def test_the_pixels_computed_are_counted_beforehand(monkeypatch, shape, shifts, stride):
    set_tile(monkeypatch, 96**2)
    seen, network = [], unet()

    def count(module, arguments):
        seen.append(arguments[0].shape[0] * arguments[0].shape[2] * arguments[0].shape[3])

    cover = segmenter_of([network], stride=stride, shifts=shifts)
    cover.networks[0].register_forward_pre_hook(count)
    cover.labels(picture(shape))
    device = torch.device("cpu")
    found = segmenter.computed_pixels(shape, [network], 16, stride, shifts, device)
    assert found == sum(seen)


def test_an_ensemble_takes_the_widest_halo_and_the_coarsest_grid(monkeypatch):
    set_tile(monkeypatch, 160**2)
    networks, image = [unet(depth=1), unet(depth=3, seed=1)], picture((201, 190))
    found = segmenter_of(networks, stride=None).probabilities(image)
    np.testing.assert_allclose(found, whole(networks, image), atol=1e-5)


def test_a_halo_too_narrow_would_show(monkeypatch):
    set_tile(monkeypatch, 128**2)
    monkeypatch.setattr(segmenter, "_LEAST", 0)
    network, image = unet(), picture((300, 260))
    network.halo = 4
    found = segmenter_of([network], stride=None).probabilities(image)
    assert np.abs(found - whole([network], image)).max() > 1e-3


@pytest.mark.parametrize("stride", [None, 8])
def test_an_image_is_asked_for_by_rows_and_never_as_a_whole(monkeypatch, stride):
    set_tile(monkeypatch, 96**2)
    network, image = unet(), picture((400, 50))
    lazy = Lazy(image)
    cover = segmenter_of([network], stride=stride)
    np.testing.assert_array_equal(cover.labels(lazy), cover.labels(image))
    assert max(stop - start for start, stop in lazy.asked) < 200
    assert [start for start, _ in lazy.asked] == sorted(start for start, _ in lazy.asked)


@pytest.mark.parametrize("shape", [(400, 300), (300, 16), (40, 30)])
def test_of_a_seamless_tile_nothing_but_its_kept_part_stays_in_memory(monkeypatch, shape):
    set_tile(monkeypatch, 128**2)
    softmax, made, most = Segmenter._softmax, [], []

    def spy(self, *arguments):
        most.append(sum(tile() is not None for tile in made))
        tile = softmax(self, *arguments).numpy().copy()
        made.append(weakref.ref(tile))
        return torch.from_numpy(tile)  # which keeps the array as long as any view of it is held

    monkeypatch.setattr(Segmenter, "_softmax", spy)
    for band in segmenter_of([unet()], stride=None).bands(picture(shape)):
        most.append(sum(tile() is not None for tile in made))
        assert band.untyped_storage().nbytes() == 4 * band.numel()
    assert max(most) == 0


@pytest.mark.parametrize("stride", [1, 5, 11, 16])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_neither_stride_nor_batch_breaks_it(stride, batch_size):
    network, image = Local(), picture((29, 38))
    found = segmenter_of([network], stride=stride, batch_size=batch_size).probabilities(image)
    np.testing.assert_allclose(found, slow([network], image, 16, stride, "gaussian"), atol=2e-6)


def test_networks_and_flips_are_averaged():
    networks = [Local(0), Local(1), Local(2)]
    flips = ((-1,), (-2,), (-2, -1))
    image = picture((33, 27))
    found = segmenter_of(networks, flips=flips).probabilities(image)
    expected = slow(networks, image, 16, 8, "gaussian", flips)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    one = segmenter_of(networks[:1]).probabilities(image)
    assert np.abs(one - found).max() > 0.01


def test_every_network_is_normalised_by_its_own_images():
    networks, image = [Local(0), Local(1), Local(2)], picture((33, 27))
    means, stds = [[100.0], [30.0], [100.0]], [[40.0], [90.0], [40.0]]
    found = segmenter_of(networks, means=means, stds=stds).probabilities(image)
    each = [
        slow([n], image, 16, 8, "gaussian", mean=m[0], std=s[0])
        for n, m, s in zip(networks, means, stds, strict=True)
    ]
    np.testing.assert_allclose(found, np.mean(each, 0), atol=2e-6)


@pytest.mark.parametrize("shape", [None, (50, 31)])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_temperature_changes_probabilities_and_no_label(temperature, shape):
    networks, image = [Local(0), Local(1)], picture((37, 45))
    plain = segmenter_of(networks).probabilities(image, shape)
    cover = segmenter_of(networks, temperature=temperature)
    found = cover.probabilities(image, shape)
    expected = torch.from_numpy(plain).double().log().div(temperature).softmax(0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    bands = list(cover.labelled_bands(image, shape))
    labels = np.concatenate([band for band, _ in bands])
    shares = torch.cat([part for _, part in bands], 1).numpy()
    np.testing.assert_array_equal(shares, found)
    np.testing.assert_array_equal(labels, plain.argmax(0))
    np.testing.assert_array_equal(cover.labels(image, shape), labels)
    if shape is None:
        np.testing.assert_array_equal(torch.cat(list(cover.bands(image)), 1), found)


@pytest.mark.parametrize("shape", [None, (37, 45), (80, 30), (20, 60)])
def test_confidence_is_the_probability_of_the_label(shape):
    image, cover = picture((37, 45)), segmenter_of([Local()], temperature=2.0)
    labels, confidence = cover.labels_and_confidence(image, shape)
    assert (labels.dtype, confidence.dtype) == (np.uint8, np.float32)
    assert labels.shape == confidence.shape == (shape or (37, 45))
    np.testing.assert_array_equal(labels, cover.labels(image, shape))
    np.testing.assert_array_equal(confidence, cover.probabilities(image, shape).max(0))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_depth_and_several_channels(dtype):
    network, image = Local(channels=4), picture((20, 30), 4, dtype)
    options = {"means": [[100.0] * 4], "stds": [[40.0] * 4]}
    found = segmenter_of([network], **options).probabilities(image)
    np.testing.assert_allclose(found, slow([network], image, 16, 8, "gaussian"), atol=2e-6)


@pytest.mark.parametrize("shape", [(61, 20), (16, 40), (10, 10), (33, 16)])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_bands_follow_each_other_from_top_to_bottom(shape, batch_size):
    image = picture(shape)
    cover = segmenter_of([Local()], batch_size=batch_size)
    bands = list(cover.bands(image))
    assert all(band.shape[0] == 3 and band.shape[2] == shape[1] for band in bands)
    assert all(band.shape[1] > 0 for band in bands)
    assert sum(band.shape[1] for band in bands) == shape[0]
    np.testing.assert_array_equal(torch.cat(bands, 1).numpy(), cover.probabilities(image))


def test_a_high_image_is_never_held_whole():
    bands = list(segmenter_of([Local()], batch_size=4).bands(picture((400, 30))))
    assert len(bands) > 10
    assert max(band.shape[1] for band in bands) <= 40


def test_probabilities_of_a_high_image_never_exist_whole_for_labels_and_confidence(monkeypatch):
    rows = []
    scaled = Segmenter._scaled

    def spy(self, band):
        rows.append(band.shape[1])
        return scaled(self, band)

    monkeypatch.setattr(Segmenter, "_scaled", spy)
    cover = segmenter_of([Local()], batch_size=4)
    for shape, most in ((None, 40), ((800, 60), 90)):
        rows.clear()
        cover.labels_and_confidence(picture((400, 30)), shape)
        assert sum(rows) == (shape or (400,))[0]
        assert max(rows) <= most


@pytest.mark.parametrize("shape", [(48, 40), (7, 90), (100, 3), (24, 20), (1, 1), (25, 21)])
@pytest.mark.parametrize("cuts", [[24], [1, 22, 1], [5, 2, 3, 14], [1] * 24])
def test_an_image_in_bands_is_resized_as_a_whole_one(shape, cuts):
    whole = torch.rand(2, 24, 20, generator=torch.Generator().manual_seed(1))
    expected = nn.functional.interpolate(whole[None], shape, mode="bilinear")[0]
    found = torch.cat(list(resized(whole.split(cuts, 1), 24, shape)), 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_labels_are_the_most_probable_classes():
    image, cover = picture((37, 45)), segmenter_of([Local()])
    labels = cover.labels(image)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, cover.probabilities(image).argmax(0))


def test_another_shape_is_reached_by_interpolation():
    image, cover = picture((24, 20)), segmenter_of([Local()])
    shares = cover.probabilities(image, (48, 40))
    assert shares.shape == (3, 48, 40)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(cover.labels(image, (48, 40)), shares.argmax(0))
    np.testing.assert_array_equal(cover.labels(image, (24, 20)), cover.labels(image))


def test_networks_are_used_as_they_predict_not_as_they_train():
    class Noisy(Local):
        def forward(self, x):
            return nn.functional.dropout(super().forward(x), 0.9, self.training)

    image, network = picture((20, 20)), Noisy().train()
    cover = segmenter_of([network])
    np.testing.assert_array_equal(cover.probabilities(image), cover.probabilities(image))


@pytest.mark.parametrize("stride", [8, None])
@pytest.mark.parametrize("flips", [(), [(-1,), (-2,), (-2, -1)]])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_computed_together_are_as_each_alone(stride, flips, dtype):
    shapes = [(20, 33)] * 3 if stride is None else [(20, 33), (16, 16), (3, 40), (31, 17)]
    images = [picture(shape).astype(dtype) + dtype(k) for k, shape in enumerate(shapes)]
    networks = [unet(seed=0), unet(seed=1)]
    options = {"stride": stride, "shifts": [(0, 0), (5, 11)], "flips": flips}
    cover = segmenter_of(networks, batch_size=64, temperature=1.5, **options)
    for image, found in zip(images, cover.together(images), strict=True):
        assert found.shape == image.shape
        for _ in range(2):  # taking the probabilities changes nothing
            np.testing.assert_allclose(
                cover.probabilities(found), cover.probabilities(image), atol=1e-6
            )
        np.testing.assert_array_equal(cover.labels(found, (50, 41)), cover.labels(image, (50, 41)))


def test_an_image_alone_is_computed_when_its_bands_are_asked_for():
    image, cover = picture((61, 40)), segmenter_of([Local()])
    assert cover.together([image])[0] is image


@pytest.mark.parametrize(
    ("stride", "shapes", "expected"),
    [
        # 1, 2, 1, 1 and 4 windows of 16 x 16, then 16; a batch has room for 5.
        (8, [(16, 16), (24, 9), (3, 3), (16, 16), (24, 24), (40, 40)], [4, 1, 1]),
        (8, [(40, 40), (16, 16), (16, 16)], [1, 2]),
        (8, [(16, 16), None, None, (16, 16)], [1, 1, 1, 1]),
        (8, [(24, 16)] * 5, [2, 2, 1]),
        (None, [(16, 20), (16, 20), (20, 16), (20, 16), (16, 20)], [2, 2, 1]),
        (None, [(16, 16)] * 12, [5, 5, 2]),
    ],
)
def test_images_come_in_batches_that_their_windows_fill(stride, shapes, expected):
    cover = segmenter_of([unet()], stride=stride, batch_size=5)
    batches = list(cover.batches(range(len(shapes)), shapes.__getitem__))
    assert [len(batch) for batch in batches] == expected
    assert list(itertools.chain(*batches)) == list(range(len(shapes)))


@pytest.mark.parametrize(("shape", "taken"), [((40, 40), 1), ((24, 16), 2), ((16, 16), 5)])
def test_no_image_is_taken_before_its_batch_is_due(shape, taken):
    numbers = iter(range(100))
    next(segmenter_of([Local()]).batches(numbers, lambda _: shape))
    assert next(numbers) == taken


def test_images_computed_together_are_bounded(monkeypatch):
    monkeypatch.setattr(segmenter, "_TOGETHER", 3)
    cover = segmenter_of([Local()], batch_size=64)
    assert [len(b) for b in cover.batches(range(7), lambda _: (16, 16))] == [3, 3, 1]
    set_tile(monkeypatch, 2 * 16**2)
    assert [len(b) for b in cover.batches(range(5), lambda _: (16, 16))] == [2, 2, 1]
