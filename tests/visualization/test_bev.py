"""The bird's-eye view: size, determinism, and things where they belong."""

from dataclasses import replace

import numpy as np
import pytest

from beyonddrive.datasets.maps.nuplan_map import MapLayer
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.se2 import to_global
from beyonddrive.visualization import palette
from beyonddrive.visualization.bev import draw_bev
from beyonddrive.visualization.failures import Verdict
from beyonddrive.visualization.layers import PlanLayer, View, expert_layer
from beyonddrive.visualization.motion import agent_tracks

VIEW = View(500, 400, ahead=40.0, behind=20.0)


def pixel(view, x, y):
    """Column and row of a point of the ego frame."""
    column, row = view.to_pixels([x, y])
    return int(column), int(row)


def color_at(picture, view, x, y):
    column, row = pixel(view, x, y)
    return tuple(int(value) for value in picture[row, column])


def share_of(picture, color, tolerance=12):
    return float((np.abs(picture.astype(int) - color).max(axis=-1) <= tolerance).mean())


def draw(root, scene, layers=(), view=VIEW, **options):
    return draw_bev(scene, root.map(scene.map_location), layers, view, **options)


def test_size_is_that_of_the_view_and_bytes_repeat(golden_root, free_scene):
    first = draw(golden_root, free_scene, [expert_layer(free_scene)])
    assert first.shape == (400, 500, 3) and first.dtype == np.uint8
    assert np.array_equal(first, draw(golden_root, free_scene, [expert_layer(free_scene)]))


def test_agents_ego_and_road_are_where_they_should_be(golden_root, free_scene):
    picture = draw(golden_root, free_scene)
    objects = free_scene.objects(HISTORY - 1)
    probed = 0
    for kind, box in zip(objects.types, objects.boxes, strict=True):
        column, row = pixel(VIEW, box[0], box[1])
        if kind == "vehicle" and 5 < column < 495 and 5 < row < 330:  # not below legend or scale bar
            assert color_at(picture, VIEW, box[0], box[1]) == palette.AGENTS["vehicle"]
            probed += 1
    assert probed >= 3
    assert color_at(picture, VIEW, 0.8, 0.0) == palette.EGO
    assert color_at(picture, VIEW, 0.0, 22.0) == palette.GROUND
    assert color_at(picture, VIEW, -15.0, 10.0) == palette.ROAD  # an oncoming lane
    assert color_at(picture, VIEW, 30.0, -15.0) == palette.CAR_PARK


def test_the_route_is_highlighted_or_the_given_centreline(golden_root, free_scene):
    route = draw(golden_root, free_scene)
    assert share_of(route, palette.ROUTE, 2) > 0.05
    assert share_of(route, palette.CENTERLINE) > 0.002
    away = to_global(np.array([[-15.0, 20.0], [35.0, 20.0]]), free_scene.ego_pose)
    moved = draw(golden_root, free_scene, centerline=away)
    left, right = pixel(VIEW, 0.0, 20.5)[0], pixel(VIEW, 0.0, 19.5)[0]
    assert share_of(moved[:, left : right + 1], palette.CENTERLINE) > 0.05
    assert share_of(route[:, left : right + 1], palette.CENTERLINE) == 0.0


def test_red_lights_are_red(golden_root, red_scene, free_scene):
    assert any(red for _, red in red_scene.traffic_lights)
    assert share_of(draw(golden_root, red_scene), palette.RED_LIGHT) > 0.001
    assert share_of(draw(golden_root, free_scene), palette.RED_LIGHT) == 0.0


def test_expert_and_plan_are_drawn_in_their_colours(golden_root, free_scene, straight_plan):
    sideways = straight_plan.copy()
    sideways[0, :, 1] = 1.6 * np.arange(1, 9)
    layers = [expert_layer(free_scene), PlanLayer("planner", sideways, "plan")]
    picture = draw(golden_root, free_scene, layers, legend=False)
    assert color_at(picture, VIEW, *sideways[0, 5, :2]) == palette.PREDICTION
    assert color_at(picture, VIEW, *free_scene.expert_plan[4, :2]) == palette.EXPERT


