"""Training and validation do not depend on how a batch is split over processes.

Every planner makes one step, some are trained, in one process and in two that share the batch. Batch norms
use their running statistics, as those of a batch belong to a rank; nothing is dropped at random.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from beyonddrive.engine.mmengine_compat import load_checkpoint_file
from beyonddrive.tests.split_ranks import COUNTED, RANKS, RESUMED, TRAININGS, planner_names, run_all, run_rank

GOLDEN_LOGS = Path(__file__).parent / "data/golden/pdms/data"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Folders of what one process, and what two ranks found: 9 scenes in ``train``, 3 in ``val``."""
    root = tmp_path_factory.mktemp("data")
    for index, log in enumerate(sorted((GOLDEN_LOGS / "navsim_logs/golden").glob("*.pkl"))):
        target = root / "navsim_logs" / ("train" if index < 9 else "val")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(log, target)
    (root / "maps").symlink_to(GOLDEN_LOGS / "maps")
    alone, split = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("split")
    threads = torch.get_num_threads()
    try:
        run_all(alone, root)  # first, so that kernels are compiled once
    finally:
        torch.set_num_threads(threads)
    mp.spawn(run_rank, (split, root, alone), nprocs=RANKS)
    return alone, split


@pytest.mark.parametrize("name", planner_names())
def test_loss_figures_and_gradients_of_a_step(results, name):
    whole, parts = (torch.load(folder / f"{name}.step") for folder in results)
    assert whole["figures"].keys() == parts["figures"].keys()
    for key, value in whole["figures"].items():
        assert parts["figures"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    assert whole["gradients"].keys() == parts["gradients"].keys()
    size = max(gradient.abs().max() for gradient in whole["gradients"].values())
    for key, gradient in whole["gradients"].items():
        worst = (parts["gradients"][key] - gradient).abs().max()
        assert worst <= 1e-4 * gradient.abs().max() + 1e-6 * size, key
    if name.endswith(("repulsive", "beyonddrive")):
        assert whole["figures"]["loss_repulsive"] < 0


def test_rank_local_means_of_the_release(results):
    """There the rank without negatives halves what repels those of the other."""
    whole, parts = (torch.load(folder / "own_rank.step")["figures"] for folder in results)
    assert whole == torch.load(results[0] / f"{COUNTED}.step")["figures"]
    assert parts["loss_repulsive"] == pytest.approx(whole["loss_repulsive"] / 2, rel=1e-4)
    assert parts["negative_share"] == whole["negative_share"] == 0.5


@pytest.mark.parametrize("name", TRAININGS)
def test_weights_losses_and_validation_after_two_epochs(results, name):
    whole, parts = (load_checkpoint_file(folder / name / "epoch_2.pth") for folder in results)
    first = load_checkpoint_file(results[0] / name / "epoch_1.pth")["state_dict"]
    moved = 0.0
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][key], value, rtol=1e-4, atol=1e-6, msg=key)
        moved = max(moved, float((value - first[key]).abs().max()))
    assert moved > 1e-4
    (rows, losses), (split_rows, split_losses) = (
        torch.load(folder / name / "table_0.pt", weights_only=False) for folder in results
    )
    np.testing.assert_allclose(split_losses, losses, rtol=1e-4)
    assert len(losses) == 4  # nine scenes, four a step, two epochs
    assert [row[0] for row in split_rows] == [row[0] for row in rows]
    assert len(rows) == 3
    for (_, values, oracle), (_, split_values, split_oracle) in zip(rows, split_rows, strict=True):
        np.testing.assert_allclose(split_values, values, atol=1e-4)
        np.testing.assert_allclose(split_oracle, oracle, atol=1e-4)


def test_a_training_may_go_on_in_another_number_of_processes(results):
    alone, split = results
    whole, parts = (
        load_checkpoint_file(folder / "epoch_2.pth") for folder in (alone / RESUMED, split / "resumed")
    )
    for key, value in whole["state_dict"].items():
        torch.testing.assert_close(parts["state_dict"][key], value, rtol=1e-4, atol=1e-6, msg=key)
    (log,) = (split / "resumed").glob("*/*.log")
    assert "processes 1 before, 2 now" in log.read_text()
    assert "Every step keeps its scenes, noise and losses" in log.read_text()


@pytest.mark.parametrize("name", TRAININGS)
def test_every_rank_has_the_same_table_and_figures(results, name):
    tables = [torch.load(results[1] / name / f"table_{rank}.pt", weights_only=False) for rank in range(RANKS)]
    (rows, losses), (other_rows, other_losses) = tables
    np.testing.assert_array_equal(losses, other_losses)
    for row, other in zip(rows, other_rows, strict=True):
        assert row[0] == other[0]
        np.testing.assert_array_equal(np.append(*row[1:]), np.append(*other[1:]))


def test_running_statistics_are_those_of_all_ranks(results):
    """In validation and in what is saved, also of a moving average of the weights."""
    folder = results[1] / "norms"
    ends, vals = (
        [torch.load(folder / f"{when}_{rank}.buffers") for rank in range(RANKS)] for when in ("epoch", "val")
    )
    statistics = [key for key in ends[0] if key.endswith(("running_mean", "running_var"))]
    assert any(key.startswith("ema.") for key in statistics)
    apart = [key for key in statistics if not torch.equal(ends[0][key], ends[1][key])]
    assert len(apart) > len(statistics) / 2  # (the others come before anything that a scene changes)
    for key, value in vals[0].items():
        assert torch.equal(value, vals[1][key]), key
        if key in statistics:
            torch.testing.assert_close(value, (ends[0][key] + ends[1][key]) / 2)
    (best,) = folder.glob("best_*.pth")
    saved = load_checkpoint_file(folder / "step.pth")["state_dict"]
    steps = [torch.load(folder / f"step_{rank}.buffers") for rank in range(RANKS)]
    for key in statistics:
        if not key.startswith("ema."):
            torch.testing.assert_close(saved[key], (steps[0][key] + steps[1][key]) / 2)
    for path in (folder / "epoch_1.pth", best):
        saved = load_checkpoint_file(path)
        for key in statistics:
            state = saved["ema_state_dict" if key.startswith("ema.") else "state_dict"]
            assert torch.equal(state[key.removeprefix("ema.")], vals[0][key]), (path.name, key)
