"""Bad plans, records and scenarios are named; nothing moves, and nothing counts as a score."""

import math

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim import points
from beyonddrive.evaluation.closed_loop.hugsim.episode import PLANNER_FAILURE, Episode
from beyonddrive.evaluation.closed_loop.hugsim.hd_score import score_run
from beyonddrive.evaluation.closed_loop.hugsim.plan_reference import MOST_POINTS, command_of
from beyonddrive.evaluation.closed_loop.hugsim.points import PointGrid
from beyonddrive.evaluation.closed_loop.hugsim.record import read_frames
from beyonddrive.evaluation.closed_loop.hugsim.route import Route
from beyonddrive.evaluation.closed_loop.hugsim.scenario import read_scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS, HugsimError, preset
from beyonddrive.evaluation.closed_loop.hugsim.traffic import Traffic

AHEAD = np.stack([np.zeros(8), 2.0 * np.arange(1, 9)], axis=1)


def scenario(**changes):
    return {
        "scene_name": "town",
        "mode": "easy_00",
        "plan_list": [],
        "load_HD_map": False,
        "start_euler": [0, 0, 0],
        "start_ab": [0, 0],
        "start_velo": 4,
        "start_steer": 0,
        "iteration": 30000,
        "quiet": True,
    } | changes


@pytest.fixture
def episode():
    poses = np.tile(np.eye(4), (60, 1, 1))
    poses[:, 2, 3] = np.arange(60)
    route, read = Route(poses, np.full(60, 2), 1.5), read_scenario(scenario())
    return Episode(read, route, Traffic(read, route, {}), np.zeros((0, 3), np.float32))


@pytest.mark.parametrize(
    "plan, message",
    [
        (AHEAD[:1], "N at least 2"),
        (np.zeros((0, 2)), "N at least 2"),
        (np.zeros((8, 3)), "right and ahead"),
        (np.full((8, 2), math.nan), "NaN or infinity"),
        ([["a", "b"]] * 3, "no numbers"),
        ([[0, 10**400]] * 3, "no numbers"),
        (np.ones((201, 2)), "has 201 points, 200 are allowed"),
        (np.ones((90_000, 2)), "has 90000 points, 200 are allowed"),
    ],
)
def test_a_plan_that_cannot_be_driven_moves_nothing(episode, plan, message):
    before = episode.observe()
    with pytest.raises(HugsimError, match=message):
        episode.step(plan)
    with pytest.raises(HugsimError, match=message):
        episode.step(AHEAD, plan)
    after = episode.observe()
    assert after.time == before.time and not episode.frames
    assert np.array_equal(after.position, before.position)


def test_a_plan_of_as_many_points_as_are_allowed_is_driven(episode):
    assert episode.step(np.column_stack([np.zeros(200), np.arange(1, 201)]))


def test_a_planner_that_fails_ends_the_episode_and_keeps_its_record(episode):
    plans = [AHEAD, AHEAD, None, AHEAD]
    frames = episode.run(lambda seen: plans.pop(0))
    assert episode.ends == (PLANNER_FAILURE,)
    assert [frame.time for frame in frames] == [0.25, 0.5]


def test_the_first_release_cannot_turn_a_point_at_the_ego():
    with pytest.raises(HugsimError, match="move it ahead"):
        command_of(np.zeros((8, 2)), 0.0, 0.0, "first_release")
    with pytest.raises(HugsimError, match="quarter turn"):
        command_of(AHEAD, 1.0, 2.0, "main")


def test_a_straight_plan_drives_straight_where_the_official_code_lets_it():
    for controller in ("pr57", "resampled"):
        for kind in (np.float32, np.float64):
            command = command_of(AHEAD.astype(kind), 4.0, 0.0, controller).inputs[0]
            assert abs(command[1]) < 1e-6
    # main turns headings of float32 round by half a turn: that is how published results were made.
    assert abs(command_of(AHEAD.astype(np.float32), 4.0, 0.0, "main").inputs[0, 1]) > 1e-3


