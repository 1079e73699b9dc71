"""WoTE equals its original; its shortcuts equal plain layers; its anchors and targets are checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from beyonddrive.checkpoints.golden import GoldenFile
from beyonddrive.heads.plan_prior import PriorError
from beyonddrive.heads.repulsive import RepulsiveHead
from beyonddrive.plugins.wote.head import PLANS_AT_ONCE, WorldModelHead
from beyonddrive.plugins.wote.planner import EGO_CLASS, WoTE, draw_ego
from beyonddrive.plugins.wote.rewards import RewardNet
from beyonddrive.plugins.wote.world_model import WorldModel, splat_weights
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens
from beyonddrive.structures.vocabulary import VocabularyError
from beyonddrive.tests.plugins.small import BACKBONE

GOLDEN = Path(__file__).parents[2] / "data" / "golden" / "models"
ANCHORS = 40
SETTINGS: dict[str, Any] = {
    "num_anchors": ANCHORS,
    "dim": 16,
    "bev_size": (4, 4),
    "num_heads": 2,
    "encoder": {"hidden": 8, "num_layers": 1, "ffn_dim": 16},
    "offset_layers": 1,
    "offset_ffn_dim": 16,
    "offset_hidden": 8,
    "world_model": {"num_layers": 2, "ffn_dim": 16},
    "reward_hidden": 8,
}


def test_planner_equals_its_original(assert_parity: Callable[[GoldenFile], None]) -> None:
    assert_parity(GoldenFile(GOLDEN, "wote"))


def plans(count: int = ANCHORS, seed: int = 0) -> np.ndarray:
    """Plans that go ahead, some of them beyond the map."""
    rng = np.random.default_rng(seed)
    steps = rng.normal([4.0, 0.0, 0.0], [2.0, 1.0, 0.1], (count, 8, 3))
    return steps.cumsum(axis=1)


@pytest.fixture
def head() -> WorldModelHead:
    torch.manual_seed(0)
    built = WorldModelHead(**SETTINGS)
    built.anchors.fit(plans())
    return built.eval()


def tokens(batch: int = 3) -> SceneTokens:
    generator = torch.Generator().manual_seed(1)
    status = torch.randn(batch, 1, 16, generator=generator)
    memory = torch.randn(batch, 16, 16, generator=generator)
    return SceneTokens(status, torch.zeros(batch, 8), memory)


def samples(head: WorldModelHead, batch: int = 3) -> list[PlanSample]:
    made = []
    for row, plan in enumerate(torch.from_numpy(plans(batch, seed=1)).float()):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        sample.gt = BaseDataElement(
            trajectory=plan,
            vocabulary_scores=torch.rand(ANCHORS, 6),
            vocabulary_id=torch.tensor(head.anchors.identity),
        )
        made.append(sample)
    return made


def plain_world_model(model: WorldModel, bev: Tensor, ego: Tensor) -> tuple[Tensor, Tensor]:
    """What the shortcuts stand for: every sequence on its own, through torch's own layers."""
    start = splat_weights(torch.zeros(2), model.bev_size)
    injected = bev[:, None] + start[:, None] * ego[:, :, None]
    x = torch.cat([ego[:, :, None], injected], dim=2) + model.position_embedding.weight
    size = x.shape[:2]
    x = x.flatten(0, 1)
    for layer in model.layers:
        x = layer(x)
    x = x.unflatten(0, size)
    return x[:, :, 0], x[:, :, 1:]


@pytest.mark.parametrize("bev_size", [(4, 4), (3, 5)])  # with 5 columns the ego is between two cells
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_world_model_equals_plain_layers(bev_size: tuple[int, int], scale: float) -> None:
    torch.manual_seed(0)
    model = WorldModel(16, bev_size, num_layers=2, num_heads=2, ffn_dim=32).train().double()
    assert len(model.start_cells) == (1 if bev_size == (4, 4) else 2)
    bev = (scale * torch.randn(2, bev_size[0] * bev_size[1], 16).double()).requires_grad_()
    ego = (scale * torch.randn(2, 5, 16).double()).requires_grad_()
    gradients = []
    for result in (model(bev, ego, model.prepare(bev)), plain_world_model(model, bev, ego)):
        loss = sum((part * part.detach().sin()).sum() for part in result)
        wanted = [bev, ego, *model.parameters()]
        gradients.append((*result, *torch.autograd.grad(loss, wanted)))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("bev_size", [(4, 4), (3, 5)])
