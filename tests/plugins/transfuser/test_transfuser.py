"""TransFuser from a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from beyonddrive.apis import init_planner
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.structures.sample import PlanSample

ROOT = Path(__file__).parents[3]


CONFIGS = ROOT / "configs"


def test_raw_outputs_and_bad_inputs_of_a_planner_from_a_notebook():
    planner = init_planner(CONFIGS / "transfuser/transfuser_tiny_1xb16-12e_synth.py")
    inputs = {
        "camera": torch.rand(2, 3, 64, 256),
        "lidar": torch.rand(2, 1, 128, 128),
        "status": torch.rand(2, 8),
    }
    with torch.no_grad():
        outputs = planner(inputs, mode="tensor")
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "trajectory": (2, 8, 3),
        "agent_states": (2, 30, 5),
        "agent_labels": (2, 30),
        "bev_semantic_map": (2, 7, 32, 64),
    }
    with pytest.raises(PlannerInputError, match=r"needs input 'lidar'.*add it to the feature pipeline"):
        planner({**inputs, "lidar": None})
    with pytest.raises(ValueError, match=r"camera must be \(B, 3, 64, 256\), got \(2, 3, 32, 256\)"):
        planner({**inputs, "camera": torch.rand(2, 3, 32, 256)})
    with pytest.raises(ValueError, match=r"lidar must be \(B, 1, 128, 128\)"):
        planner({**inputs, "lidar": torch.rand(2, 1, 256, 256)})
    broken = inputs["status"].clone()
    broken[1, 4] = torch.nan
    with pytest.raises(PlannerInputError, match="scene number 1 of the batch: input 'status' holds NaN"):
        planner({**inputs, "status": broken})
    samples = [PlanSample(metainfo={"token": token}) for token in ("whole", "broken")]
    with pytest.raises(PlannerInputError, match="scene broken: input 'status' holds NaN"):
        planner({**inputs, "status": broken}, samples, mode="predict")