def test_switches_and_presets_are_checked():
    with pytest.raises(HugsimError, match="scorer_bx"):
        PRESETS["main"].changed(scorer_bx="down")
    with pytest.raises(HugsimError, match="up"):
        PRESETS["main"].changed(scorer_box="sideways")
    with pytest.raises(HugsimError, match="paper_2024"):
        preset("newest")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"start_velo": None}, "start_velo"),
        ({"start_steer": -1.6}, "start_steer: wheels turn by less than a quarter turn"),
        ({"mode": "simple_00"}, r"scenario: mode: .* such as easy_00, got 'simple_00'"),
        ({"start_ab": [0]}, "start_ab"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "Teleport", {}]]}, "Teleport"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "AttackPlanner", {}]]}, "ATTACK_FREQ"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "ConstantPlanner", {"vmax": 1}]]}, "vmax"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "IDM", {"v0": 9}]]}, "IDM takes no .'v0'."),
        ({"plan_list": [[0, 1]]}, r"plan_list\[0\]"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "ConstantPlanner", "fast"]]}, "arguments: expected keys"),
        (
            {"plan_list": [[0, 1, 0, 0, 0, "car", "AttackPlanner", {"ATTACK_FREQ": 0}]]},
            "FREQ: must be 1 or more",
        ),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "AttackPlanner", {"ATTACK_FREQ": "often"}]]}, "finite number"),
        ({"plan_list": [[0, 1, 0, 0, 0, "car", "IDM", {"headway": None}]]}, "headway: expected 1 finite"),
    ],
)
def test_scenarios_name_what_is_wrong(changes, message):
    with pytest.raises(HugsimError, match=message):
        read_scenario(scenario(**changes))


def test_integers_and_known_oddities_of_published_scenarios_are_read():
    read = read_scenario(scenario(plan_list=[[0, 1, 0, 0, 2, "car", "ConstantPlanner", {"max_t": 9}]]))
    assert read.agents[0].start == (0.0, 1.0, 0.0, 2.0) and read.difficulty == "easy"
    with pytest.raises(HugsimError, match="no size of car 'car'"):
        Traffic(read, None, {})


def test_an_agent_on_a_map_does_not_stand_still_silently():
    agents = [[0, 1, 0, 0, 2, "car", "IDM", {"desired_speed": 9.0}]]
    sizes, lane = {"car": (2.0, 4.0, 1.5)}, np.array([[0.0, b, 0.0] for b in range(50)])
    poses = np.tile(np.eye(4), (60, 1, 1))
    poses[:, 2, 3] = np.arange(60)
    route = Route(poses, np.full(60, 2), 1.5)
    read = read_scenario(scenario(plan_list=agents, load_HD_map=True))
    with pytest.raises(HugsimError, match=r"town_easy_00: load_HD_map is true.*path_of"):
        Traffic(read, route, sizes)
    moved = {}
    free = read_scenario(scenario(plan_list=agents))
    for name, traffic in {
        "lanes": Traffic(read, route, sizes, path_of=lambda state: lane),
        "no map": Traffic(free, route, sizes),
    }.items():
        traffic.move(np.array([9.0, -9.0, 0.0, 0.0]), 0.25)
        moved[name] = traffic.states()[0, 1]
    assert moved == {"lanes": pytest.approx(1.5), "no map": 1.0}


def test_a_record_without_a_scorable_frame_is_unscored_and_counts_as_zero():
    nothing = PointGrid(np.zeros((0, 3)))
    result = score_run([], nothing, nothing)
    assert result.unscored == "the record has no frames"
    assert result.to_dict()["hdscore"] == 0.0 and result.to_dict()["unscored"]


