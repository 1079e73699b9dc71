import cv2
import numpy as np
import pytest

from beyonddrive.datasets.maps.nuplan_map import MapError
from beyonddrive.synth.camera import Painter, brake_lamps
from beyonddrive.synth.paint.vehicles import vehicle_soup
from beyonddrive.synth.rig import CAMERA_NAMES, rig

SIZE = (480, 270)
CAMERAS = rig(SIZE)
HORIZON = int(CAMERAS["CAM_F0"]["cam_intrinsic"][1, 2])


def project(camera, point):
    """Column and row of an ego-frame point."""
    p = camera["sensor2lidar_rotation"].T @ (np.asarray(point) - camera["sensor2lidar_translation"])
    u, v, w = camera["cam_intrinsic"] @ p
    assert w > 0
    return u / w, v / w


def container(x, y, l=2.0, w=2.0, h=3.0, heading=0.0, token="a"):  # noqa: E741
    return (x, y, l, w, h, heading, "generic_object", token, 0.0)


@pytest.fixture(scope="module")
def paint(street, make_frames):
    def run(*boxes, camera="CAM_F0", size=SIZE, seed=0, **kwargs):
        painter = Painter(street, make_frames(boxes, **kwargs), seed)
        return painter.paint(0, rig(size)[camera], size)

    return run


@pytest.fixture(scope="module")
def empty(paint):
    return paint()


def changed(image, other):
    """Pixels above the horizon, where no shadow falls, that differ visibly."""
    return np.abs(image.astype(int) - other.astype(int)).max(axis=2)[: HORIZON - 1] > 12


@pytest.mark.parametrize("name", ["CAM_F0", "CAM_L0", "CAM_R1", "CAM_B0"])
def test_a_box_appears_where_its_corners_project_to(paint, name):
    camera = CAMERAS[name]
    forward = camera["sensor2lidar_rotation"][:, 2]
    side = camera["sensor2lidar_rotation"][:, 0]
    center = camera["sensor2lidar_translation"] + 12.0 * forward + 1.3 * side
    x, y = center[:2]
    heading = np.arctan2(forward[1], forward[0])
    mask = changed(paint(container(x, y, heading=heading), camera=name), paint(camera=name))
    rows, columns = np.nonzero(mask)
    center = np.array([x, y, 0.0])
    corners = np.array(
        [
            project(camera, center + a * forward + b * side + (0, 0, z))
            for a in (-1.0, 1.0)
            for b in (-1.0, 1.0)
            for z in (0.0, 3.0)
        ]
    )
    assert columns.min() == pytest.approx(corners[:, 0].min(), abs=1.5)
    assert columns.max() + 1 == pytest.approx(corners[:, 0].max(), abs=1.5)
    assert rows.min() == pytest.approx(corners[:, 1].min(), abs=1.5)


def test_a_box_straight_ahead_covers_the_principal_point(paint, empty):
    image = paint(container(15.0, 0.0))
    column, row = project(CAMERAS["CAM_F0"], (14.0, 0.0, 2.0))
    assert changed(image, empty)[int(row), int(column)]
    assert abs(column - 240) < 1e-9


def test_a_near_box_hides_a_far_one_in_either_order(paint):
    near, far = container(10.0, 0.0, token="near"), container(25.0, 0.0, token="far")
    alone = paint(near)
    assert not changed(paint(near, far), alone).any()
    np.testing.assert_array_equal(paint(near, far), paint(far, near))
    assert changed(paint(far), alone).any()


def test_a_long_box_beside_the_camera_is_not_smeared(paint, empty):
    bus = (0.0, 2.6, 12.0, 2.5, 3.2, 0.0, "vehicle", "bus", 0.0)
    mask = changed(paint(bus), empty)
    # Its front end, 6 m ahead of the rear axle, is the last of it on the way to the middle of the image.
    end = project(CAMERAS["CAM_F0"], (6.0, 2.6 - 1.25, 1.6))[0]
    assert mask.any()
    assert np.nonzero(mask)[1].max() <= end + 1.5
    left = changed(paint(bus, camera="CAM_L1"), paint(camera="CAM_L1"))
    assert left.mean() > 0.5