def test_proposals_are_coloured_by_what_they_fail(golden_root, free_scene, straight_plan, make_verdict):
    verdicts = [make_verdict(DAC=0.0), make_verdict(NC=0.0, TTC=0.0), make_verdict(), make_verdict(C=0.0)]
    fan = np.repeat(straight_plan, 4, axis=0)
    fan[:, :, 1] += np.linspace(-9.0, 9.0, 4)[:, None] * np.arange(1, 9) / 8
    layer = PlanLayer("proposals", fan, "proposals", verdicts=verdicts)
    picture = draw(golden_root, free_scene, [layer], legend=False)
    for plan, color in zip(
        fan, [palette.FAILURES["DAC"], palette.FAILURES["NC"], palette.PASS], strict=False
    ):
        column, row = pixel(VIEW, *plan[6, :2])
        around = picture[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3).astype(int)
        assert np.abs(around - color).max(axis=-1).min() < 60
    labels = [label for label, _, _ in layer.legend()]
    assert labels == ["collision (1)", "off-road (1)", "comfort (1)", "passes (1)"]
    assert next(color for _, color, _ in layer.painted()) == palette.PASS  # the gravest lies on top
    assert [color for _, color, _ in layer.painted()][-1] == palette.FAILURES["NC"]


def test_the_moment_of_a_failure_is_marked_where_the_ego_was(
    golden_root, free_scene, straight_plan, make_verdict
):
    poses = np.tile([20.0, 20.0, 0.0], (41, 1))
    verdict = make_verdict(DAC=0.0, moments={"DAC": 2.0}, poses=to_global(poses, free_scene.ego_pose))
    layers = [PlanLayer("planner", straight_plan, "plan", verdicts=[verdict])]
    marked = draw(golden_root, free_scene, layers)
    plain = draw(golden_root, free_scene, [PlanLayer("planner", straight_plan, "plan")])
    changed = np.argwhere((marked != plain).any(axis=-1))
    # The ego box reaches from 1.1 m behind to 4 m before the rear axle and 1.15 m to each side.
    left, top = pixel(VIEW, 24.1, 21.2)
    right, bottom = pixel(VIEW, 18.8, 18.8)
    # The cross over it is a bit wider than the box.
    assert (changed >= (top - 3, left - 8)).all() and (changed <= (bottom + 3, right + 8)).all()
    assert color_at(marked, VIEW, 21.461, 20.0) == palette.FAILURES["DAC"]


def test_who_is_hit_is_outlined_where_it_is_then(golden_root, free_scene, straight_plan, make_verdict):
    """And for a time to collision the ego where it would be by then."""
    token, track = next(
        (token, track)
        for token, track in agent_tracks(free_scene).items()
        if track.kind == "vehicle" and len(track.times) == 11 and -15 < track.poses[6, 0] < 45
    )
    poses = np.tile([10.0, 0.0, 0.0], (41, 1))
    verdict = make_verdict(TTC=0.0, moments={"TTC": 2.4}, poses=to_global(poses, free_scene.ego_pose))
    failure = replace(verdict.explanation.failures[0], object_token=token, object_type="vehicle", value=0.6)
    states = verdict.explanation.states.copy()
    states[:, 3] = 10.0
    explanation = replace(verdict.explanation, failures=(failure,), states=states)
    layers = [PlanLayer("planner", straight_plan, "plan", verdicts=[Verdict(explanation)])]
    marked, plain = (
        draw(golden_root, free_scene, each)
        for each in (layers, [PlanLayer("planner", straight_plan, "plan")])
    )
    changed = (marked != plain).any(axis=-1)
    x, y = track.pose_at(3.0)[:2]
    column, row = pixel(VIEW, x, y)
    assert changed[row - 3 : row + 4, column - 3 : column + 4].all()
    # Six metres on, the front edge of the ego: a dashed line and nothing in the middle of the box.
    left, row = pixel(VIEW, 10.0 + 4.049 + 6.0, 1.1)
    right = pixel(VIEW, 10.0, -1.1)[0]
    assert 0.3 < changed[row - 2 : row + 3, left:right].any(axis=0).mean() <= 1.0


