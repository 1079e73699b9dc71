"""The painter: places, clipping, blending, dashes, text."""

import numpy as np
import pytest
import shapely

from beyonddrive.visualization.canvas import Canvas, dashes, font, text_width

RED, WHITE, BLACK = (255, 0, 0), (255, 255, 255), (0, 0, 0)


def test_a_filled_square_covers_its_pixels_and_no_others():
    canvas = Canvas(20, 10, WHITE)
    canvas.fill([[(4, 2), (8, 2), (8, 6), (4, 6)]], RED)
    picture = canvas.finish()
    assert picture.shape == (10, 20, 3) and picture.dtype == np.uint8
    assert (picture[2:6, 4:8] == RED).all(axis=-1).mean() > 0.7  # its edge is smooth
    assert (picture[3:5, 5:7] == RED).all()
    outside = np.ones((10, 20), dtype=bool)
    outside[1:7, 3:9] = False
    assert (picture[outside] == WHITE).all()


def test_half_opaque_paint_is_a_mixture():
    canvas = Canvas(10, 10, BLACK)
    canvas.fill([[(0, 0), (10, 0), (10, 10), (0, 10)]], (200, 100, 50), alpha=0.5)
    assert np.abs(canvas.finish()[5, 5].astype(int) - (100, 50, 25)).max() <= 1


def test_overlapping_shapes_of_one_call_do_not_darken_each_other():
    square = [(2, 2), (8, 2), (8, 8), (2, 8)]
    once, twice = Canvas(10, 10, WHITE), Canvas(10, 10, WHITE)
    once.fill([square], BLACK, alpha=0.5)
    twice.fill([square, square], BLACK, alpha=0.5)
    assert np.array_equal(once.finish()[3:7, 3:7], twice.finish()[3:7, 3:7])
    assert (once.finish()[5, 5] < 130).all()


def test_holes_of_a_polygon_stay_open():
    canvas = Canvas(30, 30, WHITE)
    canvas.fill([shapely.box(2, 2, 28, 28).difference(shapely.box(10, 10, 20, 20))], RED)
    picture = canvas.finish()
    assert (picture[15, 15] == WHITE).all()
    assert (picture[5, 5] == RED).all()


def test_shapes_that_reach_far_out_are_clipped_not_wrapped():
    far = 1e9
    canvas = Canvas(40, 40, WHITE)
    canvas.fill([[(-far, 10), (far, 10), (far, 20), (-far, 20)]], RED)
    canvas.stroke([[(30, -far), (30, far)]], BLACK, 2.0)
    picture = canvas.finish()
    assert (picture[15, :28] == RED).all()
    assert (picture[5, :28] == WHITE).all()
    assert (picture[35, 30] == BLACK).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_shapes_beside_the_picture_leave_it_alone(alpha):
    canvas = Canvas(10, 10, WHITE)
    canvas.fill([[(20, 20), (30, 20), (30, 30)]], RED, alpha)
    canvas.stroke([[(-30, -30), (-25, -20)]], RED, 2.0, alpha)
    canvas.fill([], RED, alpha)
    assert (canvas.finish() == 255).all()


def test_dashes_follow_corners_and_skip_repeated_points():
    line = np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    parts = dashes(line, 4.0, 1.0)
    assert [part.tolist() for part in parts] == [[[0, 0], [3, 0], [3, 1]], [[3, 2], [3, 4]]]


def test_text_is_set_where_it_is_anchored():
    canvas = Canvas(200, 40, WHITE)
    canvas.text(190, 20, "10 m", 16, BLACK, anchor="rm")
    columns = np.flatnonzero((canvas.finish() < 128).any(axis=(0, 2)))
    assert 190 - text_width("10 m", 16) - 2 <= columns.min() and columns.max() <= 190
    assert text_width("10 m", 16, bold=True) > text_width("10 m", 16)
    assert font(12) is font(12)


def test_a_background_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"shape \(10, 20, 3\).*resize"):
        Canvas(20, 10, np.zeros((5, 5, 3), dtype=np.uint8))


def test_a_stamp_lies_below_what_is_painted_later_and_is_cut_at_the_edge():
    canvas = Canvas(60, 40, WHITE)
    canvas.stamp(30, 20, "P", 20, BLACK)
    stamped = canvas.finish()
    rows, columns = np.nonzero((stamped < 128).all(axis=-1))
    assert abs(rows.mean() - 20) < 3 and abs(columns.mean() - 30) < 3
    canvas.fill([[(0, 0), (60, 0), (60, 40), (0, 40)]], RED)
    canvas.stamp(0, 0, "P", 20, BLACK)
    canvas.stamp(-100, 500, "P", 20, BLACK)
    picture = canvas.finish()
    assert (picture[20, 30] == RED).all()
    assert (picture[:8, :8] == BLACK).all(axis=-1).any()