def test_reward_equals_plain_convolutions(training: bool, bev_size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = RewardNet(8, bev_size).train()
    cells = bev_size[0] * bev_size[1]
    for _ in range(3):  # statistics of their own
        net.bn1(torch.randn(9, 8, 3, 3) * 2 + 1), net.bn2(torch.randn(9, 8, 3, 3) * 3 - 1)
    net.train(training)
    bev, future, ego = torch.randn(2, cells, 8), torch.randn(2, 5, cells, 8), torch.randn(2, 5, 8)
    ours = net.forward_map(net.prepare(bev), future, ego)
    start = splat_weights(torch.zeros(2), bev_size)
    now = bev[:, None] + start[:, None] * ego[:, :, None]
    x = torch.cat([now, future], dim=-1).flatten(0, 1).transpose(1, 2).unflatten(-1, bev_size)
    x = torch.relu(net.bn1(net.conv1(x)))
    x = torch.relu(net.bn2(net.conv2(x))).mean(dim=(-2, -1)).unflatten(0, (2, 5))
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


def test_splat_is_bilinear_and_drops_what_is_outside() -> None:
    weights = splat_weights(torch.tensor([[6.0, -10.0], [31.0, 31.0], [40.0, 0.0], [0.0, 0.0]]), (8, 8))
    assert weights.sum(dim=-1)[0] == pytest.approx(1.0)
    grid = weights[0].unflatten(0, (8, 8))
    # row 6 * 8 / 32 = 1.5, column -10 * 8 / 64 + 4 = 2.75
    assert grid[1, 2] == pytest.approx(0.125) and grid[2, 3] == pytest.approx(0.375)
    assert 0 < weights[1].sum() < 1
    assert weights[2].sum() == 0
    assert weights[3].nonzero().tolist() == [[4]]


def test_plan_is_the_refined_anchor_with_the_highest_reward_in_every_batch(head: WorldModelHead) -> None:
    assert ANCHORS > PLANS_AT_ONCE  # more than one group
    with torch.no_grad():
        output = head(tokens())
        for row in range(3):
            one = SceneTokens(
                tokens().queries[row : row + 1], torch.zeros(1, 8), tokens().memory[row : row + 1]
            )
            alone = head(one)
            torch.testing.assert_close(alone.scores[0], output.scores[row], rtol=1e-4, atol=1e-5)
            best = output.scores[row].argmax()
            assert torch.equal(output.trajectory[row], output.proposals[row, best])
    offsets = output.proposals - head.anchors()
    assert offsets.abs().max() > 0


def test_a_hopeless_anchor_has_a_reward_that_can_be_compared(head: WorldModelHead) -> None:
    imitation, metrics = torch.zeros(1, 2), torch.full((1, 5, 2), -200.0)
    metrics[:, 0, 1] = 0.0  # the second does not collide
    reward = head.final_reward(imitation, metrics)
    assert reward.isfinite().all() and reward.argmax() == 1


def test_supervised_is_the_plan_that_the_offset_loss_pulls(head: WorldModelHead) -> None:
    output, targets = head.training_output(tokens(), []), samples(head)
    pulled = head.supervised(output, targets)
    expert = torch.stack([sample.gt.trajectory for sample in targets])
    losses = head.loss(output, targets)
    assert head.attraction_weight == 1.0
    torch.testing.assert_close(losses["loss_offset"], (pulled - expert).abs().mean())
    assert torch.equal(head.modes(output, targets), output.proposals)
    (gradient,) = torch.autograd.grad(losses["loss_offset"], output.proposals)
    assert (gradient.abs().sum(dim=(2, 3)) > 0).sum(dim=1).tolist() == [1, 1, 1]


def test_pull_and_push_take_headings_alike() -> None:
    repelled = RepulsiveHead(
        head={"type": "WorldModelHead", **SETTINGS},
        loss={"weight": 0.5},
        mode_loss={"weight": 0.5, "margin": 1.0},
    )
    head = repelled.bare
    assert isinstance(head, WorldModelHead)
    head.anchors.fit(plans())
    sample = samples(head, 1)[0]
    output = repelled.eval().training_output(tokens(1), [sample])
    plan = torch.zeros(1, ANCHORS, 8, 3)
    plan[..., 2] = torch.pi - 0.1
    output.proposals = plan.requires_grad_()
    sample.gt.trajectory = torch.zeros(8, 3)
    sample.gt.trajectory[..., 2] = -torch.pi + 0.1
    sample.negatives = BaseDataElement(plans=sample.gt.trajectory[None].clone(), valid=torch.tensor([True]))
    sample.negatives.plans[..., 2] += 0.1
    losses = repelled.loss(output, [sample])
    assert losses["loss_offset"].item() == pytest.approx(0.2 / 3, rel=1e-4)
    assert losses["loss_repulsive"].item() == pytest.approx(-0.5 * 0.3 / 3, rel=1e-4)
    assert losses["loss_repulsive_modes"].item() == pytest.approx(0.5 * (1.0 - 0.3 / 3), rel=1e-4)
    pull, push = (
        torch.autograd.grad(losses[name], output.proposals)[0].sum()
        for name in ("loss_offset", "loss_repulsive")
    )
    assert pull < 0 < push  # both are on the plan's left


def test_imitation_has_the_floor_of_the_original(head: WorldModelHead) -> None:
    output, targets = head.training_output(tokens(), []), samples(head)
    output.extras["imitation_logits"] = 30.0 * torch.eye(3, ANCHORS)  # the others have 1e-13
    expert = torch.stack([sample.gt.trajectory for sample in targets])
    probability = output.extras["imitation_logits"].softmax(dim=1).clamp(1e-6, 1 - 1e-6)
    share = (-head.criterion.distances(head.anchors(), expert)).softmax(dim=1)
    wanted = -(share * probability.log()).sum(dim=1).mean()
    assert torch.equal(head.loss(output, targets)["loss_imitation"], wanted)


def test_scores_of_other_anchors_are_refused(head: WorldModelHead) -> None:
    output, targets = head.training_output(tokens(), []), samples(head)
    targets[1].gt.vocabulary_id = torch.tensor(7)
    with pytest.raises(VocabularyError, match=r"identity 7.*score-vocabulary"):
        head.loss(output, targets)
    targets = samples(head)
    for sample in targets:
        sample.gt.vocabulary_scores = sample.gt.vocabulary_scores[1:]
    with pytest.raises(VocabularyError, match="39 plans"):
        head.loss(output, targets)
    del targets[0].gt.vocabulary_scores
    with pytest.raises(KeyError, match=r"scene scene0 has no gt\.vocabulary_scores"):
        head.loss(output, targets)


def test_missing_anchors_are_named(tmp_path: Path) -> None:
    head = WorldModelHead(num_anchors=4, dim=16, bev_size=(4, 4), num_heads=2)
    with pytest.raises(PriorError, match="WorldModelHead: has no vocabulary of plans"):
        head(tokens())
    missing = tmp_path / "plans_4.npz"
    head = WorldModelHead(num_anchors=4, anchors=missing, dim=16, bev_size=(4, 4), num_heads=2)
    with pytest.raises(PriorError, match=r"plans_4.npz: there is no vocabulary here.*build-vocabulary"):
        head(tokens())
    np.savez(missing, plans=plans(5))
    with pytest.raises(PriorError, match="holds 5 plans, 4 are wanted"):
        head(tokens())
    np.savez(missing, plans=plans(4))
    with torch.no_grad():
        assert head.eval()(tokens()).proposals.shape == (3, 4, 8, 3)


def test_ego_is_drawn_where_it_is() -> None:
    maps = torch.zeros(2, 128, 256, dtype=torch.uint8)
    drawn = draw_ego(maps, torch.tensor([[10.0, 5.0, 0.0], [10.0, 5.0, torch.pi / 2]]))
    rows, columns = (drawn[0] == EGO_CLASS).nonzero().T
    assert (rows.min(), rows.max()) == (32, 47) and (columns.min(), columns.max()) == (144, 151)
    rows, columns = (drawn[1] == EGO_CLASS).nonzero().T
    assert (rows.min(), rows.max()) == (36, 43) and (columns.min(), columns.max()) == (140, 155)
    assert maps.max() == 0


def test_planner_wants_its_own_head_and_both_parts_of_the_map() -> None:
    small = {"latent": True, "image_size": (32, 32), "bev_size": (32, 32), "top_down": False}
    with pytest.raises(ValueError, match="must be a WorldModelHead"):
        WoTE(
            trajectory_head={"type": "DeltaTrajectoryHead"}, backbone=small, decoder={"type": "BEVTokenizer"}
        )
    with pytest.raises(ValueError, match=r"decoder.map_size and bev_head"):
        WoTE(trajectory_head={"type": "WorldModelHead"}, backbone=small, decoder={"type": "BEVTokenizer"})
    with pytest.raises(ValueError, match=r"bev_head.num_classes is 7, and class 7 .*: set it to 8"):
        WoTE(
            trajectory_head={"type": "WorldModelHead"},
            backbone=small,
            decoder={"type": "BEVTokenizer"},
            bev_head={"type": "BEVSemanticHead"},
        )


class Finder(nn.Module):
    """A detection head that finds one agent per scene, on a map."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.reads: Any = reads

    def detect(self, tokens: SceneTokens) -> list[BaseDataElement]:
        return [BaseDataElement(boxes=each.mean()) for each in tokens.require(self.reads, "Finder")]


def test_what_finds_agents_on_the_map_has_it_when_planning() -> None:
    planner = WoTE(
        trajectory_head={"type": "WorldModelHead", **SETTINGS, "bev_size": (2, 2)},
        backbone={**BACKBONE, "latent": False, "top_down": False, "bev_size": (64, 64)},
        decoder={"type": "BEVTokenizer", "dim": 16, "map_size": (8, 8), "map_channels": 4},
        bev_head={"type": "BEVSemanticHead", "in_channels": 4, "num_classes": 8},
    ).eval()
    planner.world_head.anchors.fit(plans())
    inputs = {"camera": torch.rand(2, 3, 32, 64), "lidar": torch.rand(2, 1, 64, 64)}
    inputs["status"] = torch.rand(2, 8)
    assert planner.encode_to_plan(inputs).bev is None
    planner.detection_head = Finder("bev")
    assert all("boxes" in sample.pred for sample in planner.predict(inputs))
    planner.detection_head = Finder("points")
    assert planner.encode_to_plan(inputs).bev is None
