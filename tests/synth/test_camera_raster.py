from itertools import pairwise

import numpy as np
import pytest
import shapely

from beyonddrive.synth.paint.order import paint_order, rectangles
from beyonddrive.synth.paint.polygon_soup import FLAT, SOLID, SoupBuilder, merge
from beyonddrive.synth.paint.raster import paint_polygons, scratch

WIDTH, HEIGHT = 200, 120
INTRINSIC = np.array([[100.0, 0.0, 100.0], [0.0, 100.0, 60.0], [0.0, 0.0, 1.0]])
# The camera at the origin looks along +x: its axes are right -y, down -z, forward x.
FORWARD = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


def paint(builder, translation=(0.0, 0.0, 0.0), background=0, order=None):
    soup = builder.build()
    image = np.full((HEIGHT, WIDTH, 3), background, dtype=np.uint8)
    longest = int(np.diff(soup.contours).max())
    order = np.arange(len(soup.colors)) if order is None else np.array(order)
    paint_polygons(
        image, *scratch((WIDTH, HEIGHT), longest), order, soup.points, soup.contours, soup.polygons,
        soup.colors, soup.kinds, soup.alphas, soup.radii, FORWARD, np.array(translation), INTRINSIC,
        np.zeros(3), np.zeros(3), 1e9, 1.0,
    )  # fmt: skip
    return image


def upright(x, y0, y1, z0, z1):
    """A rectangle across the view at depth x, seen from -x."""
    return [(x, y1, z0), (x, y0, z0), (x, y0, z1), (x, y1, z1)]


