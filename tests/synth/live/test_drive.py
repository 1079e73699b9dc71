"""An episode: kinematics, traffic that reacts, events, records, references."""

from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.datasets.navsim.scene import HISTORY, Scene
from beyonddrive.evaluation.reference_plan import driven_reference_plan, reference_plan
from beyonddrive.structures.frame import Command, DrivenPlan
from beyonddrive.synth.live.drive import camera_points, drive, staged, traffic_plan
from beyonddrive.synth.live.place import rear_of
from beyonddrive.synth.live.reference import Nobody, PdmClosedDriver, drive_by_sumo


class Stand:
    """Brakes and stands."""

    def reset(self, session, seed=None):
        pass

    def plan(self, frame):
        poses = np.zeros((8, 3))
        poses[:, 0] = 1e-3 * np.arange(1, 9)
        return DrivenPlan(poses)

    def close(self, session):
        return None


def test_a_path_is_driven_to_its_end_whatever_moves(live_folder, scenarios, tiny, follow, answer):
    outcome = drive(scenarios["easy_00"], live_folder / "towns", follow(), answer, tiny)
    assert outcome.ends == ("Complete",) and not outcome.collided
    assert outcome.score.means["rc"] == 1.0 and outcome.score.means["dac"] > 0.95
    assert 0.9 * 0.9 * scenarios["easy_00"].length < 1000 * outcome.kilometres < scenarios["easy_00"].length
    times = [frame.time for frame in outcome.frames]
    np.testing.assert_allclose(times, 0.25 * np.arange(1, len(times) + 1))
    steps = np.hypot(*np.diff([frame.ego_box[:2] for frame in outcome.frames], axis=0).T)
    first = np.hypot(*outcome.frames[0].ego_box[:2])  # (it starts at 0, 0)
    assert first > 0.5 and 1000 * outcome.kilometres == pytest.approx(first + steps.sum())
    # The plan that is recorded leads along the way that is driven.
    frame, later = outcome.frames[4], outcome.frames[6]
    assert np.hypot(*(frame.traj[0, :2] - later.ego_box[:2])) < 1.8


def test_the_driver_is_told_the_truth(live_folder, scenarios, tiny, follow, answer):
    driver = follow()
    outcome = drive(scenarios["hard_00"], live_folder / "towns", driver, answer, replace(tiny, max_steps=24))
    frames = driver.frames
    poses = np.array([frame.pose for frame in frames])
    driven = np.hypot(*np.diff(poses[:, :2], axis=0).T) / 0.25
    # The speed after a step is that of the step.
    np.testing.assert_allclose(driven, [frame.velocity[0] for frame in frames[1:]], atol=1e-6)
    gained = np.diff([frame.velocity[0] for frame in frames]) / 0.25
    np.testing.assert_allclose(gained, [frame.acceleration[0] for frame in frames[1:]], atol=1e-6)
    assert frames[0].cameras["CAM_F0"].image.shape == (54, 96, 3)
    assert {frame.command for frame in frames} <= {Command.LEFT, Command.STRAIGHT, Command.RIGHT}
    assert not np.array_equal(frames[0].cameras["CAM_F0"].image, frames[-1].cameras["CAM_F0"].image)
    assert len(outcome.frames) == 24 and outcome.ends == ("24 steps",)


def test_the_same_seed_gives_the_same_episode_and_another_seed_another(
    live_folder, scenarios, tiny, follow, answer
):
    settings = replace(tiny, max_steps=10)
    runs = [
        drive(
            scenarios["medium_00"], live_folder / "towns", follow(3.0), answer, replace(settings, seed=seed)
        )
        for seed in (0, 0, 1)
    ]
    records = [[frame.to_dict() for frame in run.frames] for run in runs]
    assert records[0] == records[1] != records[2]


def test_where_no_traffic_is_wanted_nobody_is_about_but_the_scenarios_own(live_folder, scenarios, tiny):
    for mode, own in (("easy_00", set()), ("easy_01", {"event-0"})):
        plan = traffic_plan(scenarios[mode])
        assert plan.duration == scenarios[mode].start_time + 110.0
        with staged(scenarios[mode], live_folder / "towns", tiny) as stage:
            assert set(stage.traffic.everybody.names) == own
            while stage.world.time < plan.duration:
                stage.world.step()
                assert not stage.world.everybody().names
    assert traffic_plan(scenarios["medium_00"]).stopping_share > 0.0


@pytest.mark.parametrize("anchor", ["post_step", "pre_step"])
def test_the_first_step_is_part_of_the_distance(live_folder, scenarios, tiny, follow, answer, anchor):
    settings = replace(tiny, max_steps=1, hugsim=tiny.hugsim.changed(plan_anchor=anchor))
    outcome = drive(scenarios["easy_00"], live_folder / "towns", follow(), answer, settings)
    assert len(outcome.frames) == 1
    assert 1000 * outcome.kilometres == pytest.approx(0.25 * scenarios["easy_00"].hugsim.speed, rel=0.2)


