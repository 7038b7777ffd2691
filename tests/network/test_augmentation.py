import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline

from unetseg.dataset.geometry import symmetries_of
from unetseg.errors import InputError
from unetseg.network.augmentation import (
    PRESETS,
    Augmentation,
    _blur,
    _grid,
    apply,
    draw,
    preset,
)
from unetseg.settings import SYMMETRIES

SIZE, MARGIN = 14, 4
PATCH = SIZE + 2 * MARGIN
ALL = frozenset(SYMMETRIES)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_batch(count=6, channels=2, patch=PATCH):
    images = torch.randn(count, channels, patch, patch, generator=generator())
    masks = torch.randint(0, 4, (count, patch, patch), generator=generator(1), dtype=torch.uint8)
    return images, masks


def core(batch):
    return batch[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def sources(params, i, size=SIZE, patch=PATCH):
    """Where the pixels of a core come from, (2, S, S), by mapping them one after the other."""
    centre, turns = (patch - 1) / 2, int(params.symmetry[i])
    found = np.empty((2, size, size))
    for row, column in itertools.product(range(size), repeat=2):
        place = np.array([row, column]) - (size - 1) / 2
        for _ in range(turns % 4):
            place = np.array([place[1], -place[0]])
        if turns >= 4:
            place = place * [1, -1]
        found[:, row, column] = params.matrix[i].numpy() @ place + params.shift[i].numpy() * size
    return found + centre


def test_none_is_the_centre_crop_to_the_last_bit():
    images, masks = random_batch()
    found = apply(images, masks, draw(6, preset("none", ALL), generator()), SIZE)
    assert torch.equal(found[0], core(images))
    assert torch.equal(found[1], core(masks).long())


def test_results_are_float32_channels_last_and_int64():
    images, masks = apply(*random_batch(), draw(6, preset("strong", ALL), generator()), SIZE)
    assert images.shape == (6, 2, SIZE, SIZE)
    assert masks.shape == (6, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert masks.dtype == torch.int64
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("settings", "views"),
    [
        ({"hflip": True}, [lambda x: x, lambda x: x.flip(-1)]),
        ({"vflip": True}, [lambda x: x, lambda x: x.flip(-2)]),
        ({"quarter_turns": True}, [lambda x, k=k: x.rot90(k, (-2, -1)) for k in range(4)]),
        (
            {"hflip": True, "vflip": True},
            [lambda x, d=d: x.flip(d) for d in ((), (-1,), (-2,), (-2, -1))],
        ),
        (
            {"hflip": True, "quarter_turns": True},
            [lambda x, k=k, d=d: x.rot90(k, (-2, -1)).flip(d) for k in range(4) for d in ((), -1)],
        ),
    ],
    ids=["hflip", "vflip", "turns", "both flips", "all eight"],
)
def test_symmetries_are_exact_and_each_occurs(settings, views):
    images, masks = random_batch(1)
    count = 100
    batch = images.expand(count, -1, -1, -1), masks.expand(count, -1, -1)
    found = apply(*batch, draw(count, Augmentation(**settings), generator()), SIZE)
    seen = set()
    for image, mask in zip(*found, strict=True):
        (same,) = (k for k, view in enumerate(views) if torch.equal(image, view(core(images[0]))))
        assert torch.equal(mask, views[same](core(masks[0])).long())
        seen.add(same)
    assert seen == set(range(len(views)))


@pytest.mark.parametrize("symmetry", range(8))
def test_a_warp_that_does_not_move_equals_the_exact_symmetry(symmetry):
    images, masks = random_batch(1)
    params = draw(1, Augmentation(warp=1, rotate=1e-9), generator())
    params.symmetry[:] = symmetry
    warped = apply(images, masks, params, SIZE)
    params.warped[:] = False
    exact = apply(images, masks, params, SIZE)
    torch.testing.assert_close(warped[0], exact[0], atol=1e-4, rtol=0)
    assert torch.equal(warped[1], exact[1])


def test_affine_warps_equal_scipys_and_masks_a_loop_over_pixels():
    images, masks = random_batch()
    # The zooms reach beyond the margin, where the image is reflected and the mask ignored.
    settings = Augmentation(True, True, True, warp=1, rotate=40, zoom=2, shift=0.2, shear=20)
    params = draw(6, settings, generator(3))
    found = apply(images, masks, params, SIZE)
    assert (found[1] == 255).any()
    for i in range(6):
        places = sources(params, i)
        for c in range(2):
            expected = ndimage.map_coordinates(images[i, c], places, order=1, mode="reflect")
            np.testing.assert_allclose(found[0][i, c], expected, atol=2e-4)
        for row, column in itertools.product(range(SIZE), repeat=2):
            y, x = (round(p) for p in places[:, row, column])
            inside = 0 <= y < PATCH and 0 <= x < PATCH
            assert found[1][i, row, column] == (masks[i, y, x] if inside else 255)


def test_elastic_shifts_are_a_cubic_spline_through_control_points():
    params = draw(1, Augmentation(warp=1, elastic=0.1), generator())
    grid = _grid(params, SIZE, PATCH, torch.device("cpu"))[0].numpy()  # (S, S, (x, y)), -1 to 1
    shifts = grid[..., ::-1] * PATCH / 2 / SIZE - np.stack(
        np.meshgrid(*[(np.arange(SIZE) + 0.5) / SIZE - 0.5] * 2, indexing="ij"), -1
    )
    points = params.elastic.shape[-1]
    knots = np.arange(-3, points + 1)  # spans of 1 from 0 to points - 3
    places = (np.arange(SIZE) + 0.5) / SIZE * (points - 3)
    basis = BSpline.design_matrix(places, knots, 3).toarray()  # (S, points)
    expected = np.einsum("ia,cab,jb->ijc", basis, params.elastic[0].numpy(), basis)
    np.testing.assert_allclose(shifts, expected, atol=1e-6)


def test_image_and_mask_are_read_at_the_same_place():
    # The image holds its own coordinates, so its values say which pixel the mask should give.
    rows, columns = torch.meshgrid(*[torch.arange(PATCH)] * 2, indexing="ij")
    images = torch.stack([rows, columns]).float().expand(20, -1, -1, -1)
    settings = Augmentation(True, True, True, warp=0.8, rotate=30, zoom=1.2, shear=10, elastic=0.05)
    params = draw(20, settings, generator())
    assert 0 < params.warped.sum() < 20
    places, by_row = apply(images, rows.byte().expand(20, -1, -1), params, SIZE)
    _, by_column = apply(images, columns.byte().expand(20, -1, -1), params, SIZE)
    seen = by_row != 255
    assert seen.float().mean() > 0.9
    for axis, labels in enumerate((by_row, by_column)):
        assert (places[:, axis] - labels)[seen].abs().max() < 0.5 + 1e-4


def test_masks_are_never_blended_and_ignored_pixels_stay_ignored():
    masks = torch.tensor([0, 7, 255], dtype=torch.uint8)[torch.arange(PATCH) // 3 % 3]
    masks = masks.expand(50, PATCH, PATCH).contiguous()
    images, _ = random_batch(50)
    _, found = apply(images, masks, draw(50, preset("strong", ALL), generator()), SIZE)
    assert set(found.unique().tolist()) == {0, 7, 255}


@pytest.mark.parametrize("name", PRESETS)
def test_one_seed_gives_one_result_and_another_another(name):
    batch = random_batch(20)
    settings = preset(name, ALL)
    first = apply(*batch, draw(20, settings, generator(5)), SIZE)
    again = apply(*batch, draw(20, settings, generator(5)), SIZE)
    other = apply(*batch, draw(20, settings, generator(6)), SIZE)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(first[0], other[0]) == (name == "none")


def test_a_slice_of_the_draw_gives_the_pixels_of_the_whole_batch():
    images, masks = random_batch(24)
    params = draw(24, preset("strong", ALL), generator())
    whole = apply(images, masks, params, SIZE)
    for a, b in ((0, 1), (1, 12), (12, 24)):
        part = apply(images[a:b], masks[a:b], params[a:b], SIZE)
        assert torch.equal(part[0], whole[0][a:b])
        assert torch.equal(part[1], whole[1][a:b])


def test_the_batch_given_is_left_as_it_was():
    images, masks = random_batch(20)
    kept = images.clone(), masks.clone()
    apply(images, masks, draw(20, preset("strong", ALL), generator()), SIZE)
    assert torch.equal(images, kept[0])
    assert torch.equal(masks, kept[1])


def test_autocast_does_not_move_a_pixel():
    batch = random_batch()
    params = draw(6, Augmentation(warp=1, rotate=45), generator())
    expected = apply(*batch, params, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        found = apply(*batch, params, SIZE)
    torch.testing.assert_close(found[0].float(), expected[0])
    assert torch.equal(found[1], expected[1])


def only(**values):
    """A draw for one image that changes nothing but ``values``."""
    params = draw(1, Augmentation(), generator())
    for name, value in values.items():
        getattr(params, name)[:] = value
    return params


def test_gain_and_offset_are_a_product_and_a_sum():
    images, masks = random_batch(1)
    found, _ = apply(images, masks, only(gain=1.5, offset=-0.25), SIZE)
    torch.testing.assert_close(found, core(images) * 1.5 - 0.25)


def test_gamma_bends_the_values_between_the_extremes_of_the_image():
    images = torch.zeros(1, 1, PATCH, PATCH)
    images[0, 0, MARGIN, MARGIN : MARGIN + 3] = torch.tensor([-1.0, 1.0, 3.0])
    found, _ = apply(images, random_batch(1)[1], only(gamma=2), SIZE)
    # -1, 0, 1, 3 are 0, 1/4, 1/2, 1 of the range of 4; squared 0, 1/16, 1/4, 1.
    torch.testing.assert_close(found[0, 0, 0, :4], torch.tensor([-1.0, 0.0, 3.0, -0.75]))


def test_gamma_leaves_an_image_of_one_value_finite():
    found, _ = apply(torch.ones(1, 1, PATCH, PATCH), random_batch(1)[1], only(gamma=2), SIZE)
    assert torch.equal(found, torch.ones(1, 1, SIZE, SIZE))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7])
def test_blur_equals_scipys_away_from_the_border(sigma):
    image = torch.randn(2, 40, 40, generator=generator())
    expected = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), truncate=4)
    inner = slice(8, -8)
    # Both cut at about 4 deviations, where a Gaussian has fallen below 4e-4.
    np.testing.assert_allclose(
        _blur(image, sigma)[:, inner, inner], expected[:, inner, inner], atol=1e-3
    )