def test_the_legend_lists_layers_and_can_be_left_out(golden_root, free_scene):
    layers = [expert_layer(free_scene)]
    with_legend = draw(golden_root, free_scene, layers)
    without = draw(golden_root, free_scene, layers, legend=False)
    rows, columns = np.nonzero((with_legend != without).any(axis=-1))
    assert rows.min() > 330 and columns.max() < 150


def test_tracks_follow_an_object_through_the_frames(free_scene):
    tracks = agent_tracks(free_scene)
    now, later = free_scene.objects(HISTORY - 1), free_scene.objects(HISTORY + 1)
    token = next(
        t for t, kind in zip(now.tokens, now.types, strict=True) if kind == "vehicle" and t in later.tokens
    )
    track = tracks[token]
    assert np.allclose(track.pose_at(0.0)[:2], now.boxes[now.tokens.index(token), :2])
    box = later.boxes[later.tokens.index(token)]
    expected = to_global(to_global(box[:2], free_scene.ego_poses[HISTORY + 1]), [0.0, 0.0, 0.0])
    assert np.allclose(to_global(track.pose_at(1.0), free_scene.ego_pose)[:2], expected)
    assert len(track.times) == 1 or track.pose_at(track.times[-1] + 0.1) is None


def test_the_window_grows_with_the_plans(straight_plan):
    near, far = View.fit([straight_plan]), View.fit([4.0 * straight_plan])
    assert near.ahead < far.ahead
    assert far.ahead >= 80.0
    assert View.fit([100.0 * straight_plan]).ahead + View.fit([100.0 * straight_plan]).behind == 110.0
    assert View.fit([]).ahead > 20.0


def test_plans_and_verdicts_must_fit(straight_plan, make_verdict):
    with pytest.raises(PlanError, match="planner"):
        PlanLayer("planner", np.full((1, 8, 3), np.nan), "plan")
    with pytest.raises(ValueError, match="2 verdicts for 1 plans"):
        PlanLayer("planner", straight_plan, "plan", verdicts=[make_verdict(), make_verdict()])


class WithoutLines:
    """A map some of whose centrelines are missing."""

    def __init__(self, nuplan_map, column, ids):
        self._map = nuplan_map
        lines = nuplan_map.layer("baseline_paths")
        kept = ~np.isin(lines.column(column), ids)
        self._lines = MapLayer(
            lines.name,
            lines.ids[kept],
            lines.geometries[kept],
            {name: values[kept] for name, values in lines.columns.items()},
            lines.source,
            {int(fid): row for row, fid in enumerate(lines.ids[kept])},
        )

    def __getattr__(self, name):
        return getattr(self._map, name)

    def layer(self, name):
        return self._lines if name == "baseline_paths" else self._map.layer(name)


def test_lanes_and_lights_without_a_centreline_are_drawn_as_far_as_they_are_known(golden_root, red_scene):
    nuplan_map = golden_root.map(red_scene.map_location)
    whole = draw_bev(red_scene, nuplan_map)
    lanes = nuplan_map.layer("lanes_polygons").ids
    lights = [int(connector) for connector, _ in red_scene.traffic_lights]
    for column, ids in (("lane_fid", lanes), ("lane_connector_fid", lights)):
        drawn = draw_bev(red_scene, WithoutLines(nuplan_map, column, ids))
        assert 0.0 < (drawn != whole).any(axis=-1).mean() < 0.2
