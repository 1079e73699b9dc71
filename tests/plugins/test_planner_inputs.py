"""Preprocessing, bad input, checkpoints' names, and what single planners do."""

from dataclasses import dataclass

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.checkpoints.key_maps import KeyMap, KeyMapError
from beyonddrive.plugins.base.preprocessor import PlannerDataPreprocessor, PlannerInputError
from beyonddrive.plugins.base.sampling import scene_generator
from beyonddrive.plugins.flow_policy.planner import FlowPolicy
from beyonddrive.plugins.transfuser.checkpoint import DELTA_KEYS
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.sample import PlanSample

ENCODER = {"name": "resnet18", "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)} | {
    "stem_type": "deep",
    "stem_width": 4,
}
BACKBONE = {
    "latent": True,
    "image_encoder": ENCODER,
    "bev_encoder": ENCODER,
    "image_size": (32, 64),
    "bev_size": (32, 32),
    "num_layers": 1,
    "top_down_channels": 4,
}
DECODER = {"dim": 8, "num_queries": 4, "num_layers": 1, "num_heads": 2, "ffn_dim": 8}


def _flow_policy(**head) -> FlowPolicy:
    torch.manual_seed(0)
    denoiser = {"dim": 8, "num_context": 3, "num_heads": 2, "ffn_dim": 8}
    config = {"type": "FlowHead", "denoiser": denoiser, **head}
    return FlowPolicy(trajectory_head=config, backbone=BACKBONE, decoder=DECODER).eval()


def _batch(batch=2):
    samples = []
    for row in range(batch):
        samples.append(PlanSample(metainfo={"token": f"scene{row}"}))
        samples[-1].gt = BaseDataElement(trajectory=torch.zeros(8, 3), agent_states=torch.zeros(30, 5))
    camera = [torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8) for _ in range(batch)]
    return {
        "inputs": {"camera": camera, "status": [torch.rand(8) for _ in range(batch)]},
        "data_samples": samples,
    }


def test_preprocessor_scales_bytes_and_keeps_floats():
    batch = _batch()
    out = PlannerDataPreprocessor()(batch)["inputs"]
    torch.testing.assert_close(out["camera"][1], batch["inputs"]["camera"][1].float() / 255)
    assert torch.equal(out["status"], torch.stack(batch["inputs"]["status"]))
    batch["inputs"]["camera"] = torch.rand(2, 3, 32, 64)
    assert torch.equal(PlannerDataPreprocessor()(batch)["inputs"]["camera"], batch["inputs"]["camera"])


def test_preprocessor_drops_what_the_planner_does_not_read():
    assert set(PlannerDataPreprocessor(keys=["status"])(_batch())["inputs"]) == {"status"}


def _nan_status(batch):
    batch["inputs"]["status"][1][4] = torch.nan


def _bytes_as_floats(batch):
    batch["inputs"]["camera"] = [image.float() for image in batch["inputs"]["camera"]]


def _two_sizes(batch):
    batch["inputs"]["camera"][1] = batch["inputs"]["camera"][1][:, :16]


def _nan_target(batch):
    batch["data_samples"][1].gt.trajectory = torch.full((8, 3), torch.inf)


def _no_inputs(batch):
    batch["inputs"] = [1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_nan_status, "scene scene1: input 'status' holds NaN"),
        (_bytes_as_floats, r"floats in \[0, 255\]"),
        (_two_sizes, "input 'camera'.*different sizes"),
        (_nan_target, r"scene scene1: target gt\.trajectory holds NaN"),
        (_no_inputs, "no dict 'inputs'"),
    ],
)
def test_preprocessor_names_what_is_wrong(spoil, words):
    batch = _batch()
    spoil(batch)
    with pytest.raises(PlannerInputError, match=words):
        PlannerDataPreprocessor()(batch)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"camera": None}, r"scene scene0: FlowPolicy needs input 'camera', the batch has"),
        ({"status": torch.zeros(2, 7)}, r"'status' must be \(B, 8\)"),
        ({"status": torch.zeros(1, 8)}, "batch sizes differ"),
    ],
)
def test_planner_names_missing_and_unfit_inputs(change, words):
    batch = PlannerDataPreprocessor()(_batch())
    with pytest.raises(PlannerInputError, match=words):
        _flow_policy()({**batch["inputs"], **change}, batch["data_samples"], mode="predict")


def test_lidar_planner_asks_for_lidar():
    config = {"type": "TransFuserPlanner", "backbone": {**BACKBONE, "latent": False}, "decoder": DECODER}
    planner = MODELS.build({**config, "trajectory_head": {"type": "DeltaTrajectoryHead", "in_channels": 8}})
    with pytest.raises(PlannerInputError, match="needs input 'lidar'"):
        planner(PlannerDataPreprocessor()(_batch())["inputs"])