def test_blur_keeps_a_constant_up_to_the_border():
    torch.testing.assert_close(_blur(torch.full((1, 9, 9), 2.5), 2.0), torch.full((1, 9, 9), 2.5))


def test_noise_has_the_deviation_drawn_and_comes_from_the_images_own_seed():
    images, masks = torch.zeros(1, 1, 80, 80), torch.zeros(1, 80, 80, dtype=torch.uint8)
    first, _ = apply(images, masks, only(noise=0.3, seed=1), 80)
    other, _ = apply(images, masks, only(noise=0.3, seed=2), 80)
    assert first.std().item() == pytest.approx(0.3, rel=0.05)
    assert first.mean().item() == pytest.approx(0, abs=0.02)
    assert not torch.equal(first, other)


def test_each_change_takes_its_share_of_the_images_and_stays_in_its_range():
    a = PRESETS["strong"]
    params = draw(20_000, a, generator())
    for values, neutral, share, low, high in (
        (params.gain, 1, 0.3, 1 / a.contrast, a.contrast),
        (params.offset, 0, 0.3, -a.brightness, a.brightness),
        (params.gamma, 1, 0.3, 1 / a.gamma, a.gamma),
        (params.blur, 0, 0.2, a.blur / 2, a.blur),
        (params.noise, 0, 0.1, 0, a.noise),
        (params.matrix.det() ** -0.5, math.nan, 1, 1 / a.zoom, a.zoom),
        (params.shift.flatten(), math.nan, 1, -a.shift, a.shift),
        (params.elastic[:500].flatten(), math.nan, 1, -a.elastic, a.elastic),
    ):
        changed = values[values != neutral]
        assert len(changed) / len(values) == pytest.approx(share, abs=0.01)
        span = high - low
        assert low - 1e-6 <= changed.min() < low + 0.02 * span
        assert high - 0.02 * span < changed.max() <= high + 1e-6
    assert params.warped.double().mean().item() == pytest.approx(a.warp, abs=0.01)
    angle = torch.atan2(-params.matrix[:, 1, 0], params.matrix[:, 0, 0]).rad2deg()
    assert 0.98 * a.rotate < angle.abs().max() <= a.rotate + 1e-6
    assert params.seed.unique().numel() == 20_000