def test_a_point_projects_to_where_the_intrinsics_say():
    builder = SoupBuilder()
    # At depth 10 a metre is 10 px: columns 100 - 10 y, rows 60 - 10 z.
    builder.polygon(upright(10.0, -3.0, 2.0, -1.0, 4.0), (200, 100, 50), FLAT)
    image = paint(builder)
    rows, columns = np.nonzero(image[..., 0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (20, 70, 80, 130)
    assert (image[20:70, 80:130] == (200, 100, 50)).all()


def test_partly_covered_pixels_get_their_share():
    builder = SoupBuilder()
    builder.polygon(upright(10.0, -1.025, 1.05, -1.0, 1.07), (200, 200, 200), FLAT)
    image = paint(builder).astype(float) / 200
    assert image[60, 89, 0] == pytest.approx(0.5, abs=0.01)
    assert image[60, 110, 0] == pytest.approx(0.25, abs=0.01)
    assert image[49, 100, 0] == pytest.approx(0.7, abs=0.01)
    assert image[..., 0].sum() == pytest.approx(20.75 * 20.7, rel=0.01)


def test_slanted_polygons_and_holes_cover_their_area():
    builder = SoupBuilder()
    turns = np.linspace(0.0, 2 * np.pi, 40, endpoint=False)
    circle = np.column_stack([np.full(40, 10.0), -np.cos(turns), np.sin(turns)])
    outer, inner = circle * (1, 4, 4), circle[::-1] * (1, 2, 2)
    builder.polygon(outer, (255, 255, 255), FLAT, holes=[inner])
    area = paint(builder)[..., 0].sum() / 255
    sector = 0.5 * np.sin(2 * np.pi / 40) * 40
    assert area == pytest.approx(sector * (40**2 - 20**2), rel=0.005)


def test_a_plane_through_the_camera_ends_at_the_horizon():
    builder = SoupBuilder()
    builder.polygon([(-500, -500, 0), (500, -500, 0), (500, 500, 0), (-500, 500, 0)], (9, 9, 9), FLAT)
    image = paint(builder, translation=(0.0, 0.0, 1.5))
    assert (image[:60] == 0).all()
    assert (image[61:] == 9).all()


def test_what_is_behind_the_camera_is_not_painted():
    builder = SoupBuilder()
    builder.polygon(upright(-5.0, -3.0, 3.0, -3.0, 3.0), (200, 200, 200), FLAT)
    builder.disc((-5.0, 0.0, 0.0), 2.0, (200, 200, 200))
    assert paint(builder).max() == 0


def test_faces_are_culled_from_behind_and_later_ones_cover_earlier_ones():
    builder = SoupBuilder()
    builder.polygon(upright(20.0, -3.0, 3.0, -3.0, 3.0), (100, 0, 0), SOLID)
    builder.polygon(upright(10.0, -3.0, 3.0, -3.0, 3.0)[::-1], (0, 100, 0), SOLID)
    image = paint(builder)
    assert image[..., 0].max() > 0
    assert image[..., 1].max() == 0
    builder.polygon(upright(10.0, -3.0, 3.0, -3.0, 3.0), (0, 0, 100), FLAT)
    assert paint(builder)[60, 100].tolist() == [0, 0, 100]
    assert paint(builder, order=[2, 0])[60, 100, 0] > 0


def test_merged_and_chosen_solids_keep_their_polygons():
    def solid(x, sides):
        builder = SoupBuilder()
        for _ in range(sides):
            builder.polygon(upright(x, -1, 1, -1, 1), (x, 0, 0))
        builder.close_solid()
        return builder.build()

    soup = merge([solid(1, 2), solid(2, 1), solid(3, 3)])
    chosen = soup.take_solids(np.array([2, 0]))
    assert chosen.colors[:, 0].tolist() == [3, 3, 3, 1, 1]
    assert chosen.solids.tolist() == [0, 3, 5]
    assert np.unique(chosen.points[: 3 * 4, 0]).tolist() == [3.0]
    assert len(chosen.points) == 5 * 4


def first_hit(feet, direction):
    """Index of the rectangle that a ray from the origin meets first, and the second."""
    hits = []
    for i, quad in enumerate(feet):
        best = np.inf
        for a, b in zip(quad, np.roll(quad, -1, axis=0), strict=True):
            matrix = np.column_stack([direction, a - b])
            if abs(np.linalg.det(matrix)) > 1e-9:
                t, s = np.linalg.solve(matrix, a)
                if t > 0 and 0 <= s <= 1:
                    best = min(best, t)
        if np.isfinite(best):
            hits.append((best, i))
    return [i for _, i in sorted(hits)]


def test_painting_order_never_puts_a_hidden_box_over_what_hides_it():
    rng = np.random.default_rng(3)
    boxes = []
    while len(boxes) < 45:
        candidate = (*rng.uniform((4, -25), (50, 25)), rng.uniform(0, 6), *rng.uniform((1, 1), (22, 4)))
        x, y, heading, length, width = (np.array([value]) for value in candidate)
        quad = rectangles(np.column_stack([x, y]), heading, length, width)[0]
        shape = shapely.Polygon(quad)
        if shape.distance(shapely.Point(0, 0)) > 1 and all(shape.disjoint(other) for _, other in boxes):
            boxes.append((quad, shape))
    feet = np.stack([quad for quad, _ in boxes])
    order = paint_order(feet, FORWARD, np.zeros(3), -1.2, 1.2, 200.0).tolist()
    place = {solid: n for n, solid in enumerate(order)}
    checked = 0
    for angle in np.linspace(-0.75, 0.75, 151):
        seen = first_hit(feet, np.array([np.cos(angle), np.sin(angle)]))
        for near, far in pairwise(seen):
            assert place[near] > place[far]
            checked += 1
    assert checked > 100


def test_painting_order_leaves_out_what_is_behind_aside_or_too_far():
    feet = rectangles(
        np.array([[10.0, 0.0], [-10.0, 0.0], [5.0, 60.0], [300.0, 0.0]]),
        np.zeros(4),
        np.full(4, 4.0),
        np.full(4, 2.0),
    )
    assert paint_order(feet, FORWARD, np.zeros(3), -1.0, 1.0, 100.0).tolist() == [0]
