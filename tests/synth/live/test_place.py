"""The path of the ego, HUGSIM's frames around it, and the points that its scorer wants."""

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid, to_record_frame
from beyonddrive.structures.se2 import to_local
from beyonddrive.synth.live.place import COMMAND_POSES, camera_from, place_of, rear_of
from beyonddrive.synth.live.points import ground_points, solid_points
from beyonddrive.synth.live.town import LiveError


@pytest.fixture(params=["easy_00", "hard_00", "extreme_00"])
def place(request, live_town, scenarios):
    scenario = scenarios[request.param]
    return place_of(live_town.network, scenario.lanes, scenario.station, scenario.length)


def test_the_ego_of_hugsim_is_where_the_path_is(place):
    for row in (0, len(place.path) // 2, len(place.path) - 1):
        x, y, yaw = place.to_scene(place.path[row])
        np.testing.assert_allclose(place.camera_of([-y, x, -yaw]), place.path[row], atol=1e-9)
        np.testing.assert_allclose(camera_from(rear_of(place.path[row])), place.path[row], atol=1e-12)
    assert place.camera_of([1.0, 0.0, 0.0])[2] == pytest.approx(place.origin[2])
    right = to_local(place.camera_of([1.0, 0.0, 0.0]), place.origin)
    np.testing.assert_allclose(right, [0.0, -1.0, 0.0], atol=1e-9)


def test_commands_follow_the_turns_of_the_path(place):
    route = place.route
    for row in range(0, len(place.path) - COMMAND_POSES, 7):
        left = to_local(place.path[row + COMMAND_POSES], place.path[row])[1]
        a, b = -place.to_scene(place.path[row])[1], place.to_scene(place.path[row])[0]
        command = route.command([a, 0.0, b])
        if abs(abs(left) - 2.5) > 0.3:
            assert command == (1 if left > 2.5 else 0 if left < -2.5 else 2)
    assert route.completion([0.0, 0.0])[0] < 0.01
    x, y, _ = place.to_scene(place.path[-1])
    assert route.completion([-y, x])[0] == pytest.approx(1 / 0.9, abs=0.01)


def test_lanes_that_lead_nowhere_are_refused(live_town, scenarios):
    lanes = scenarios["easy_00"].lanes
    with pytest.raises(LiveError, match="no lane 'nowhere_0'"):
        place_of(live_town.network, ["nowhere_0"], 0.0, 10.0)
    with pytest.raises(LiveError, match="does not lead on to"):
        place_of(live_town.network, [lanes[0], lanes[0]], 0.0, 10.0)
    with pytest.raises(LiveError, match="do not fit on lanes"):
        place_of(live_town.network, lanes[:1], 5.0, 1e4)


def test_the_road_carries_the_ego_all_along_the_path(place, live_town):
    grid = PointGrid(to_record_frame(ground_points(live_town, place)))
    footprints = place.to_scene(place.path)
    assert (grid.filled_cells(footprints, 1.6, 3.0) == 4).mean() > 0.97
    beside = np.column_stack([footprints[:, :2] + [0.0, 300.0], footprints[:, 2]])
    assert not grid.filled_cells(beside, 1.6, 3.0).any()


def test_a_wall_and_a_post_count_as_collisions(place):
    x, y, yaw = place.path[20]
    for size, height in (((8.0, 6.0), 7.0), ((0.25, 0.25), 3.0)):
        box = np.array([[x, y, height / 2, *size, height, yaw + 0.3]])
        grid = PointGrid(to_record_frame(solid_points(place, box)))
        local = place.to_scene([x - 3.6 * np.cos(yaw) if size[0] > 1 else x, y, yaw])
        for bottom in (0.0, -1.5):  # (above and below the camera)
            hit = grid.count_in_boxes([[*local[:2], bottom, 1.6, 3.0, 1.5, local[2]]])
            if size[0] < 1:
                assert hit[0] > 100
        away = grid.count_in_boxes([[*(local[:2] + 30.0), -1.5, 1.6, 3.0, 1.5, 0.0]])
        assert away[0] == 0
    far = np.array([[x + 400.0, y, 1.0, 1.0, 1.0, 2.0, 0.0]])
    assert len(solid_points(place, far)) == 0