def test_traffic_brakes_for_an_ego_that_stands_in_its_way(live_folder, scenarios, tiny, answer):
    """With an ego that SUMO did not see, those behind it would drive through it."""
    scenario = replace(scenarios["medium_00"], vehicles_per_km=25.0, pedestrians_per_km=0.0)
    for seed in range(2):
        settings = replace(tiny, seed=seed, max_steps=70)
        with staged(scenario, live_folder / "towns", settings) as stage:
            came_near = 0
            for _ in range(70):
                stage.episode.step(answer(Stand().plan(None).poses))
                gap = np.hypot(*(stage.traffic.everybody.pose[:, :2] - stage.traffic._ego[:2]).T)
                came_near += bool((gap < 9.0).any())
            assert not any(frame.collision for frame in stage.episode.frames)
        if came_near > 20:
            return
    pytest.fail("nobody came near: choose another scenario")


def test_who_stands_for_minutes_stays_in_the_run(live_folder, scenarios, tiny, answer):
    """SUMO takes away who has not moved for a minute: an ego that waits, and who waits for it."""
    scenario = replace(scenarios["hard_01"], vehicles_per_km=0.0, pedestrians_per_km=0.0)
    with staged(scenario, live_folder / "towns", tiny) as stage:
        world, rear = stage.world, rear_of(stage.place.path[0])
        for _ in range(500):
            world.hold_ego(rear, 0.0)
            for name, _, pose, size, _ in stage.traffic._guests():
                world.hold_guest(name, pose, size[0], 0.0)
            world.step()
        assert world.ego_is_there() and "event-0" not in world.everybody().names
        np.testing.assert_allclose(world.ego_state()[0][:2], rear[:2], atol=1e-6)
        assert stage.episode.step(answer(Stand().plan(None).poses))


@pytest.mark.parametrize(
    ("mode", "kind"), [("hard_00", "late_turn"), ("hard_01", "jaywalk"), ("hard_02", "cut_in")]
)
def test_what_is_to_happen_waits_for_the_ego(live_folder, scenarios, tiny, mode, kind):
    scenario = replace(scenarios[mode], vehicles_per_km=0.0, pedestrians_per_km=0.0)
    (event,) = scenario.events
    assert event.kind == kind
    with staged(scenario, live_folder / "towns", tiny) as stage:
        place, traffic = stage.place, stage.traffic

        def actor_at(progress):
            x, y, yaw = place.to_scene(place.path[int(progress)])
            traffic.move([-y, x, -yaw, 5.0], 0.0)
            row = traffic.everybody.names.index("event-0")
            return traffic.everybody.pose[row, :2].copy()

        waiting = [actor_at(event.trigger - 3.0) for _ in range(4)]
        assert np.ptp(waiting, axis=0).max() == 0.0
        went = [actor_at(event.trigger + 1.0) for _ in range(24)]
        steps = np.hypot(*np.diff(went, axis=0).T) / 0.25
        assert steps.max() == pytest.approx(event.speed, rel=0.05)
        # It gets into the way of the ego.
        assert min(np.hypot(*(place.path[:, :2] - spot).T).min() for spot in went) < 1.0


def test_sumo_drives_the_ego_along_its_path(live_folder, scenarios, tiny, answer):
    outcome = drive_by_sumo(scenarios["easy_00"], live_folder / "towns", Nobody(), answer, tiny)
    assert outcome.ends == ("Complete",) and outcome.score.means["hdscore"] > 0.8
    frame, later = outcome.frames[3], outcome.frames[5]
    np.testing.assert_allclose(frame.traj[0], later.ego_box[[0, 1, 6]], atol=1e-9)


def test_pdm_closed_drives_and_stops_for_whoever_is_in_the_way(live_folder, scenarios, tiny, answer):
    outcome = drive(
        scenarios["easy_01"], live_folder / "towns", PdmClosedDriver(), answer, replace(tiny, max_steps=40)
    )
    assert not outcome.collided and outcome.kilometres > 0.02
    assert outcome.report.counts == {"inference": 40}


def test_pdm_closed_plans_from_where_the_ego_is_and_not_from_its_line(live_folder, scenarios, tiny):
    with staged(scenarios["easy_00"], live_folder / "towns", tiny) as stage:
        stage.look(stage.episode.observe())
        seen = stage.eyes.frame
        heading = 2.0 * np.arctan2(*seen["ego2global_rotation"][[3, 0]])
        seen["ego2global_translation"] = seen["ego2global_translation"] + np.array(
            [np.sin(heading), -np.cos(heading), 0.0]
        )
        scene = Scene(seen["log_name"], "closed-loop", [seen] * HISTORY)
        line, driven = (
            plan(scene, stage.town.nuplan_map) for plan in (reference_plan, driven_reference_plan)
        )
    # (the line is a metre beside the ego, and no car gets there at once)
    assert abs(line[0, 1]) > 0.7 and abs(driven[0, 1]) < 0.3
    assert slip_of(line) > 0.1 and slip_of(driven) < 0.05


def slip_of(plan):
    """Largest angle between where a step of a plan goes and where its ego looks."""
    path = np.vstack([np.zeros(3), plan])
    steps = np.diff(path, axis=0)
    return np.abs(np.arctan2(steps[:, 1], steps[:, 0]) - (path[1:, 2] + path[:-1, 2]) / 2).max()


def test_the_camera_swings_out_before_the_rear_axle():
    poses = np.array([[2.0, 0.0, 0.0], [4.0, 0.5, np.pi / 2]])
    np.testing.assert_allclose(camera_points(poses), [[0.0, 2.0], [-2.16, 2.34]], atol=1e-9)
