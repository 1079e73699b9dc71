"""``docs/add_a_planner.md`` as a reader follows it: its files are written out and run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.structures.sample import PlanSample

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
    blocks = re.findall(r"```(?:python|toml)\n# (\S+\.\w+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 6
    for name, text in blocks:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def site(folder, tmp_path_factory):
    """Folder in which the package of the guide is installed, and nothing else."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    site, source = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("source") / "my_work"
    shutil.copytree(folder, source)  # for a build leaves its folders in it
    command = [*pip, "--no-build-isolation", "--no-deps", "--target", str(site), str(source)]
    subprocess.run(command, check=True)
    return site


def run(site, folder, *args):
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_tree_of_the_guide_is_what_its_blocks_write(folder):
    tree = re.search(r"```\nmy_work/\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    written = {path.name for path in folder.rglob("*") if path.is_file()}
    assert set(re.findall(r"(\S+\.\w+)", tree)) == written


def test_the_example_prints_what_the_guide_says(folder, site, tmp_path):
    expected = re.search(r"```text\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    done = run(site, tmp_path, folder / "try_it.py")
    assert done.stdout == expected
    assert "GlancePlanner has its initial weights" in done.stderr


def test_both_configs_of_the_guide_train(site, tmp_path):
    configs = ["glance_1xb16-12e_synth", "my_planners::glance-beyonddrive_1xb16-12e_synth.py"]
    done = run(site, tmp_path, "-c", TRAIN, *configs)
    assert done.stdout.splitlines() == ["GlancePlanner True False", "GlancePlanner True True"]


def test_the_verbs_know_the_planner_of_the_guide(site, tmp_path):
    printed = run(site, tmp_path, "-m", "beyonddrive", "list", "planners", "configs", "plugins").stdout
    assert re.search(r"GlancePlanner +Camera and ego status -> one token -> a plan. \[my_planners\]", printed)
    assert "  my_planners::glance_1xb16-12e_synth.py" in printed
    assert "  my_planners  my-planners 1.0: my_planners\n" in printed


def test_without_a_package_a_config_imports_the_planner(folder, tmp_path):
    configs = folder / "my_planners" / "configs"
    config = tmp_path / "glance.py"
    config.write_text(
        f"_base_ = '{configs}/glance_1xb16-12e_synth.py'\ncustom_imports = dict(imports=['my_planners'])\n"
    )
    assert run(folder, tmp_path, "-c", TRAIN, config).stdout == "GlancePlanner True False\n"


def test_the_loss_of_the_guide_adds_a_term_to_those_of_the_head():
    block = re.search(r"```python\n(def loss\(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
    names = {}
    exec(block, names)
    planner = EgoStatusMLP(hidden=8, repulsion={"weight": 0.5})
    samples = [PlanSample(metainfo={"token": str(row)}) for row in range(2)]
    for row, sample in enumerate(samples):
        sample.gt = BaseDataElement(trajectory=torch.full((8, 3), float(row)))
        sample.negatives = BaseDataElement(plans=torch.ones(1, 8, 3), valid=torch.tensor([True]))
    inputs = {"status": torch.rand(2, 8)}
    terms, plain = names["loss"](planner, inputs, samples), planner.loss(inputs, samples)
    assert "loss_repulsive" in plain and terms.keys() - plain.keys() == {"loss_smooth"}
    assert all(torch.equal(terms[name], plain[name]) for name in plain)
    speeds = planner.plan(inputs).trajectory[..., :2].diff(dim=1)
    torch.testing.assert_close(terms["loss_smooth"], 0.1 * speeds.diff(dim=1).abs().mean())
    assert terms["loss_smooth"].item() > 0