def test_a_box_around_the_camera_does_not_break_the_picture(paint):
    assert paint(container(1.5, 0.0, l=6.0, w=6.0)).shape == (270, 480, 3)


def test_lights_show_their_colour(paint):
    red = paint(x=5.0, lights=[(3, True)]).astype(int)
    green = paint(x=5.0, lights=[(3, False)]).astype(int)
    off = paint(x=5.0).astype(int)

    def count(image, strong, weak):
        return int(((image[..., strong] > 200) & (image[..., weak] < 130)).sum())

    assert count(red, 0, 1) > 15 > 3 > count(green, 0, 1)
    assert count(green, 1, 0) > 15 > 3 > count(red, 1, 0)
    assert count(off, 0, 1) < 3
    assert count(off, 1, 0) < 3


def test_brake_lamps_shine_when_a_vehicle_slows_or_waits(make_frames):
    speeds = {
        "slowing": (8.0, 6.0, 5.0),
        "cruising": (8.0, 8.0, 8.1),
        "waiting": (3.0, 0.1, 0.0),
        "parked": (0, 0, 0),
    }
    frames = [
        make_frames(
            [(20, 0, 4.5, 1.8, 1.5, 0, "vehicle", name, v[i]) for name, v in speeds.items()], count=3
        )[i]
        for i in range(3)
    ]
    assert brake_lamps(frames) == [frozenset(), {"slowing", "waiting"}, {"slowing", "waiting"}]
    lit = vehicle_soup("car", 4.5, 1.8, 1.5, True)
    assert (lit.colors[:, 0] - lit.colors[:, 1]).max() > (
        vehicle_soup("car", 4.5, 1.8, 1.5, False).colors @ [1, -1, 0]
    ).max() + 50


@pytest.mark.parametrize(
    "kind", ["vehicle", "pedestrian", "bicycle", "traffic_cone", "barrier", "czone_sign", "generic_object"]
)
def test_every_kind_of_object_is_seen(paint, empty, kind):
    sizes = {"vehicle": (4.6, 1.9, 1.6), "bicycle": (1.8, 0.6, 1.7), "barrier": (2.0, 0.5, 1.0)}
    image = paint((12.0, 0.0, *sizes.get(kind, (0.6, 0.6, 1.2)), 0.3, kind, "one", 1.0))
    bottom = int(project(CAMERAS["CAM_F0"], (12.0, 0.0, 0.0))[1])
    window = np.s_[HORIZON - 15 : bottom + 1, 215:265]
    assert (np.abs(image[window].astype(int) - empty[window].astype(int)).max(axis=2) > 25).sum() > 25


def test_trucks_and_buses_fill_their_boxes():
    for token in map(str, range(12)):
        for length, width, height in ((9.5, 2.5, 3.2), (7.0, 2.3, 2.8), (4.4, 1.8, 1.45), (5.2, 2.0, 2.1)):
            points = vehicle_soup(token, length, width, height, False).points
            np.testing.assert_allclose(points[:, 0].max() - points[:, 0].min(), length, atol=0.05)
            np.testing.assert_allclose(points[:, 1].max() - points[:, 1].min(), width, atol=0.05)
            np.testing.assert_allclose(points[:, 2].max(), height, atol=0.02)


def test_a_track_keeps_its_colour_and_tracks_differ():
    first = vehicle_soup("track 1", 4.5, 1.8, 1.5, False)
    np.testing.assert_array_equal(first.colors, vehicle_soup("track 1", 4.5, 1.8, 1.5, False).colors)
    paints = {tuple(vehicle_soup(f"track {i}", 4.5, 1.8, 1.5, False).colors[0]) for i in range(40)}
    assert len(paints) > 8


def test_same_inputs_give_the_same_picture(paint, street, make_frames):
    boxes = (container(15.0, 1.0), (10.0, -3.0, 4.5, 1.8, 1.5, 0.2, "vehicle", "car", 3.0))
    np.testing.assert_array_equal(paint(*boxes, seed=4), paint(*boxes, seed=4))
    assert not np.array_equal(paint(*boxes, seed=4), paint(*boxes, seed=5))


