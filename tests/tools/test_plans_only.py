"""Plans for a private test: logs that end now, without annotations and maps, through every planner."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

import beyonddrive
from beyonddrive.datasets.navsim.scene import HISTORY
from beyonddrive.datasets.navsim.sensors import write_pcd
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.engine.runner import build_test_runner, evaluate, load_config
from beyonddrive.evaluation.plan_files import PlanFile
from beyonddrive.evaluation.plan_writer import plan_only
from beyonddrive.tools import test as tool

REPOSITORY = Path(beyonddrive.__path__[0])
LOGS = REPOSITORY / "tests/data/golden/pdms/data/navsim_logs/golden"
CONFIGS = sorted(
    path.stem
    for path in (REPOSITORY / "configs").glob("*/*synth.py")
    if "-" not in path.stem.replace("1xb16-12e", "") and path.parent.name not in ("human", "pdm_closed")
)
"""One per planner that needs the sensors and the ego status only."""
SPLIT = "private"


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with three logs of four frames, and the sensor files of their last frames."""
    root = tmp_path_factory.mktemp("private")
    rng = np.random.default_rng(0)
    for path in sorted(LOGS.glob("*.pkl"))[:3]:
        frames = pickle.loads(path.read_bytes())[:HISTORY]
        for frame in frames:
            del frame["anns"]
        (root / "navsim_logs" / SPLIT).mkdir(parents=True, exist_ok=True)
        (root / "navsim_logs" / SPLIT / path.name).write_bytes(pickle.dumps(frames))
        blobs, now = root / "sensor_blobs" / SPLIT, frames[-1]
        for name in ("CAM_L0", "CAM_F0", "CAM_R0"):
            image = blobs / now["cams"][name]["data_path"]
            image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), rng.integers(0, 256, (54, 96, 3), dtype=np.uint8))
        points = rng.normal(0, 10, (6, 500)).astype(np.float32)
        points[4:] = 0
        write_pcd(blobs / now["lidar_path"], points)
    return root


def tokens_of(root: Path) -> list[str]:
    logs = sorted((root / "navsim_logs" / SPLIT).glob("*.pkl"))
    return sorted(pickle.loads(path.read_bytes())[HISTORY - 1]["token"] for path in logs)


def options(root: Path) -> dict[str, Any]:
    return {
        "data_root": str(root),
        "test_dataloader.dataset.split": SPLIT,
        "test_dataloader.dataset.scene_filter": None,
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_every_planner_plans_without_a_future(name: str, private: Path, tmp_path: Path) -> None:
    if "pillars" in name:
        pytest.importorskip("mmdet3d")
    (path,) = (REPOSITORY / "configs").glob(f"*/{name}.py")
    config = load_config(path, options(private))
    plan_only(config, tmp_path / "plans.npz")
    runner = build_test_runner(config, work_dir=str(tmp_path / "work"))
    for buffer in runner.model.buffers():
        if not bool(torch.isfinite(buffer).all()):  # anchors that a checkpoint brings
            buffer.copy_(torch.rand_like(buffer))
    metrics, failures = evaluate(runner)[:2]
    assert metrics == {"plans/num_scenes": 3.0, "plans/num_failed": 0.0} and not failures
    with np.load(tmp_path / "plans.npz") as written:
        plans = dict(written)
    assert sorted(plans) == sorted(PlanFile(tmp_path / "plans.npz")) == tokens_of(private)
    for plan in plans.values():
        assert plan.shape == (1, 8, 3) and plan.dtype == np.float32 and np.isfinite(plan).all()


def test_the_plans_are_those_of_the_same_scenes_with_a_future(
    private: Path, tmp_path: Path, blind_recipe: Path, split_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [str(blind_recipe), "none", "--plans-only", "--cfg-options"]
    torch.manual_seed(0)
    model = build_test_runner(load_config(blind_recipe), work_dir=str(tmp_path / "w")).model
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    arguments[1] = str(tmp_path / "weights.pth")
    whole = [f"data_root={split_root}", "test_dataloader.dataset.split=train"]
    ended = [f"{key}={value}" for key, value in options(private).items()]
    for name, chosen in (("whole.npz", whole), ("ended.npz", ended)):
        assert tool.main([*arguments, *chosen, "--plans", name]) == 0
    longer, plans = PlanFile(tmp_path / "whole.npz"), PlanFile(tmp_path / "ended.npz")
    assert set(plans) <= set(longer) and len(plans) == 3
    for token in plans:
        # (batches of other sizes may be summed up in another order)
        np.testing.assert_allclose(plans[token], longer[token], rtol=0, atol=1e-6)


def test_what_cannot_be_planned_for_is_said(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = str(REPOSITORY / "configs/human/human_synth.py")
    chosen = ["--cfg-options", *(f"{key}={value}" for key, value in options(private).items())]
    assert tool.main([config, "--plans-only", "--plans", "plans.npz", *chosen]) != 0
    error = capsys.readouterr().err
    assert "none of 3 scenes could be planned for" in error and "it replays what is there" in error
    (tmp_path / "taken").write_text("")
    assert tool.main([config, "--plans-only", "--plans", "taken/plans.npz", *chosen]) != 0
    assert "--plans taken/plans.npz: cannot be written" in capsys.readouterr().err
    lost = tmp_path / "lost"
    shutil.copytree(private, lost)
    (log := min((lost / "navsim_logs" / SPLIT).glob("*.pkl"))).write_bytes(log.read_bytes()[:1000])
    config = str(REPOSITORY / "configs/constant_velocity/constant_velocity_synth.py")
    chosen = ["--cfg-options", *(f"{key}={value}" for key, value in options(lost).items())]
    assert tool.main([config, "--plans-only", "--plans", "plans.npz", *chosen]) == 1
    output = capsys.readouterr()
    assert "plans.npz: 2 plans, 1 scenes failed" in output.out and log.stem in output.err
    for wrong, reason in (
        (["--plans-only"], "--plans-only: needs --plans"),
        (["--plans-only", "--plans", "p.npz", "--out", "o.csv"], "--out"),
    ):
        with pytest.raises(SystemExit):
            tool.main([config, *wrong])
        assert reason in capsys.readouterr().err


def test_a_scene_without_annotations_is_refused_where_they_are_needed(private: Path) -> None:
    settings = load_config(REPOSITORY / "configs/ltf/ltf_tiny_1xb16-12e_synth.py").test_dataloader.dataset
    settings = {**settings, "data_root": private, "split": SPLIT, "scene_filter": None, "cache_dir": None}
    settings.pop("type")
    with pytest.raises(DatasetError, match="no scenes"):
        NavsimDataset(**settings)
    settings["scene_filter"] = {"num_future_frames": 0}
    targets = [{"type": "EgoStatus"}, {"type": "AgentTargets"}]
    with pytest.raises(DatasetError, match=r"frame 3 has no annotations \(anns\).*can be planned for"):
        NavsimDataset(**{**settings, "feature_pipeline": targets})[0]
    with pytest.raises(DatasetError, match="an expert plan needs 8"):
        NavsimDataset(**{**settings, "feature_pipeline": [{"type": "EgoStatus"}, {"type": "PlanTarget"}]})[0]
    dataset = NavsimDataset(**settings, inputs_only=True)
    batch = pseudo_collate([dataset[0], dataset[1]])
    assert set(batch["inputs"]) == {"camera", "status"} and "_gt" not in batch["data_samples"][0]
    with pytest.raises(DatasetError, match="inputs_only=True reads logs and sensor files; leave cache_dir"):
        NavsimDataset(**{**settings, "cache_dir": "cache"}, inputs_only=True)