def test_a_turn_without_a_direction_rotates_by_every_angle():
    assert preset("light", frozenset({"turn"})).rotate == 45
    assert preset("light", frozenset({"hflip"})).rotate < 45


def test_light_leaves_shape_and_grain_to_strong():
    light, strong = PRESETS["light"], PRESETS["strong"]
    assert light.elastic == light.shear == light.blur == 0
    assert light.gamma == 1
    assert min(strong.elastic, strong.shear, strong.blur, strong.gamma - 1) > 0


def test_at_the_margin_of_a_store_a_square_turns_without_leaving_the_patch():
    size, margin = 96, math.ceil(0.21 * 96)
    patch = size + 2 * margin
    masks = torch.zeros(64, patch, patch, dtype=torch.uint8)
    params = draw(64, Augmentation(warp=1, rotate=45), generator())
    _, found = apply(masks[:, None].float(), masks, params, size)
    assert found.max() == 0


@pytest.mark.parametrize(("name", "symmetries"), [("heavy", ALL), ("light", frozenset({"flip"}))])
def test_an_unknown_preset_or_symmetry_is_refused_with_the_known_ones(name, symmetries):
    with pytest.raises(InputError, match="choose of"):
        preset(name, symmetries)


@pytest.mark.parametrize(
    ("name", "value"), [("warp", 1.1), ("zoom", 0.9), ("elastic", 0.2), ("noise", math.nan)]
)
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(InputError, match=name):
        Augmentation(**{name: value})


