"""Runs of a sweep as processes: which GPU each of them gets."""

from contextlib import ExitStack

import pytest

from beyonddrive.engine.sweeps import work
from beyonddrive.engine.sweeps.runs import Run


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "0", "1"]),
        ("2,3", ["2", "3", "2", "3"]),
        ("GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"] * 2),
    ],
)
def test_runs_share_the_gpus_that_the_sweep_was_given(tmp_path, monkeypatch, visible, expected):
    """A sweep that is to use GPUs 2 and 3 must not put its trainings on 0 and 1."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    seen = []
    monkeypatch.setattr(
        work.subprocess, "run", lambda command, env, **_: seen.append(env["CUDA_VISIBLE_DEVICES"])
    )
    with ExitStack() as held:
        for seed in range(4):
            folder = tmp_path / "runs" / "row" / f"seed{seed}"
            run = Run("row", seed, "c.py", {}, folder, "r", True, ("test",), "last", gpus=2, jobs_per_gpu=2)
            work._call(run, held.enter_context(work._gpu(run)), ["train"])
    assert seen == expected
