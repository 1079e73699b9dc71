"""Kernels against shapely: points in polygons, boxes, projections, and the order of its spatial index."""

import numpy as np
import pytest
import shapely
from shapely import affinity

from beyonddrive.evaluation.pdm.kernels.box_in_polygon import box_in_corridor
from beyonddrive.evaluation.pdm.kernels.collision import boxes_touch
from beyonddrive.evaluation.pdm.kernels.grid import build_grid, locate_all
from beyonddrive.evaluation.pdm.kernels.lane_keeping import is_near, make_line, project_on_line
from beyonddrive.evaluation.pdm.kernels.polygons import PolygonError, PolygonRings
from beyonddrive.evaluation.pdm.kernels.polyline import arc_length, interpolate, project
from beyonddrive.evaluation.pdm.kernels.str_tree import listing_order
from beyonddrive.evaluation.pdm.reference.idm import box_edges, ego_distance
from beyonddrive.structures.boxes import box_corners

ORIGIN = np.array([664433.0, 3999121.0])  # as far from zero as UTM coordinates are


def random_polygons(rng, count):
    """Stars, slivers, holes and multi-polygons around ORIGIN; some reach beyond the grid."""
    shapes = []
    for i in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))
        radius = rng.uniform(1, 1 + 60 * rng.random(), len(angles))
        center = ORIGIN + rng.uniform(-110, 110, 2)
        points = center + radius[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])
        shape = shapely.make_valid(shapely.Polygon(points))
        if i % 3 == 0:
            shape = shapely.difference(shape, shapely.Point(*center).buffer(rng.uniform(0.1, 9)))
        if i % 4 == 0:
            shape = shapely.union(shape, shapely.box(*(center + 70), *(center + 75)))
        shape = affinity.scale(shape, 1.0, rng.choice([1.0, 0.05])) if i % 5 == 0 else shape
        polygons = [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and p.area > 0]
        if polygons:
            shapes.append(shapely.MultiPolygon(polygons) if len(polygons) > 1 else polygons[0])
    return np.array(shapes, dtype=object)


def unpack(masks, count):
    bits = np.unpackbits(masks.view(np.uint8), axis=1, bitorder="little")
    return bits[:, :count].astype(bool)


@pytest.mark.parametrize("count", [3, 64, 130])
def test_points_in_polygons(count):
    rng = np.random.default_rng(count)
    shapes = random_polygons(rng, count)
    grid = build_grid(PolygonRings.from_geometries(shapes), *ORIGIN)
    points = ORIGIN + rng.uniform(-190, 190, (20000, 2))
    inside = unpack(locate_all(grid, points), len(shapes))
    expected = shapely.contains_xy(shapes[None], points[:, :1], points[:, 1:])
    assert expected.any(axis=0).mean() > 0.9
    np.testing.assert_array_equal(inside, expected)


def test_points_on_a_boundary_are_outside():
    square = shapely.box(*ORIGIN, *(ORIGIN + 4))
    neighbor = shapely.box(ORIGIN[0] + 4, ORIGIN[1], ORIGIN[0] + 8, ORIGIN[1] + 4)
    far = shapely.box(*(ORIGIN + 300), *(ORIGIN + 304))
    grid = build_grid(PolygonRings.from_geometries([square, neighbor, far]), *ORIGIN)
    offsets = [[0, 0], [4, 2], [2, 4], [4, 4], [1, 1], [5, 1], [300, 302], [302, 302]]
    inside = unpack(locate_all(grid, ORIGIN + np.array(offsets, dtype=float)), 3)
    expected = [[0, 0, 0]] * 4 + [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(inside, np.array(expected, dtype=bool))


def test_no_polygons_hold_no_point():
    grid = build_grid(PolygonRings.from_geometries([]), 0.0, 0.0)
    assert (locate_all(grid, np.zeros((2, 2))) == 0).all()


def test_geometries_without_an_area_are_refused():
    for bad in (shapely.Point(0, 0), shapely.Polygon(), None, shapely.LineString([(0, 0), (1, 1)])):
        with pytest.raises(PolygonError, match=r"row 1 is .*, not a polygon"):
            PolygonRings.from_geometries([shapely.box(0, 0, 1, 1), bad])
    endless = shapely.Polygon([(0, 0), (1, 0), (np.inf, 1)])
    with pytest.raises(PolygonError, match="not finite"):
        PolygonRings.from_geometries([endless])


def test_taking_polygons_keeps_their_rings():
    shapes = random_polygons(np.random.default_rng(5), 20)
    rows = np.array([7, 0, 7, 11])
    taken = PolygonRings.from_geometries(shapes).take(rows)
    direct = PolygonRings.from_geometries(shapes[rows])
    for name in ("vertices", "ring_starts", "polygon_starts"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(direct, name))
    assert taken.edges()[0].shape == (len(taken.vertices) - len(taken.ring_starts) + 1, 4)


def random_boxes(rng, count):
    """x, y, cos, sin, half length, half width."""
    heading = rng.uniform(-np.pi, np.pi, count)
    center = rng.uniform(-6, 6, (count, 2))
    half = rng.uniform(0.1, 4, (count, 2))
    return np.column_stack([center, np.cos(heading), np.sin(heading), half])


def polygons_of(boxes):
    heading = np.arctan2(boxes[:, 3], boxes[:, 2])
    return shapely.polygons(box_corners(boxes[:, :2], heading, 2 * boxes[:, 4], 2 * boxes[:, 5]))


def test_boxes_touch_as_polygons_do():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 4000), random_boxes(rng, 4000)
    touching = [boxes_touch(*(q[:2] - p[:2]), *p[2:], *q[2:]) for p, q in zip(a, b, strict=True)]
    expected = shapely.intersects(polygons_of(a), polygons_of(b))
    assert 0.2 < expected.mean() < 0.8
    np.testing.assert_array_equal(touching, expected)


