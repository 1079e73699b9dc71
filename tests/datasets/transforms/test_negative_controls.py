"""Controls take the place of negatives at the same distance, in the same samples."""

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.datasets.stores.negative_pool import PoolError, open_writer
from beyonddrive.datasets.stores.selection import squared_distance
from beyonddrive.datasets.stores.selectors import NearestNegatives, PassingPlans
from beyonddrive.datasets.transforms.negative_controls import PerturbedNegatives
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.generators.expert_noise_hook import ExpertNoiseError, ExpertNoiseHook
from beyonddrive.structures.perturbation import perturbed
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.scene_random import SEED_KEY
from beyonddrive.tests.datasets.small_pools import EXPERT, describe, record

CURVE = np.stack([np.arange(1.0, 9.0), 0.05 * np.arange(1.0, 9.0) ** 2, np.linspace(0.1, 0.7, 8)], axis=-1)


@pytest.mark.parametrize("plan", [np.zeros((8, 3)), EXPERT, CURVE])
@pytest.mark.parametrize("direction", [(1.0, 0.0), (0.0, -2.0), (-0.3, 0.4)])
def test_a_perturbed_plan_is_as_far_as_asked(plan, direction):
    moved = perturbed(plan, 2.25, direction)
    assert squared_distance(moved, plan) == pytest.approx(2.25)
    steps = np.linalg.norm(moved[:, :2] - plan[:, :2], axis=-1)
    assert (np.diff(steps) > 0).all()  # it leaves the plan smoothly
    np.testing.assert_array_equal(perturbed(plan, 0.0, direction), plan)


def test_a_perturbation_without_direction_is_refused():
    with pytest.raises(ValueError, match="out of range"):
        perturbed(EXPERT, 1.0, (0.0, 0.0))


@pytest.fixture
def pool(tmp_path):
    """Three scenes: two with failures, whose experts differ by 10 m, and one without."""
    records = {"a": record([0.0, 1.0, 1.0], [3, 2, 0.5]), "b": record([0.1, 0.2, 1.0], [-2, 5, 1])}
    records["b"]["expert"] = EXPERT + np.float32([10.0, 0.0, 0.0])
    records["b"]["plans"][..., 0] += 10.0
    records["c"] = record([1.0, 1.0, 1.0], [1, 2, 3])
    writer = open_writer(tmp_path / "pool", describe(), "a test")
    writer.write("shard-00000", records)
    return tmp_path / "pool"


def load(pool, token, expert=EXPERT, **settings):
    return LoadNegatives(pool, allow_partial=True, **settings)({"token": token, "trajectory": expert})


def test_passing_plans_stand_where_negatives_would_and_about_as_far(pool):
    found = load(pool, "a", selection={"type": "PassingPlans"})
    assert found["negative_valid"].tolist() == [True]
    np.testing.assert_array_equal(
        found["negative_plans"][0, :, 1], np.full(8, 2.0)
    )  # nearest to 3 m, not 0.5
    assert found["negative_scores"][0, 6] == 1.0
    assert not load(pool, "c", selection={"type": "PassingPlans"})["negative_valid"].any()


def test_passing_plans_of_scenes_in_which_all_fail_and_of_many_scenes():
    plans = np.zeros((2, 3, 8, 3))
    plans[..., 1] = np.array([[1.0, 2.0, 3.0], [1.0, 0.2, 0.9]])[..., None]
    scores = np.ones((2, 3, 7))
    scores[0, :, 6] = scores[1, 0, 6] = 0.0
    expert = np.zeros((2, 8, 3))
    chosen = PassingPlans()(plans, scores, expert)
    assert chosen.valid.tolist() == [[False], [True]] and chosen.indices[1].tolist() == [2]
    assert NearestNegatives()(plans, scores, expert).valid.tolist() == [[True], [True]]


def test_perturbed_negatives_keep_the_distance_and_the_samples(pool):
    transform = PerturbedNegatives(seed=3)
    before, after = load(pool, "a"), transform(load(pool, "a"))
    sizes = [squared_distance(each["negative_plans"][0], EXPERT) for each in (before, after)]
    assert sizes[1] == pytest.approx(sizes[0], rel=1e-5)
    assert np.abs(before["negative_plans"] - after["negative_plans"]).max() > 0.1
    assert after["negative_valid"].tolist() == before["negative_valid"].tolist()
    assert np.isinf(after["negative_times"]).all()
    again = transform(load(pool, "a"))
    np.testing.assert_array_equal(again["negative_plans"], after["negative_plans"])  # the same in every epoch
    other = PerturbedNegatives(seed=4)(load(pool, "a"))
    assert np.abs(other["negative_plans"] - after["negative_plans"]).max() > 0.01
    assert not transform(load(pool, "c"))["negative_plans"].any()
    with pytest.raises(KeyError, match="no negatives to replace"):
        transform({"token": "a", "trajectory": EXPERT})


