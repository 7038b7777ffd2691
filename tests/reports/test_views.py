"""The part of an image that a page shows, its size, and where in it a place lies."""

import numpy as np
import pytest

from unetseg.pictures.drawing import to_display
from unetseg.reports import views
from unetseg.reports.views import View
from unetseg.scoring.metrics import ScoredImage


def test_a_box_is_shown_in_a_square_around_its_middle():
    # the middle is row 710, column 1050; the side is three times 100
    view = views.around((900, 1300), (700, 1000, 20, 100), 120)
    assert view == View((900, 1300), 560, 900, 300, 300)
    assert view.caption == "rows 560 to 859, columns 900 to 1199 of 900 x 1300"


@pytest.mark.parametrize(
    ("shape", "box", "expected"),
    [
        ((900, 700), (0, 690, 4, 4), (0, 572, 128, 128)),  # moved in from the upper right corner
        ((100, 700), (90, 300, 10, 10), (0, 241, 100, 128)),  # all rows, as there are fewer
        ((200, 255), (90, 100, 10, 10), (0, 0, 200, 255)),  # a square would leave out too little
        ((900, 700), (0, 0, 300, 10), (0, 0, 900, 700)),  # the box is a third of the image
    ],
)
def test_the_square_lies_within_the_image_or_is_the_whole_of_it(shape, box, expected):
    view = views.around(shape, box, 128)
    assert (view.top, view.left, view.height, view.width) == expected
    assert view.is_whole == (expected[2:] == shape)


def test_a_frame_ends_where_the_view_ends():
    view = views.whole((100, 200))
    assert (
        view.frame((90, -20, 30, 40)) == "top: 90.00%; left: 0.00%; height: 10.00%; width: 10.00%"
    )


def test_a_frame_is_in_percent_of_the_view():
    view = View((900, 700), 751, 0, 128, 64)
    found = view.frame((800, 16, 32, 8))  # 49, 16, 32 and 8 of 128, 64, 128 and 64
    assert found == "top: 38.28%; left: 25.00%; height: 25.00%; width: 12.50%"


@pytest.mark.parametrize("shape", [(700, 1000), (100, 1000), (481, 480), (1, 2000)])
def test_the_fullest_square_holds_as_much_as_the_best_of_all_steps(shape):
    rng = np.random.default_rng(3)
    rough = rng.random((shape[0] // 16 + 1, shape[1] // 16 + 1)) ** 3
    wanted = rng.random(shape) < rough.repeat(16, 0).repeat(16, 1)[: shape[0], : shape[1]] / 2
    most = max(
        wanted[top : top + 480, left : left + 480].sum()
        for top in range(0, max(1, shape[0] - 464), 16)
        for left in range(0, max(1, shape[1] - 464), 16)
    )
    view = views.fullest(wanted)
    assert view.of(wanted).sum() >= most
    assert (view.height, view.width) == (min(480, shape[0]), min(480, shape[1]))


def test_where_nothing_is_wanted_the_first_square_is_shown_within_the_image():
    view = views.fullest(np.zeros((100, 1000), bool))
    assert view == View((100, 1000), 0, 0, 100, 480)
    assert view.caption == "rows 0 to 99, columns 0 to 479 of 100 x 1000"


def test_what_fits_is_whole_and_drawn_as_it_is():
    image = np.arange(48 * 30 * 3, dtype=np.uint8).reshape(48, 30, 3)
    truth, prediction = np.eye(48, 30, dtype=np.uint8), np.zeros((48, 30), np.uint8)
    view = views.fullest(truth != prediction)
    assert view == views.whole((48, 30))
    assert view.caption == ""
    drawn = view.draw(ScoredImage("a", image, truth, prediction))
    for one, expected in zip(drawn, (to_display(image), truth, prediction), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_what_is_too_large_is_shrunk_and_says_so():
    truth = np.zeros((600, 1200), np.uint8)
    truth[:, 800:] = 2
    view = views.whole((600, 1200))
    image, shown, _ = view.draw(ScoredImage("a", np.zeros((600, 1200, 3), np.uint8), truth, truth))
    assert image.shape == (240, 480, 3)
    np.testing.assert_array_equal(shown, np.repeat([[0] * 320 + [2] * 160], 240, axis=0))
    assert view.caption == "600 x 1200, shrunk to 40 %"


def test_a_pixel_of_an_enlarged_picture_is_a_square():
    picture = np.array([[1, 2]], np.uint8)
    np.testing.assert_array_equal(views.enlarge(picture, 2), [[1, 1, 2, 2], [1, 1, 2, 2]])
