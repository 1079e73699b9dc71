"""A planner is trained on targets of the lengths that it takes for granted, or not at all."""

import math
from types import SimpleNamespace

import pytest
from torch import nn

from beyonddrive.datasets.transforms.agent_boxes import AgentBoxTargets
from beyonddrive.datasets.transforms.bev_map import BEVMapTarget, FutureBEVMapTarget
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.datasets.transforms.targets import AgentTargets
from beyonddrive.datasets.transforms.view import ViewAugmentation
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.engine.geometry import check_geometry
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.heads.agents import AgentHead
from beyonddrive.heads.center_point import CenterPointHead
from beyonddrive.plugins.base.head_planner import SensorPlanner
from beyonddrive.plugins.diffusiondrive.denoiser import AnchoredDenoiser
from beyonddrive.registry import MODELS
from beyonddrive.structures.geometry import BOX_EXTENT, LIDAR_EXTENT


def check(part, features, behind=()):
    """As a training would, with a data set in a wrapper."""
    leaf = SimpleNamespace(feature_transforms=list(features), transforms=list(behind))
    check_geometry(nn.ModuleList([part]), SimpleNamespace(dataset=leaf))


@pytest.mark.parametrize("kind", [BEVMapTarget, FutureBEVMapTarget])
def test_wote_draws_the_ego_into_maps_of_its_own_cells_alone(kind):
    wote = MODELS.build(load_config("wote_tiny_1xb16-12e_synth").model)
    check(wote, [kind(), LoadLidarHistogram()])
    with pytest.raises(
        ConfigError, match=rf"cell.*{kind.__name__} of train_dataloader\S* has 0\.5, and WoTE"
    ):
        check(wote, [kind(pixel_size=0.5)])
    with pytest.raises(ConfigError, match=r"LiDAR raster.*LoadLidarHistogram.* has 50, and WoTE takes 32"):
        check(wote, [LoadLidarHistogram(extent=50.0)])
    wote.bev_head = None
    check(wote, [kind(pixel_size=0.5)])


def test_agents_that_a_head_cannot_place_are_no_targets():
    head = AgentHead(in_channels=4, hidden=4)
    check(head, [AgentTargets(extent=20.0)])
    with pytest.raises(ConfigError, match=r"AgentTargets.* has 64, and AgentHead takes from 0 to 32"):
        check(head, [AgentTargets(extent=64.0)])
    loss = {"type": "HungarianAgentLoss", "class_weight": 0.0, "box_weight": 0.0}
    check(AgentHead(in_channels=4, hidden=4, loss=loss), [AgentTargets(extent=64.0)])


def test_points_are_looked_up_where_the_raster_has_them():
    denoiser = AnchoredDenoiser(dim=8, num_layers=1, num_heads=2, ffn_dim=8, time_dim=8, map_range=40.0)
    check(denoiser, [LoadLidarHistogram(extent=40.0)])
    with pytest.raises(ConfigError, match=r"LoadLidarHistogram.* has 32, and AnchoredDenoiser takes 40"):
        check(denoiser, [LoadLidarHistogram()])


@pytest.mark.parametrize(
    ("features", "settings"),
    [
        (BEVMapTarget(), {"pixel_size": 0.5}),
        (AgentTargets(), {"extent": 40.0}),
        (LoadLidarHistogram(), {"lidar_extent": 40.0}),
    ],
)
def test_a_moved_view_turns_what_there_is(features, settings):
    check(nn.Identity(), [features], [ViewAugmentation()])
    with pytest.raises(ConfigError, match="and ViewAugmentation takes"):
        check(nn.Identity(), [features], [ViewAugmentation(**settings)])


def test_agents_on_all_of_a_detectors_map_are_targets():
    """(the head itself needs mmdet3d)"""
    head = SimpleNamespace(covers=(-32.0, -40.0, 32.0, 40.0), reads="bev")
    taken = CenterPointHead.geometry_taken.fget(head)
    assert taken == {BOX_EXTENT: (40.0, math.inf), LIDAR_EXTENT: (40.0, 40.0)}
    part = nn.Identity()
    part.geometry_taken = taken
    check(part, [AgentBoxTargets(extent=50.0)])
    with pytest.raises(ConfigError, match=r"boxes are targets .*: AgentBoxTargets .* has 32"):
        check(part, [AgentBoxTargets()])


def test_a_detector_covers_the_ground_of_its_pillars():
    planner = SimpleNamespace(
        detection_head=SimpleNamespace(covers=(-32, -32, 32, 32)),
        backbone=SimpleNamespace(ground=(-32.0, -32.0, 32.0, 32.0)),
    )
    SensorPlanner._check_ground(planner)
    planner.backbone.ground = (-64.0, -32.0, 64.0, 32.0)
    with pytest.raises(ValueError, match=r"map_range covers .*point_range .*make them agree"):
        SensorPlanner._check_ground(planner)


def test_a_training_on_other_maps_does_not_start(tmp_path, blind_recipe):
    pipeline = [{"type": "EgoStatus"}, {"type": "PlanTarget"}, {"type": "BEVMapTarget"}]
    pipeline.append({"type": "FutureBEVMapTarget", "pixel_size": 0.5})
    config = load_config(blind_recipe, {"train_dataloader.dataset.feature_pipeline": pipeline})
    with pytest.raises(ConfigError, match=r"cell of the semantic maps .*: .*BEVMapTarget takes 0\.\d+; make"):
        build_train_runner(config, str(tmp_path / "w")).train()
    assert not list((tmp_path / "w").glob("*.pth"))