def test_another_scene_lends_its_negative_or_its_offset(pool):
    experts = {"a": EXPERT, "b": EXPERT + np.float32([10.0, 0.0, 0.0]), "c": EXPERT}
    own = {token: load(pool, token, expert)["negative_plans"][0] for token, expert in experts.items()}
    lent = {token: load(pool, token, e, scene="another")["negative_plans"][0] for token, e in experts.items()}
    moved = {token: load(pool, token, e, scene="offset")["negative_plans"][0] for token, e in experts.items()}
    lender = {}
    for token in experts:
        (lender[token],) = [name for name in experts if np.array_equal(lent[token], own[name])]
        offset = own[lender[token]] - experts[lender[token]]
        if own[lender[token]].any():
            np.testing.assert_allclose(moved[token], experts[token] + offset, atol=1e-5)
    assert sorted(lender.values()) == ["a", "b", "c"] and all(name != other for name, other in lender.items())


def test_a_lent_offset_is_near_its_expert_also_behind_half_a_turn(tmp_path):
    experts = {"a": EXPERT + np.float32([0.0, 0.0, 3.1]), "b": EXPERT}
    records = {token: record([0.0], [1.0]) for token in experts}
    for token, expert in experts.items():
        records[token]["expert"] = expert
        records[token]["plans"][0] = expert + np.float32([0.0, 1.0, 0.1])
    records["a"]["plans"][0, :, 2] -= np.float32(2 * np.pi)  # (3.2, as a plan has it)
    writer = open_writer(tmp_path / "pool", describe(num_scenes=2), "a test")
    writer.write("shard-00000", records)
    for token, expert in experts.items():
        lent = load(tmp_path / "pool", token, expert, scene="offset")["negative_plans"][0]
        np.testing.assert_allclose(lent - expert, np.tile([0.0, 1.0, 0.1], (8, 1)), atol=1e-5)


def test_lending_needs_a_pool():
    with pytest.raises(ValueError, match="scene='another' is for a pool"):
        LoadNegatives(online=True, scene="another")
    with pytest.raises(ValueError, match="must be 'own'"):
        LoadNegatives("pool", scene="theirs")


@pytest.mark.parametrize("scene", ["another", "offset"])
def test_a_pool_of_one_scene_has_no_other_to_lend(tmp_path, scene):
    open_writer(tmp_path / "one", describe(num_scenes=1), "a test").write(
        "shard-00000", {"a": record([0.0, 1.0], [3, 2])}
    )
    with pytest.raises(PoolError, match=f"one: scene='{scene}' .* needs another scene.*the pool has a alone"):
        load(tmp_path / "one", "a", scene=scene)
    assert load(tmp_path / "one", "a")["negative_valid"].all()


def test_negatives_need_an_expert_to_be_chosen_by(pool):
    with pytest.raises(ValueError, match=r"scene a has no expert plan \(trajectory\).*PlanTarget"):
        LoadNegatives(pool, allow_partial=True)({"token": "a"})


def noisy(seed, valid=True, offset=(0.0, 2.0, 0.0), **settings):
    plan = EXPERT + np.float32(offset)
    sample = PlanSample(metainfo={"token": "a", SEED_KEY: seed})
    sample.gt = BaseDataElement(trajectory=torch.from_numpy(EXPERT.copy()))
    sample.negatives = BaseDataElement(plans=torch.from_numpy(plan[None]), valid=torch.tensor([valid]))
    ExpertNoiseHook(**settings).disturb(sample)
    return sample


def test_the_expert_moves_as_far_as_the_negative_and_nothing_is_repelled():
    sample = noisy(1)
    assert squared_distance(sample.gt.trajectory.numpy(), EXPERT) == pytest.approx(4.0, rel=1e-5)
    assert not sample.negatives.valid.any()
    assert torch.equal(noisy(1).gt.trajectory, sample.gt.trajectory)
    assert not torch.equal(noisy(2).gt.trajectory, sample.gt.trajectory)
    assert torch.equal(noisy(1, valid=False).gt.trajectory, torch.from_numpy(EXPERT))


def test_noise_measures_as_the_selection_does():
    turned = (0.0, 2.0, 2 * np.pi)  # a turn and none, but for the published code
    for distance, size in (("wrapped", 4.0), ("reference", 4.0 + (2 * np.pi) ** 2)):
        plan = noisy(1, offset=turned, distance=distance).gt.trajectory.numpy()
        assert squared_distance(plan, EXPERT, "reference") == pytest.approx(size, rel=1e-4)
    with pytest.raises(ValueError, match="distance: 'near' is unknown, choose one of"):
        ExpertNoiseHook(distance="near")


def test_noise_needs_negatives_and_a_seed():
    sample = PlanSample(metainfo={"token": "a"})
    with pytest.raises(ExpertNoiseError, match="scene a has no negatives"):
        ExpertNoiseHook().disturb(sample)
    with pytest.raises(ValueError, match="share must be positive"):
        ExpertNoiseHook(share=0.0)