def test_nan_weights_do_not_become_a_plan():
    planner = _flow_policy()
    torch.nn.init.constant_(planner.decoder.query_embedding.weight, torch.nan)
    with pytest.raises(PlanError, match="scene scene0: FlowPolicy predicts a plan with NaN"):
        planner.test_step(_batch())


def test_unknown_mode_and_loss_without_samples():
    inputs = PlannerDataPreprocessor()(_batch())["inputs"]
    with pytest.raises(ValueError, match="mode must be"):
        _flow_policy()(inputs, mode="plan")
    with pytest.raises(PlannerInputError, match="needs data_samples"):
        _flow_policy()(inputs, mode="loss")


@dataclass
class Strategy:
    guidance: float = 0.5
    noise: float = 0.4
    steps: int = 5


def test_proposals_repeat_with_their_generator():
    planner, inputs = _flow_policy(), PlannerDataPreprocessor()(_batch())["inputs"]
    first, again, other = (
        planner.propose(inputs, 6, Strategy(), torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)
    )
    assert first.shape == (2, 6, 8, 3)
    assert not first.requires_grad
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_generator_per_scene_makes_proposals_independent_of_the_batch():
    planner, inputs = _flow_policy(), PlannerDataPreprocessor()(_batch())["inputs"]
    both = planner.propose(inputs, 4, Strategy(), [scene_generator(0, name) for name in "ab"])
    second = {name: value[1:] for name, value in inputs.items()}
    alone = planner.propose(second, 4, Strategy(), [scene_generator(0, "b")])
    torch.testing.assert_close(alone[0], both[1])


def test_more_noise_spreads_the_proposals():
    planner, inputs = _flow_policy(), PlannerDataPreprocessor()(_batch())["inputs"]
    spread = [
        planner.propose(inputs, 64, Strategy(noise=noise), torch.Generator().manual_seed(0)).std(1).mean()
        for noise in (0.1, 0.4)
    ]
    assert spread[1] > spread[0]


def test_flow_policy_plan_depends_on_scene_and_seed_but_not_on_the_batch():
    planner, batch = _flow_policy(), PlannerDataPreprocessor()(_batch())
    together = [s.pred.trajectory for s in planner(batch["inputs"], batch["data_samples"], mode="predict")]
    second = {name: value[1:] for name, value in batch["inputs"].items()}
    alone = planner(second, batch["data_samples"][1:], mode="predict")[0].pred
    torch.testing.assert_close(alone.trajectory, together[1])
    assert alone.proposals.shape == (1, 8, 3)
    planner.trajectory_head.bare.seed = 1
    assert not torch.allclose(
        planner(second, batch["data_samples"][1:], mode="predict")[0].pred.trajectory, together[1]
    )


def test_flow_policy_needs_a_flow_head():
    with pytest.raises(ValueError, match="must be a FlowHead, got DeltaTrajectoryHead"):
        FlowPolicy(
            trajectory_head={"type": "DeltaTrajectoryHead", "in_channels": 8},
            backbone=BACKBONE,
            decoder=DECODER,
        )


def test_constant_velocity_keeps_its_speed():
    planner = MODELS.build({"type": "ConstantVelocity"})
    status = torch.tensor([[0, 1, 0, 0, 6.0, 0.5, 1.0, 1.0], [1, 0, 0, 0, -1.0, 0, 0, 0]])
    plan = planner({"status": status})["trajectory"]
    torch.testing.assert_close(plan[0, :, 0], 3.0 * torch.arange(1, 9))
    torch.testing.assert_close(plan[1, :, 0], -0.5 * torch.arange(1, 9))
    assert not plan[..., 1:].any()
    assert not planner.needs_checkpoint


def test_key_maps_go_both_ways():
    keys = KeyMap("net.", (("enc.{i}.", "stages.{i}.conv."), ("pos", "position")))
    state = {
        "net.enc.0.weight": torch.zeros(1),
        "net.enc.11.weight": torch.ones(1),
        "net.pos": torch.zeros(2),
    }
    native, unknown = keys.native_state({**state, "net.other": torch.zeros(1)})
    assert unknown == ["net.other"]
    assert set(native) == {"stages.0.conv.weight", "stages.11.conv.weight", "position"}
    assert set(keys.official_state(native)) == set(state)
    for unknown in ("net.position", "enc.0.weight", "net.enc.x.weight"):
        with pytest.raises(KeyMapError, match=unknown):
            keys.to_native(unknown)
    with pytest.raises(KeyMapError, match="no counterpart"):
        keys.to_official("stages.a.conv.weight")


def test_other_statistics_cannot_be_converted_back():
    state, _ = DELTA_KEYS.native_state({})
    assert set(state) == {"trajectory_head.delta.mean", "trajectory_head.delta.scale"}
    assert DELTA_KEYS.official_state(state) == {}
    state["trajectory_head.delta.mean"] += 0.1
    with pytest.raises(KeyMapError, match="other statistics"):
        DELTA_KEYS.official_state(state)
