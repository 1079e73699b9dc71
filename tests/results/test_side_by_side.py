"""Rows of the plans that are trained side by side are what they are called, or are left out."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict

from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.results.effect.side_by_side import score, train
from beyonddrive.results.effect.side_by_side.pack import claim, sources_of

HIDE = {"type": "HideStatus", "parts": ["acceleration"]}
PACK = {"type": "PackPlanInputs"}


def settings(kind="NavsimDataset", steps=()):
    return ConfigDict(type=kind, split="train", pipeline=[*steps, PACK])


@pytest.fixture
def scenes():
    """Two of them, as the packed training split has them."""
    random = torch.Generator().manual_seed(0)
    shapes = {"inputs.status": (8,), "gt.trajectory": (8, 3), "inputs.camera": (3, 2, 2)}
    fields = {key: torch.rand(2, *shape, generator=random) for key, shape in shapes.items()}
    return SceneTensors(("a", "b"), fields)


def test_a_plain_row_is_made_of_what_is_packed(scenes, tmp_path):
    found = sources_of(settings(), {"inputs.lidar"}, "plain", scenes, scenes, tmp_path)
    assert found == dict.fromkeys(scenes.fields, "train")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (settings("ShuffledInputsDataset"), "ShuffledInputsDataset"),
        (settings(steps=[{"type": "ViewAugmentation"}]), "ViewAugmentation: draws anew"),
        (settings(steps=[HIDE]), r"inputs\.status"),
    ],
    ids=["images of other scenes", "moved views", "without acceleration"],
)
def test_a_row_with_samples_of_its_own_is_refused(given, said, scenes, tmp_path):
    with pytest.raises(TogetherError, match=f"{said}.*beyonddrive (train|sweep)"):
        sources_of(given, set(), "own", scenes, scenes, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--part", "3/3"], "--part 3/3: write PART/PARTS"),
        (["--part", "abc"], "--part abc: write PART/PARTS"),
        (["--rows", "no such"], "none of 1 recipes of .*; they are LTF"),
    ],
)
def test_a_part_without_recipes_is_refused(words, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "rows.json").write_text(json.dumps({"r": {"name": "LTF", "config": "", "fields": {}}}))
    monkeypatch.setattr(sys, "argv", ["train.py", str(tmp_path), str(tmp_path / "out"), *words])
    with pytest.raises(SystemExit, match="2"):
        train.main()
    assert re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.glob("out/runs-*"))


def write_part(folder, part, *runs, tokens=("a", "b")):
    told = {
        "rows": {"r": {"name": "LTF", "plan": "planners"}},
        "runs": [{"recipe": "r", "seed": seed, "losses": [value]} for seed, value in runs],
        "tokens": {"test": list(tokens)},
    }
    (folder / f"runs-{part}.json").write_text(json.dumps(told))
    plans = {f"r/{seed}/test": np.full((2, 8, 3), value, np.int32) for seed, value in runs}
    np.savez(folder / f"plans-{part}-0.npz", **plans)


def test_parts_of_one_training_are_read_together(tmp_path):
    write_part(tmp_path, 0, (0, 1000))
    write_part(tmp_path, 1, (1, 2000))
    told, plans = score.read_trained(tmp_path)
    assert [run["seed"] for run in told["runs"]] == [0, 1]
    assert {key: value.mean() for key, value in plans.items()} == {"r/0/test": 1.0, "r/1/test": 2.0}


def test_what_an_earlier_training_left_is_not_scored_in_the_place_of_a_later_one(tmp_path):
    with pytest.raises(SystemExit, match="holds no run"):
        score.read_trained(tmp_path)
    write_part(tmp_path, 1, (0, 1000))  # (of an earlier one in two parts)
    write_part(tmp_path, 0, (0, 2000))
    with pytest.raises(SystemExit, match=r"runs-1.json: has LTF, seed 0, as .*runs-0.json has; delete"):
        score.read_trained(tmp_path)
    write_part(tmp_path, 1, (1, 1000), tokens=("a", "c"))
    with pytest.raises(SystemExit, match=r"runs-1.json: was judged on other scenes than .*runs-0.json"):
        score.read_trained(tmp_path)


def test_scenes_of_another_world_are_not_packed_with_those_that_are_there(tmp_path):
    world, other, out = (tmp_path / name for name in ("world", "other", "out"))
    for folder in (world, other, out):
        folder.mkdir()
        (folder / "synth.json").write_text(json.dumps({"world": folder.name}))
    claim(out, world)
    (out / "train.safetensors").touch()
    claim(out, world)
    with pytest.raises(SystemExit, match=r"out: has scenes of another world than .*other; name another"):
        claim(out, other)
    (out / "made_from.json").unlink()
    with pytest.raises(SystemExit, match="has scenes of another world"):
        claim(out, world)