def test_boxes_in_a_corridor():
    rng = np.random.default_rng(1)
    line = shapely.LineString([(-5, -3), (0, 0), (4, -1), (6, 5), (1, 6), (0, 3)])
    corridor = line.buffer(0.7, quad_segs=16, cap_style="square")
    assert len(corridor.interiors) == 0
    ring = line.buffer(1.8)
    for shape in (corridor, ring):
        edges, _ = PolygonRings.from_geometries([shape]).edges()
        boxes = random_boxes(rng, 1500)
        boxes[:, 4:] *= 0.3
        inside = [box_in_corridor(box[:4].copy(), box[4], box[5], edges) for box in boxes]
        np.testing.assert_array_equal(inside, shapely.intersects(shape, polygons_of(boxes)))


def test_distance_between_boxes():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 500), random_boxes(rng, 500)
    expected = shapely.distance(polygons_of(a), polygons_of(b))
    ours = np.zeros(500)
    for i, (p, q) in enumerate(zip(a, b, strict=True)):
        first, second = np.empty((4, 4)), np.empty((4, 4))
        box_edges(p[:4].copy(), p[4], p[5], first)
        box_edges(q[:4].copy(), q[4], q[5], second)
        ours[i] = ego_distance(first, second)
    apart = expected > 0
    np.testing.assert_allclose(ours[apart], expected[apart], rtol=0, atol=1e-12)


def test_projection_and_interpolation_along_a_line():
    rng = np.random.default_rng(4)
    xy = np.cumsum(rng.normal(1.0, 1.0, (60, 2)), axis=0)
    xy = np.insert(xy, 30, xy[30], axis=0)  # a joint with both vertices
    line = np.column_stack([xy, np.linspace(0, 9, len(xy))])
    length = arc_length(xy)
    shape = shapely.LineString(xy)
    assert length[-1] == pytest.approx(shape.length)
    points = rng.uniform(-10, 70, (2000, 2))
    ours = [project(line, length, x, y) for x, y in points]
    expected = shapely.line_locate_point(shape, shapely.points(points))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    pose = np.empty(3)
    for position in np.append(rng.uniform(-5, length[-1] + 5, 300), length):
        interpolate(line, length, position, pose)
        at = np.clip(position, 1e-5, length[-1])
        exact = shapely.line_interpolate_point(shape, at)
        np.testing.assert_allclose(pose[:2], [exact.x, exact.y], rtol=0, atol=1e-9)
        assert -np.pi < pose[2] <= np.pi


@pytest.mark.parametrize("count", [1, 9, 10, 11, 57, 101, 350, 1001])
def test_order_of_the_spatial_index(count):
    rng = np.random.default_rng(count)
    low = rng.uniform(0, 100, (count, 2))
    bounds = np.column_stack([low, low + rng.uniform(0, 20, (count, 2))])
    tree = shapely.STRtree(shapely.box(*bounds.T), node_capacity=10)
    np.testing.assert_array_equal(listing_order(bounds), tree.query(shapely.box(-1, -1, 200, 200)))


@pytest.mark.parametrize("count", [2, 3, 16, 17, 18, 33, 400])
def test_leaving_out_far_pieces_of_a_line_changes_no_bit(count):
    rng = np.random.default_rng(count)
    heading = np.cumsum(rng.normal(0, 0.3, count))
    xy = ORIGIN + np.cumsum(np.column_stack([np.cos(heading), np.sin(heading)]), axis=0)
    xy[rng.integers(1, count)] = xy[0]  # the line comes back, and a point can be as near twice
    line, length = make_line(xy), arc_length(xy)
    points = np.concatenate([xy, xy[rng.integers(0, count, 300)] + rng.normal(0, 3, (300, 2)), xy[:1] + 900])
    for x, y in points:
        assert project_on_line(line, x, y) == project(xy, length, x, y)
    shape = shapely.LineString(xy)
    distance = shapely.distance(shapely.points(points), shape)
    near = [is_near(line, x, y, 0.5) for x, y in points]
    assert any(near) and not all(near)
    np.testing.assert_array_equal(near, distance <= 0.5)
