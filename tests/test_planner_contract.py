"""What every planner must do, checked for every planner that the registry knows.

A planner is found by itself: its folder in ``plugins/`` registers it, and a config
``configs/<planner>/*synth*.py`` gives it a size that a CPU can train.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from mmengine.structures import BaseDataElement
from torch import Tensor

import beyonddrive
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.precision import bfloat16_autocast
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.heads.plan_vocabulary import PlanVocabulary
from beyonddrive.plugins.base.head_planner import HeadPlanner
from beyonddrive.plugins.base.planner import Planner
from beyonddrive.plugins.base.preprocessor import PlannerInputError
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

CONFIGS = Path(beyonddrive.__path__[0]) / "configs"
OUTPUTS = {
    "trajectory",
    "delta_trajectory",
    "proposals",
    "scores",
    "agent_states",
    "agent_labels",
    "bev_semantic_map",
    "agent_heatmaps",
}


@cache
def planner_classes() -> dict[str, type[Planner]]:
    MODELS.import_from_location()
    return {
        name: cls
        for name, cls in MODELS.module_dict.items()
        if isinstance(cls, type) and issubclass(cls, Planner)
    }


@cache
def small_configs() -> dict[str, ConfigDict]:
    """Model settings by config name; a planner without a repelled config of its own gets one."""
    configs: dict[str, ConfigDict] = {
        path.stem: load_config(path).model for path in sorted(CONFIGS.glob("*/*synth*.py"))
    }
    repelled = {model.type for model in configs.values() if "repulsion" in model}
    for name, model in list(configs.items()):
        if "trajectory_head" in model and model.type not in repelled:
            copied = copy.deepcopy(model)
            copied.repulsion = ConfigDict(weight=0.5)
            configs[f"{name}+repulsive"] = copied
    return configs


@pytest.fixture(params=list(small_configs()))
def config(request: pytest.FixtureRequest) -> ConfigDict:
    if "pillars" in request.param:
        pytest.importorskip("mmdet3d")
    return copy.deepcopy(small_configs()[request.param])


@pytest.fixture
def planner(config: ConfigDict) -> Planner:
    return fitted_planner(config)


def fitted_planner(config: ConfigDict) -> Planner:
    """The planner with weights, and priors of made-up experts, that depend on its config only."""
    torch.manual_seed(0)
    planner: Planner = MODELS.build(config)
    experts = np.random.default_rng(0).normal(size=(100, 8, 3)).cumsum(axis=1)
    for prior in plan_priors(planner):
        prior.fit(experts)
    return planner


def batch_of(planner: Planner, size: int) -> dict[str, Any]:
    """Collated samples as a data loader hands them over."""
    generator = torch.Generator().manual_seed(size)
    backbone = getattr(planner, "backbone", None)
    image, raster = (64, 256), (1, 64, 64)
    if backbone is not None:
        image, raster = backbone.image_size, (backbone.lidar_channels, *backbone.bev_size)

    vocabularies = [module for module in planner.modules() if isinstance(module, PlanVocabulary)]

    def sample(row: int) -> dict[str, Any]:
        inputs = {
            "camera": torch.randint(0, 256, (3, *image), generator=generator, dtype=torch.uint8),
            "status": torch.rand(8, generator=generator),
        }
        if "lidar" in planner.required_inputs:
            inputs["lidar"] = torch.rand(raster, generator=generator)
        if "points" in planner.required_inputs:
            cloud = torch.rand(500 + 100 * row, 4, generator=generator)
            inputs["points"] = cloud * torch.tensor([60.0, 60.0, 4.0, 1.0]) - torch.tensor([30.0, 30, 1, 0])
        data_sample = PlanSample(metainfo={"token": f"scene{row}", "log_name": "log"})
        data_sample.gt = BaseDataElement(
            trajectory=torch.randn(8, 3, generator=generator).cumsum(0),
            agent_states=torch.randn(30, 5, generator=generator),
            agent_labels=torch.rand(30, generator=generator) > 0.5,
            bev_semantic_map=torch.randint(0, 7, (128, 256), generator=generator, dtype=torch.uint8),
        )
        data_sample.negatives = BaseDataElement(
            plans=torch.randn(2, 8, 3, generator=generator),
            valid=torch.tensor([row % 2 == 0, False]),
            scores=torch.zeros(2, 7),
        )
        for vocabulary in vocabularies:
            data_sample.gt.update(
                BaseDataElement(
                    vocabulary_scores=torch.rand(vocabulary.size, 6, generator=generator),
                    vocabulary_id=torch.tensor(vocabulary.identity),
                    future_bev_semantic_map=torch.randint(0, 7, (128, 256), generator=generator),
                )
            )
        if getattr(planner, "detection_head", None) is not None:
            boxes = torch.rand(3 + row, 9, generator=generator) * 5.0 + 0.5
            labels = torch.randint(0, 3, (3 + row,), generator=generator)
            data_sample.gt.update(BaseDataElement(boxes=boxes, box_labels=labels))
        return {"inputs": inputs, "data_samples": data_sample}

    return pseudo_collate([sample(row) for row in range(size)])


def plans(samples: list[PlanSample]) -> Tensor:
    return torch.stack([sample.pred.trajectory for sample in samples])


def test_every_planner_has_a_small_config() -> None:
    assert {"TransFuserPlanner", "FlowPolicy", "EgoStatusMLP", "ConstantVelocity"} <= set(planner_classes())
    assert {model.type for model in small_configs().values()} == set(planner_classes())


def test_every_planner_folder_says_where_it_comes_from() -> None:
    for cls in planner_classes().values():
        if getattr(cls, "oracle", False):
            continue
        folder = Path(beyonddrive.__path__[0], *cls.__module__.split(".")[1:-1])
        text = (folder / "README.md").read_text()
        for topic in ("Source", "What differs", "Figures", "Config"):
            assert f"## {topic}" in text, f"{folder.name}/README.md lacks {topic!r}"


def test_loss_is_finite_and_reaches_every_trainable_parameter(planner: Planner) -> None:
    """Also what distributed training asks for: no trainable parameter is left without a gradient."""
    planner.train()
    data = planner.data_preprocessor(batch_of(planner, 3), True)
    total, log = planner.parse_losses(planner(**data, mode="loss"))
    assert total.isfinite()
    assert all(value.isfinite() for value in log.values())
    trainable = {name: p for name, p in planner.named_parameters() if p.requires_grad}
    if not trainable:
        return
    total.backward()
    without = [name for name, p in trainable.items() if p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in trainable.values())
    frozen = [name for name, p in planner.named_parameters() if not p.requires_grad]
    assert all(name.startswith("agent_head.") for name in frozen)


def test_mixed_precision(planner: Planner) -> None:
    """Losses and gradients stay finite, and near the full-precision loss, under autocast."""
    planner.train()
    data = planner.data_preprocessor(batch_of(planner, 2), True)
    totals = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with bfloat16_autocast("cpu") if enabled else nullcontext():
            totals.append(planner.parse_losses(planner(**data, mode="loss"))[0])
    torch.testing.assert_close(totals[1].float(), totals[0], rtol=0.1, atol=0.1)
    if totals[1].requires_grad:
        totals[1].backward()
        grads = [p.grad for p in planner.parameters() if p.grad is not None]
        assert grads
        assert all(grad.isfinite().all() for grad in grads)


def test_training_lowers_the_loss(planner: Planner) -> None:
    parameters = [p for p in planner.parameters() if p.requires_grad]
    if not parameters:
        pytest.skip("nothing to train")
    planner.train()
    data = planner.data_preprocessor(batch_of(planner, 3), True)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    values = []
    for _ in range(5):
        torch.manual_seed(0)  # the same draws in every step
        total, _ = planner.parse_losses(planner(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(total.item())
    assert values[-1] < values[0]


def test_predictions(planner: Planner) -> None:
    planner.eval()
    for size in (1, 3):
        samples = planner.test_step(batch_of(planner, size))
        assert [sample.metainfo["token"] for sample in samples] == [f"scene{i}" for i in range(size)]
        for sample in samples:
            pred = sample.pred
            assert pred.trajectory.shape == (8, 3)
            assert pred.trajectory.dtype == torch.float32
            assert not pred.trajectory.requires_grad
            if "proposals" in pred:
                assert pred.proposals.shape[1:] == (8, 3)
            if "scores" in pred:
                assert pred.scores.shape == pred.proposals.shape[:1]


def test_raw_outputs(planner: Planner) -> None:
    if getattr(planner, "oracle", False):
        pytest.skip("reads the future from its samples")
    planner.eval()
    inputs = planner.data_preprocessor(batch_of(planner, 2))["inputs"]
    with torch.no_grad():
        outputs = planner(inputs)
    assert set(outputs) <= OUTPUTS
    assert outputs["trajectory"].shape == (2, 8, 3)
    assert all(len(value) == 2 and value.isfinite().all() for value in outputs.values())


def test_a_calibration_turns_and_stretches_what_is_planned_and_nothing_else(
    planner: Planner, config: ConfigDict
) -> None:
    if not isinstance(planner, HeadPlanner):
        pytest.skip("has no heads")
    config.calibration = {"turn": 0.3, "stretch": 0.5}
    calibrated, batch = fitted_planner(config), batch_of(planner, 2)
    calibrated.load_state_dict(planner.state_dict())
    assert isinstance(calibrated, HeadPlanner) and calibrated.calibration is not None
    bare, moved = (model.eval().test_step(copy.deepcopy(batch)) for model in (planner, calibrated))
    for name in set(bare[0].pred.keys()):
        for one, other in zip(bare, moved, strict=True):
            expected = one.pred.get(name)
            if name in ("trajectory", "proposals"):
                expected = calibrated.calibration(expected)
            torch.testing.assert_close(other.pred.get(name), expected)
    losses = []
    for model in (planner, calibrated):
        torch.manual_seed(0)
        data = model.train().data_preprocessor(copy.deepcopy(batch), True)
        losses.append(model.parse_losses(model(**data, mode="loss"))[0])
    assert torch.equal(*losses)


def test_evaluation_is_deterministic_and_independent_of_the_batch(planner: Planner) -> None:
    planner.eval()
    first, second = (plans(planner.test_step(batch_of(planner, 3))) for _ in range(2))
    assert torch.equal(first, second)
    data = batch_of(planner, 3)
    alone = {
        "inputs": {name: value[1:2] for name, value in data["inputs"].items()},
        "data_samples": data["data_samples"][1:2],
    }
    torch.testing.assert_close(plans(planner.test_step(alone))[0], first[1], rtol=1e-4, atol=1e-4)


def test_checkpoint_round_trip(planner: Planner, config: ConfigDict, tmp_path: Path) -> None:
    path = tmp_path / "planner.pth"
    torch.save(get_state_dict(planner), path)
    torch.manual_seed(1)
    restored = MODELS.build(config)
    load_state_dict(restored, torch.load(path, weights_only=True), strict=True)
    data = batch_of(planner, 2)
    expected = plans(planner.eval().test_step(copy.deepcopy(data)))
    assert torch.equal(plans(restored.eval().test_step(data)), expected)


def test_repulsive_and_bare_checkpoints_have_the_same_keys(planner: Planner, config: ConfigDict) -> None:
    if not isinstance(planner, HeadPlanner):
        pytest.skip("has no trajectory head")
    bare = copy.deepcopy(config)
    bare.pop("repulsion", None)
    MODELS.build(bare).load_state_dict(planner.state_dict(), strict=True)


def test_repulsion_sees_negatives(planner: Planner) -> None:
    if not isinstance(planner, HeadPlanner) or planner.trajectory_head.bare is planner.trajectory_head:
        pytest.skip("is not repelled")
    planner.train()
    data = planner.data_preprocessor(batch_of(planner, 3), True)
    losses = planner(**data, mode="loss")
    assert losses["loss_repulsive"] < 0
    assert losses["negative_share"].item() == pytest.approx(2 / 3)
    for sample in data["data_samples"]:
        sample.negatives.valid = torch.zeros(2, dtype=torch.bool)
    losses = planner(**data, mode="loss")
    assert losses["loss_repulsive"].item() == 0.0
    assert losses["negative_share"].item() == 0.0


def test_bad_input_is_named(planner: Planner) -> None:
    data = batch_of(planner, 2)
    data["inputs"]["status"][1] = torch.full((8,), torch.nan)
    with pytest.raises(PlannerInputError, match="scene scene1: input 'status'"):
        planner.test_step(data)
    for name in planner.required_inputs:
        data = batch_of(planner, 2)
        del data["inputs"][name]
        with pytest.raises(PlannerInputError, match=f"needs input '{name}'"):
            planner.test_step(data)


def test_copies_do_not_share_weights(planner: Planner) -> None:
    clone = copy.deepcopy(planner)
    for parameter in clone.parameters():
        torch.nn.init.zeros_(parameter)
    assert all(parameter.any() for name, parameter in planner.named_parameters() if name.endswith("0.weight"))
    assert set(clone.state_dict()) == set(planner.state_dict())