def halves_of(masks: list[np.ndarray], classes: int) -> np.ndarray:
    """Count classes in the halves of masks the slow way."""
    counts = np.zeros((len(masks), 2, 2, classes), np.int64)
    for i, mask in enumerate(masks):
        for (y, x), label in np.ndenumerate(mask):
            counts[i, 0, int(y >= mask.shape[0] // 2), label] += 1
            counts[i, 1, int(x >= mask.shape[1] // 2), label] += 1
    return counts


def test_sky_above_and_road_below_leave_only_the_left_right_mirror():
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(8):  # sky 0, road 1, and a car 2 on either side
        mask = np.repeat(np.arange(12) >= rng.integers(4, 8), 16).reshape(12, 16).astype(np.uint8)
        left = rng.integers(0, 13)
        mask[8:11, left : left + 3] = 2
        masks.append(mask)
    assert symmetries_of(halves_of(masks, 3)) == {"hflip"}


def test_objects_anywhere_leave_all_symmetries():
    rng = np.random.default_rng(1)
    masks = [(rng.random((12, 16)) < 0.3).astype(np.uint8) for _ in range(8)]
    assert symmetries_of(halves_of(masks, 2)) == {"hflip", "vflip", "turn"}


def test_one_object_in_each_image_now_here_now_there_is_no_special_direction():
    masks = []
    for corner in (0, 1, 2, 3, 0, 3):
        mask = np.zeros((12, 16), np.uint8)
        row, column = 6 * (corner // 2), 8 * (corner % 2)
        mask[row : row + 6, column : column + 8] = 1
        masks.append(mask)
    assert symmetries_of(halves_of(masks, 2)) == {"hflip", "vflip", "turn"}
