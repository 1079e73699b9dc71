"""Configs whose model is made for other targets than their transforms make are refused."""

from __future__ import annotations

from typing import Any

import pytest

from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.losses.agents import CAMERA_FIELD_OF_VIEW

WOTE = "wote_tiny_1xb16-12e_synth"
PILLARS = "transfuser-pillars-centerpoint_tiny_1xb16-12e_synth"
TRANSFUSER = "transfuser_r34_1xb64-100e_navtrain"


def with_setting(config: str, transform: str, **settings: Any) -> dict[str, Any]:
    """Options that change a transform of the feature pipeline of a config."""
    pipeline = load_config(config).feature_pipeline
    assert transform in [step.type for step in pipeline]
    return {
        "feature_pipeline": [
            {**step, **(settings if step["type"] == transform else {})} for step in map(dict, pipeline)
        ]
    }


@pytest.mark.parametrize("transform", ["BEVMapTarget", "FutureBEVMapTarget"])
def test_the_ego_is_drawn_into_maps_of_its_own_cells_alone(transform: str) -> None:
    words = r"train_dataloader\S*pixel_size=0\.5: model \(WoTE\) is made for pixel_size=0\.25"
    with pytest.raises(ConfigError, match=words):
        load_config(WOTE, with_setting(WOTE, transform, pixel_size=0.5))
    without = {**with_setting(WOTE, transform, pixel_size=0.5), "model.bev_head": None}
    assert load_config(WOTE, {**without, "model.decoder.map_size": None}).model.bev_head is None


def test_agents_that_no_head_can_predict_are_no_targets() -> None:
    options = with_setting(TRANSFUSER, "AgentTargets", extent=64.0)
    words = r"extent=64\.0: model\.agent_head \(AgentHead\) is made for extent=32\.0 of AgentTargets"
    with pytest.raises(ConfigError, match=words):
        load_config(TRANSFUSER, options)
    idle = {"model.agent_head.loss.class_weight": 0.0, "model.agent_head.loss.box_weight": 0.0}
    assert load_config(TRANSFUSER, {**options, **idle}).model.agent_head


def test_a_detector_on_pillars_sees_the_ground_that_they_cover() -> None:
    assert load_config(PILLARS).model.backbone.pillars.point_range[2] == 0.2  # heights may differ
    for key in ("model.detection_head.map_range", "model.backbone.pillars.point_range"):
        with pytest.raises(ConfigError, match=r"detection_head\.map_range=.*pillars\.point_range=.*differ"):
            load_config(PILLARS, {key: (-64.0, -32.0, -2.0, 64.0, 32.0, 6.0)})


def test_targets_of_planners_with_cameras_alone_are_those_in_view() -> None:
    assert (
        load_config("ltf_r34_1xb64-100e_navtrain").model.agent_head.loss.max_bearing == CAMERA_FIELD_OF_VIEW
    )