@pytest.mark.parametrize(
    "record, message",
    [
        ([], "no record"),
        ({"frames": [3]}, "frame 0: is a int"),
        ({"frames": [{}]}, "frame 0: lacks 'planned_traj'"),
    ],
)
def test_records_name_what_is_wrong(record, message):
    with pytest.raises(HugsimError, match=message):
        read_frames(record, "data.pkl")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("rc", "abc", "frame 1: rc: must be a finite number, got 'abc'"),
        ("rc", math.nan, "frame 1: rc: must be a finite number"),
        ("time_stamp", math.nan, "frame 1: time_stamp: must be a finite number"),
        ("obj_names", ["car"], r"frame 1: obj_boxes: must be finite numbers \(1, 7\), got \(0,\)"),
        ("ego_box", [], r"frame 1: ego_box: must be finite numbers \(7,\)"),
        ("timestep", 0, "frame 1: planned_traj.timestep: must be a positive number, got 0"),
        ("timestep", math.inf, "frame 1: planned_traj.timestep: must be a positive number"),
    ],
)
def test_values_that_would_spoil_a_score_are_named(episode, key, value, message):
    frames = [frame.to_dict() for frame in episode.run(lambda seen: AHEAD)]
    (frames[1]["planned_traj"] if key == "timestep" else frames[1])[key] = value
    with pytest.raises(HugsimError, match=message):
        read_frames({"frames": frames}, "data.pkl")


def test_a_plan_of_a_record_has_no_more_entries_than_one_that_is_driven(episode):
    """The scorer looks at everybody at each of them."""
    frames = [frame.to_dict() for frame in episode.run(lambda seen: AHEAD)]
    frames[1]["planned_traj"]["traj"] = [[0.0, 0.0, 0.0]] * MOST_POINTS
    assert len(read_frames({"frames": frames}, "data.pkl")[1].traj) == MOST_POINTS
    frames[1]["planned_traj"]["traj"] *= 2
    with pytest.raises(HugsimError, match=r"frame 1: planned_traj\.traj: has 400 entries, 200 are allowed"):
        read_frames({"frames": frames}, "data.pkl")


def test_points_far_away_cost_no_memory_and_change_no_count():
    cloud = np.random.default_rng(0).uniform(-20, 20, (5000, 3)).astype(np.float32)
    far = np.array([[1e5, 1e5, 0], [-3e38, 3e38, 0], [3e9, -3e9, 0]], np.float32)
    boxes = np.array([[x, y, -5.0, 3.0, 6.0, 9.0, 0.3 * x] for x in (-19, 0, 8.5) for y in (-3, 0, 17)])
    near, wide = PointGrid(cloud), PointGrid(np.vstack([cloud, far]))
    x, y, bottom, width, length, height, yaw = boxes.T[..., None]
    dx, dy, dz = (cloud[:, i] - start for i, start in enumerate((x, y, bottom)))
    along, across = np.cos(yaw) * dx + np.sin(yaw) * dy, np.cos(yaw) * dy - np.sin(yaw) * dx
    inside = (abs(along) < length / 2) & (abs(across) < width / 2) & (dz > 0) & (dz < height)
    assert np.array_equal(near.count_in_boxes(boxes), inside.sum(axis=1)) and inside.any(axis=1).all()
    assert np.array_equal(wide.count_in_boxes(boxes), inside.sum(axis=1))
    poses = boxes[:, [0, 1, 6]]
    assert np.array_equal(wide.filled_cells(poses, 1.0, 2.0), near.filled_cells(poses, 1.0, 2.0))
    assert wide.count_in_boxes([[1e5, 1e5, -1, 2, 2, 2, 0]]).tolist() == [1]


def test_points_are_sorted_alike_by_counting_and_by_comparing(monkeypatch):
    cloud = np.random.default_rng(1).normal(-7.0, 12.0, (3000, 3)).astype(np.float32)
    counted = PointGrid(cloud)
    monkeypatch.setattr(points, "_COUNTED", 0)
    compared = PointGrid(cloud)
    for name in ("points", "squares", "starts", "rows"):
        np.testing.assert_array_equal(getattr(counted, name), getattr(compared, name))
    assert len(counted.squares) > 100


def test_what_is_written_is_read_back(episode):
    frames = episode.run(lambda seen: AHEAD)
    again = read_frames([{"type": "closeloop", "frames": [frame.to_dict() for frame in frames]}])
    nothing = PointGrid(np.zeros((0, 3)))
    ours, theirs = (score_run(f, nothing, nothing).to_dict() for f in (frames, again))
    assert ours == theirs and ours["rc"] == 1.0
    assert "off the road" in score_run(frames, nothing, nothing).frames[0].losses[0]
