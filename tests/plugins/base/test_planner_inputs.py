"""What planners are given: preprocessing, missing and bad inputs."""

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.plugins.base.preprocessor import PlannerDataPreprocessor, PlannerInputError
from beyonddrive.plugins.flow_policy.planner import FlowPolicy
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
