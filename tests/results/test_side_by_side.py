"""Rows of the plans that are trained side by side are what they are called, or are left out."""

import json
import re
import sys

import pytest
import torch
from mmengine.config import ConfigDict

from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.results.effect.side_by_side import train
from beyonddrive.results.effect.side_by_side.pack import sources_of

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
