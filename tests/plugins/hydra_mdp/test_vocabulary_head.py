"""The vocabulary planner's head and losses: what is chosen, what is taught, what pulls and what repels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from beyonddrive.heads.plan_prior import PriorError
from beyonddrive.heads.repulsive import RepulsiveHead
from beyonddrive.plugins.hydra_mdp.head import METRICS, ReadingLayer, VocabularyHead
from beyonddrive.plugins.hydra_mdp.losses import VocabularyLoss
from beyonddrive.plugins.hydra_mdp.planner import VocabularyPlanner
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import PlanOutput, SceneTokens
from beyonddrive.structures.vocabulary import VocabularyError

SIZE = 20
SETTINGS = {"size": SIZE, "in_channels": 16, "num_heads": 2, "ffn_dim": 16, "hidden": 8, "num_proposals": 5}


def plans(count: int = SIZE, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal([3.0, 0.0, 0.0], [1.5, 0.5, 0.1], (count, 8, 3)).cumsum(axis=1)


@pytest.fixture
def head() -> VocabularyHead:
    torch.manual_seed(0)
    built = VocabularyHead(**SETTINGS)
    built.vocabulary.fit(plans())
    return built


def tokens(batch: int = 3) -> SceneTokens:
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(batch, 2, 16, generator=generator)
    return SceneTokens(queries, torch.zeros(batch, 8), torch.randn(batch, 17, 16, generator=generator))


def samples(head: VocabularyHead, batch: int = 3) -> list[PlanSample]:
    made = []
    for row, plan in enumerate(torch.from_numpy(plans(batch, seed=1)).float()):
        sample = PlanSample(metainfo={"token": f"scene{row}"})
        sample.gt = BaseDataElement(
            trajectory=plan,
            vocabulary_scores=torch.rand(SIZE, 6),
            vocabulary_id=torch.tensor(head.vocabulary.identity),
        )
        sample.negatives = BaseDataElement(plans=plan[None] + 1.0, valid=torch.tensor([True]))
        made.append(sample)
    return made


def logits(**values: list[float]) -> Tensor:
    """Logits (1, V, 6); sub-scores that are not given are sure to be 1."""
    count = len(next(iter(values.values())))
    return torch.stack([torch.tensor(values.get(name, [9.0] * count)) for name in METRICS], dim=-1)[None]


def test_metrics_are_the_first_columns_of_the_score() -> None:
    assert METRICS == SCORE_COLUMNS[:6] == ("NC", "DAC", "EP", "TTC", "C", "DDC")


def test_the_best_plans_come_first(head: VocabularyHead) -> None:
    output = head(tokens())
    assert output.proposals.shape == (3, 5, 8, 3) and output.scores.shape == (3, 5)
    assert (output.scores.diff(dim=1) <= 0).all()
    assert torch.equal(output.trajectory, output.proposals[:, 0])
    final = head.final_score(output.extras["imitation_logits"], output.extras["metric_logits"])
    assert torch.equal(head.vocabulary()[final.argmax(dim=1)], output.trajectory)


def test_final_score_is_the_weighted_sum_of_logarithms(head: VocabularyHead) -> None:
    imitation, metrics = torch.randn(2, SIZE).double(), torch.randn(2, SIZE, 6).double()
    s = dict(zip(METRICS, metrics.float().sigmoid().unbind(-1), strict=True))
    expected = 0.05 * imitation.float().softmax(-1).log()
    expected += 0.5 * (s["NC"] * s["DAC"] * s["DDC"]).log()
    expected += (5 * s["EP"] + 5 * s["TTC"] + 2 * s["C"]).log()
    torch.testing.assert_close(head.final_score(imitation, metrics), expected)


@pytest.mark.parametrize("name", ["NC", "DAC", "EP", "TTC", "DDC"])
def test_a_plan_that_fails_is_not_chosen(head: VocabularyHead, name: str) -> None:
    final = head.final_score(torch.tensor([[1.0, 0.0]]), logits(**{name: [-9.0, 9.0]}))
    assert final.argmax() == 1
    hopeless = head.final_score(torch.zeros(1, 2), torch.full((1, 2, 6), -1e4))
    assert hopeless.isfinite().all()


def test_weights_of_the_selection_are_settings() -> None:
    imitating = VocabularyHead(
        **SETTINGS, selection={"imitation": 1.0, "NC": 0.0, "DAC": 0.0, "DDC": 0.0, "weighted": 0.0}
    )
    final = imitating.final_score(torch.tensor([[1.0, 0.0]]), logits(NC=[-9.0, 9.0]))
    torch.testing.assert_close(final, torch.tensor([[1.0, 0.0]]).log_softmax(-1))
    for wrong in ({"TTC": 1.0}, {"NC": -1.0}, {"NC": float("nan")}):
        with pytest.raises(ValueError, match=r"selection: .* is no weight"):
            VocabularyHead(**SETTINGS, selection=wrong)
    with pytest.raises(ValueError, match="num_proposals must be 1 to 20, got 21"):
        VocabularyHead(**{**SETTINGS, "num_proposals": 21})


def test_scenes_do_not_see_each_other_and_plans_see_the_scene(head: VocabularyHead) -> None:
    head.eval()
    both = tokens(2)
    imitation, metrics = head.judge(both)
    alone = SceneTokens(both.queries[1:], both.status[1:], both.memory[1:])
    torch.testing.assert_close(head.judge(alone)[0], imitation[1:], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.judge(alone)[1], metrics[1:], rtol=1e-4, atol=1e-5)
    both.memory[1, 3] += 1
    assert not torch.allclose(head.judge(both)[0][1], imitation[1])
    assert torch.allclose(head.judge(both)[0][0], imitation[0])


def test_reading_layer_equals_attention_of_torch() -> None:
    torch.manual_seed(0)
    layer, theirs = ReadingLayer(8, 2, 16), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.query.weight, layer.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([layer.query.bias, layer.key_value.bias]))
        theirs.out_proj.load_state_dict(layer.proj.state_dict())
    x, memory = torch.randn(1, 5, 8), torch.randn(3, 4, 8)
    read, _ = theirs(x.expand(3, -1, -1), memory, memory)
    middle = layer.norm1(x + read)
    torch.testing.assert_close(layer(x, memory), layer.norm2(middle + layer.ffn(middle)))


def test_losses_are_least_at_their_targets(head: VocabularyHead) -> None:
    expert = head.vocabulary()[7][None]
    scores = torch.zeros(1, SIZE, 6)
    scores[:, ::2] = 1.0
    distances = (head.vocabulary() - expert).flatten(1).norm(dim=1)
    good = {"imitation_logits": -distances[None] * 50, "metric_logits": 40 * scores - 20}
    sample = samples(head, 1)
    sample[0].gt.update(BaseDataElement(trajectory=expert[0], vocabulary_scores=scores[0]))
    output = PlanOutput(expert, expert, extras=good)
    losses = head.loss(output, sample)
    assert set(losses) == {"loss_imitation", "loss_expectation"} | {f"loss_{n.lower()}" for n in METRICS}
    assert losses["loss_expectation"] < 1e-4
    assert all(losses[f"loss_{name.lower()}"] < 1e-4 for name in METRICS)
    bad = {key: -value for key, value in good.items()}
    worse = head.loss(PlanOutput(expert, expert, extras=bad), sample)
    assert all(worse[key] > losses[key] for key in losses)


def test_plans_a_few_centimetres_apart_are_told_apart() -> None:
    vocabulary = torch.from_numpy(plans(40)).float()
    vocabulary[..., 0] += 40.0
    vocabulary[1] = vocabulary[0]
    vocabulary[1, :, 1] += 0.004
    expert = vocabulary[:1].clone()
    expert[..., 1] += 0.001
    logits = torch.zeros(1, 40)
    logits[0, 1] = 5.0
    loss = VocabularyLoss(temperature=0.002)
    found = loss(vocabulary, expert, logits, torch.zeros(1, 40, 6), expert, torch.ones(1, 40, 6))
    # (headings are alike in these two, and all others are metres away)
    away = (vocabulary.double() - expert.double()).flatten(1).norm(dim=1) / 0.002
    wanted = -((-away).softmax(dim=0) * logits[0].double().log_softmax(dim=0)).sum()
    assert found["loss_imitation"].item() == pytest.approx(wanted.item(), rel=1e-2)


def test_only_the_head_of_a_sub_score_learns_it(head: VocabularyHead) -> None:
    losses = head.loss(head(tokens()), samples(head))
    head.zero_grad()
    losses["loss_ttc"].backward()
    assert head.metrics["TTC"][0].weight.grad.any()
    assert not any(head.metrics[name][0].weight.grad.any() for name in METRICS if name != "TTC")
    assert head.imitation[0].weight.grad is None


def test_a_plan_that_is_thought_impossible_is_pulled_to_its_share(head: VocabularyHead) -> None:
    expert, belief = head.vocabulary()[7][None], torch.zeros(1, SIZE)
    belief[0, 7] = -40.0  # a probability of 1e-18 or so, far below the floor of WoTE
    belief.requires_grad_()
    logits = {"imitation_logits": belief, "metric_logits": torch.zeros(1, SIZE, 6)}
    sample = samples(head, 1)
    sample[0].gt.trajectory = expert[0]
    head.loss(PlanOutput(expert, expert, extras=logits), sample)["loss_imitation"].backward()
    # What a cross-entropy must give: the probability minus the share that it is to have, which is nearly 1.
    assert belief.grad is not None
    assert belief.grad[0, 7].item() == pytest.approx(-1.0, abs=0.1)
    assert (belief.grad[0, :7] > 0).all() and (belief.grad[0, 8:] > 0).all()


def test_expected_plan_is_the_mean_under_the_softmax(head: VocabularyHead) -> None:
    belief = torch.full((1, SIZE), -1e4)
    belief[0, [2, 5]] = 0.0
    expected = head.supervised(PlanOutput(None, None, extras={"imitation_logits": belief}), [])
    two = head.vocabulary()[[2, 5]]
    torch.testing.assert_close(expected[0, :, :2], two[..., :2].mean(dim=0))
    torch.testing.assert_close(expected[0, :, 2], two[..., 2].mean(dim=0), atol=2e-2, rtol=0)


def test_headings_behind_are_averaged_on_the_circle() -> None:
    head = VocabularyHead(**{**SETTINGS, "size": 2, "num_proposals": 1})
    behind = torch.zeros(2, 8, 3)
    behind[0, :, 2], behind[1, :, 2] = torch.pi - 0.1, -torch.pi + 0.1
    head.vocabulary.plans.copy_(behind)
    expected = head.supervised(PlanOutput(None, None, extras={"imitation_logits": torch.zeros(1, 2)}), [])
    torch.testing.assert_close(expected[0, :, 2].abs(), torch.full((8,), torch.pi))


def test_repulsion_takes_belief_from_the_side_of_the_negative() -> None:
    repelled = RepulsiveHead(
        head={"type": "VocabularyHead", **SETTINGS, "size": 3, "num_proposals": 1},
        loss={"type": "RepulsiveDistanceLoss", "weight": 0.5},
    )
    head = repelled.bare
    assert isinstance(head, VocabularyHead) and repelled.attraction_weight == 1.0
    fan = torch.zeros(3, 8, 3)
    fan[:, :, 0] = torch.arange(1.0, 9)
    fan[:, :, 1] = torch.tensor([-2.0, 0.0, 2.0])[:, None]  # right, straight, left
    head.vocabulary.plans.copy_(fan)
    belief = torch.zeros(1, 3, requires_grad=True)
    sample = PlanSample(metainfo={"token": "scene"})
    identity = torch.tensor(head.vocabulary.identity)
    sample.gt = BaseDataElement(trajectory=fan[1], vocabulary_scores=torch.ones(3, 6), vocabulary_id=identity)
    sample.negatives = BaseDataElement(plans=fan[2:] * 0.5 + fan[1:2] * 0.5, valid=torch.tensor([True]))
    logits = {"imitation_logits": belief, "metric_logits": torch.zeros(1, 3, 6)}
    output = PlanOutput(fan[:1], fan[:1], extras=logits)
    repelled.loss(output, [sample])["loss_repulsive"].backward()
    right, straight, left = (-belief.grad[0]).tolist()  # the direction of a descent step
    assert right > 0 > left and abs(straight) < 1e-6
    assert repelled.modes(output, [sample]) is None


@pytest.mark.parametrize("more", [{}, {"reach": 2.0}, {"margin": 2.0, "margin_unit": "expert"}], ids=str)
def test_pull_and_push_take_headings_alike(more: dict[str, Any]) -> None:
    """A plan that turns round, its expert and its failure, 0.1 and 0.3 to its left across the cut at pi."""
    repelled = RepulsiveHead(
        head={"type": "VocabularyHead", **SETTINGS, "size": 2, "num_proposals": 1},
        loss={"type": "RepulsiveDistanceLoss", "weight": 0.5, **more},
    )
    head = repelled.bare
    assert isinstance(head, VocabularyHead)
    behind = torch.zeros(2, 8, 3)
    behind[..., 2] = torch.tensor([torch.pi - 0.05, torch.pi - 0.15])[:, None]
    head.vocabulary.plans.copy_(behind)
    belief = torch.zeros(1, 2, requires_grad=True)
    sample = samples(head, 1)[0]
    sample.gt.vocabulary_scores = torch.ones(2, 6)
    for plan, left in ((sample.gt.trajectory, 0.1), (sample.negatives.plans, 0.3)):
        plan.zero_()[..., 2] = -torch.pi - 0.1 + left
    logits = {"imitation_logits": belief, "metric_logits": torch.zeros(1, 2, 6)}
    losses = repelled.loss(PlanOutput(behind[:1], behind[:1], extras=logits), [sample])
    away = {"reach": 0.1 + 2.0 * 0.2, "margin": 0.3 - 2.0 * 0.2}.get(next(iter(more), ""), 0.3)
    torch.testing.assert_close(losses["loss_repulsive"], torch.tensor(-0.5 * away / 3), rtol=1e-4, atol=1e-6)
    (pull,) = torch.autograd.grad(losses["loss_expectation"], belief, retain_graph=True)
    (push,) = torch.autograd.grad(losses["loss_repulsive"], belief)
    assert pull[0, 0] < 0 < push[0, 0]  # the first plan is the one to the left


def test_scores_of_another_vocabulary_are_refused(head: VocabularyHead) -> None:
    output, targets = head(tokens()), samples(head)
    targets[2].gt.vocabulary_id = torch.tensor(5)
    with pytest.raises(VocabularyError, match=r"VocabularyHead: .*identity 5.*score-vocabulary"):
        head.loss(output, targets)
    with pytest.raises(PriorError, match="has no vocabulary of plans"):
        VocabularyHead(**SETTINGS)(tokens())


def test_other_plans_have_another_identity(head: VocabularyHead) -> None:
    before = head.vocabulary.identity
    state = {key: value.clone() for key, value in head.state_dict().items()}
    head.load_state_dict({**state, "vocabulary.plans": state["vocabulary.plans"] + 1.0})
    assert head.vocabulary.identity != before
    head.load_state_dict(state)
    assert head.vocabulary.identity == before


def test_bad_settings_of_losses_and_planner() -> None:
    with pytest.raises(ValueError, match=r"metric_weights: \['PDMS'\] are unknown"):
        VocabularyLoss(metric_weights={"PDMS": 1.0})
    with pytest.raises(ValueError, match="must be positive"):
        VocabularyLoss(temperature=0.0)
    small = {"latent": True, "image_size": (32, 32), "bev_size": (32, 32)}
    with pytest.raises(ValueError, match="must be a VocabularyHead"):
        VocabularyPlanner(trajectory_head={"type": "DeltaTrajectoryHead"}, backbone=small, decoder={})