def test_frames_can_be_painted_in_any_order(street, make_frames):
    frames = make_frames([container(15.0, 1.0)], count=2)
    frames[1]["ego2global_translation"] = frames[1]["ego2global_translation"] + (3.0, 0.0, 0.0)
    forward, backward = Painter(street, frames), Painter(street, frames)
    first = [forward.paint(i, CAMERAS["CAM_F0"], SIZE) for i in (0, 1)]
    second = [backward.paint(i, CAMERAS["CAM_F0"], SIZE) for i in (1, 0)][::-1]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_sizes_show_the_same_scene(paint):
    boxes = (container(15.0, 1.0), (10.0, -3.0, 4.5, 1.8, 1.5, 0.2, "vehicle", "car", 3.0))
    small, large = paint(*boxes), paint(*boxes, size=(1920, 1080))
    assert large.shape == (1080, 1920, 3)
    shrunk = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(float) - small).mean() < 3.0


def test_the_road_is_marked(paint, empty):
    # The double line is left of the lane's middle, the stop line 29.5 m ahead of x = 0.
    column, row = (int(v) for v in project(CAMERAS["CAM_F0"], (8.0, 1.75 - 0.14, 0.0)))
    yellow = empty[row - 1 : row + 2, column - 2 : column + 3].reshape(-1, 3).astype(int)
    assert (yellow[:, 0] - yellow[:, 2]).max() > 60
    near = paint(x=18.0)
    column, row = (int(v) for v in project(CAMERAS["CAM_F0"], (29.7 - 18.0, 0.5, 0.0)))
    # In the sun or in the shadow of a house, the bar is far brighter than the asphalt on either side.
    bar = near[row - 3 : row + 4, column].min(axis=1).astype(float)
    assert bar.max() > 1.7 * max(bar[0], bar[-1])


@pytest.mark.parametrize("layers", [("lanes_polygons",), ("lanes_polygons", "baseline_paths")])
def test_every_layer_but_the_lanes_may_be_missing(make_map, make_frames, layers):
    painter = Painter(make_map(*layers), make_frames([container(15, 0)], lights=[(3, True)]))
    for name in CAMERA_NAMES:
        assert painter.paint(0, CAMERAS[name], SIZE).std() > 10


def test_far_from_every_road_there_is_sky_and_grass(street, make_frames):
    image = Painter(street, make_frames(x=3000.0)).paint(0, CAMERAS["CAM_F0"], SIZE)
    grass = image[-40:].reshape(-1, 3).mean(axis=0)
    assert grass[1] > grass[0] > grass[2]
    assert image[:40].mean() > 120


def test_a_map_without_lanes_is_refused(make_map, make_frames):
    with pytest.raises(MapError, match="lanes_polygons"):
        Painter(make_map("intersections"), make_frames())


def test_a_tilted_camera_is_refused(street, make_frames):
    camera = rig(SIZE)["CAM_F0"]
    camera["sensor2lidar_rotation"] = camera["sensor2lidar_rotation"] @ np.array(
        [[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]]
    )
    with pytest.raises(ValueError, match="level"):
        Painter(street, make_frames()).paint(0, camera, SIZE)


def test_no_frames_are_refused(street):
    with pytest.raises(ValueError, match="empty"):
        Painter(street, [])


def test_houses_stand_off_the_road_and_are_obstacles(street, make_frames):
    painter = Painter(street, make_frames(x=-40.0))
    obstacles = painter.obstacles(0)
    houses = obstacles[obstacles[:, 3] > 5.0]
    assert len(houses) > 5
    # The road is 1.75 m right to 5.25 m left of the ego; nothing may stand on it.
    for x, y, _, length, width, _, heading in houses:
        reach = abs(np.sin(heading)) * length / 2 + abs(np.cos(heading)) * width / 2
        if -60.0 < x < 70.0:
            assert y - reach > 5.25 or y + reach < -1.75
