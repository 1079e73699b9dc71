"""What planners are given: preprocessing, missing and bad inputs."""

import numpy as np
import pytest
import torch

from beyonddrive.plugins.base.planner import Planner
from beyonddrive.plugins.base.preprocessor import PlannerDataPreprocessor, PlannerInputError
from beyonddrive.registry import MODELS
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.tokens import PlanOutput
from beyonddrive.tests.plugins.small import BACKBONE, DECODER, camera_batch, flow_policy


def test_preprocessor_scales_bytes_and_keeps_floats():
    batch = camera_batch()
    out = PlannerDataPreprocessor()(batch)["inputs"]
    torch.testing.assert_close(out["camera"][1], batch["inputs"]["camera"][1].float() / 255)
    assert torch.equal(out["status"], torch.stack(batch["inputs"]["status"]))
    batch["inputs"]["camera"] = torch.rand(2, 3, 32, 64)
    assert torch.equal(PlannerDataPreprocessor()(batch)["inputs"]["camera"], batch["inputs"]["camera"])


def test_preprocessor_drops_what_the_planner_does_not_read():
    assert set(PlannerDataPreprocessor(keys=["status"])(camera_batch())["inputs"]) == {"status"}


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
    batch = camera_batch()
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
    batch = PlannerDataPreprocessor()(camera_batch())
    with pytest.raises(PlannerInputError, match=words):
        flow_policy()({**batch["inputs"], **change}, batch["data_samples"], mode="predict")


def test_lidar_planner_asks_for_lidar():
    config = {"type": "TransFuserPlanner", "backbone": {**BACKBONE, "latent": False}, "decoder": DECODER}
    planner = MODELS.build({**config, "trajectory_head": {"type": "DeltaTrajectoryHead", "in_channels": 8}})
    with pytest.raises(PlannerInputError, match="needs input 'lidar'"):
        planner(PlannerDataPreprocessor()(camera_batch())["inputs"])


def test_nan_weights_do_not_become_a_plan():
    planner = flow_policy()
    torch.nn.init.constant_(planner.decoder.query_embedding.weight, torch.nan)
    with pytest.raises(PlanError, match="scene scene0: FlowPolicy predicts a plan with NaN"):
        planner.test_step(camera_batch())


def test_unknown_mode_and_loss_without_samples():
    inputs = PlannerDataPreprocessor()(camera_batch())["inputs"]
    with pytest.raises(ValueError, match="mode must be"):
        flow_policy()(inputs, mode="plan")
    with pytest.raises(PlannerInputError, match="needs data_samples"):
        flow_policy()(inputs, mode="loss")


class Lone(Planner):
    """A planner without a head, whose plan is what a test gives it."""

    required_inputs = ("camera",)

    def __init__(self, output=None):
        super().__init__()
        self.output = output

    def tensors(self, inputs):
        return {"trajectory": self.output.trajectory}

    def loss(self, inputs, samples):
        return {"distance": torch.zeros(()), "speed": torch.zeros(())}

    def plan(self, inputs, samples=None):
        return self.output


def plans(trajectory, proposals=None, scores=None):
    return PlanOutput(trajectory=trajectory, encoded=trajectory, proposals=proposals, scores=scores)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            plans(torch.zeros(2, 7, 3)),
            r"trajectory .* \(2, 8, 3\), got float32 \(2, 7, 3\): mend",
        ),
        (plans(torch.zeros(2, 8, 4)), r"got float32 \(2, 8, 4\)"),
        (plans(torch.zeros(1, 8, 3)), r"got float32 \(1, 8, 3\)"),
        (plans(torch.zeros(2, 8, 3, dtype=torch.int64)), r"tensor of floats .* got int64 \(2, 8, 3\)"),
        (plans(np.zeros((2, 8, 3), np.float32)), "got ndarray"),
        (plans(torch.zeros(2, 8, 3), torch.zeros(2, 4, 8, 2)), r"proposals .* \(2, 4, 8, 3\), got float32 "),
        (plans(torch.zeros(2, 8, 3), torch.zeros(2, 4, 8, 3), torch.zeros(2, 5)), r"scores .* \(2, 4\), got"),
        (
            plans(torch.zeros(2, 8, 3), torch.full((2, 4, 8, 3), torch.nan)),
            "scene scene0: Lone predicts a plan with NaN or infinity",
        ),
        (
            torch.zeros(2, 8, 3),
            r"plan must give a PlanOutput, as its head does, got float32 \(2, 8, 3\)",
        ),
    ],
)
def test_what_is_predicted_are_whole_plans(output, words):
    with pytest.raises(PlanError, match=words):
        Lone(output).test_step(camera_batch())


def test_a_planner_that_does_not_read_the_status_need_not_be_given_it():
    predicted = Lone(plans(torch.zeros(2, 8, 3)))({"camera": torch.zeros(2, 3, 4, 8)}, mode="predict")
    assert [tuple(sample.pred.trajectory.shape) for sample in predicted] == [(8, 3), (8, 3)]


def test_a_loss_without_a_term_to_minimise_is_refused():
    terms = Lone().loss({}, [])
    with pytest.raises(ValueError, match=r"Lone: nothing to minimise: .* gives \['distance', 'speed'\]"):
        Lone().parse_losses(terms)
