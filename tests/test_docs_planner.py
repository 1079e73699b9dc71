"""``docs/add_a_planner.md`` as a reader follows it: its files are written out and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[1] / "docs" / "add_a_planner.md"
TRAIN = """
import sys
import torch
from mmengine.structures import BaseDataElement
from beyonddrive.apis import load_config
from beyonddrive.registry import DATASETS, MODELS
from beyonddrive.structures.sample import PlanSample

for config in sys.argv[1:]:
    config = load_config(config)
    DATASETS.build({**config.train_dataloader.dataset, "lazy_init": True, "scene_filter": None})
    planner = MODELS.build(config.model).train()
    optimizer = torch.optim.AdamW(planner.parameters(), lr=1e-3)
    inputs = {"camera": torch.rand(3, 3, 64, 256), "status": torch.rand(3, 8)}
    samples = [PlanSample(metainfo={"token": str(row)}) for row in range(3)]
    for sample in samples:
        sample.gt = BaseDataElement(trajectory=torch.rand(8, 3).cumsum(0))
        sample.negatives = BaseDataElement(plans=torch.rand(1, 8, 3), valid=torch.tensor([True]))
    totals = []
    for _ in range(5):
        terms = planner(inputs, samples, mode="loss")
        total, _ = planner.parse_losses(terms)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    print(type(planner).__name__, totals[-1] < totals[0], "loss_repulsive" in terms)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the guide, each named by the comment in its first line."""
    root = tmp_path_factory.mktemp("my_work")
    blocks = re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    for name, text in blocks:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    (root / "train_it.py").write_text(TRAIN)
    return root


def run(folder, *args):
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_tree_of_the_guide_is_what_its_blocks_write(folder):
    tree = re.search(r"```\nmy_work/\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    written = {path.name for path in folder.rglob("*.py")} - {"train_it.py"}
    assert set(re.findall(r"(\S+\.py)", tree)) == written


def test_the_example_prints_what_the_guide_says(folder):
    expected = re.search(r"```text\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    done = run(folder, "try_it.py")
    assert done.stdout == expected
    assert "GlancePlanner has its initial weights" in done.stderr


def test_both_configs_of_the_guide_train(folder):
    configs = ["configs/glance_1xb16-12e_synth.py", "configs/glance-beyonddrive_1xb16-12e_synth.py"]
    done = run(folder, "train_it.py", *configs)
    assert done.stdout.splitlines() == ["GlancePlanner True False", "GlancePlanner True True"]
