"""Plugins: a package with an entry point in the group is registered by being installed."""

import json
import os
import subprocess
import sys

import pytest

PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
PYPROJECT = """
[build-system]
requires = ["setuptools>=77.0.3,<81"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "1.0"

[project.entry-points."beyonddrive.plugins"]
{point} = "{module}"

[tool.setuptools.package-data]
"*" = ["configs/*.py"]
[tool.setuptools.packages.find]
include = ["{package}*"]
"""
PLANNERS = '''
from beyonddrive.heads.trajectory import AbsoluteTrajectoryHead
from beyonddrive.losses.imitation import PlanL1Loss
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import MODELS

@MODELS.register_module()
class TheirPlanner(EgoStatusMLP):
    """Plans as they do."""

@MODELS.register_module()
class TheirHead(AbsoluteTrajectoryHead):
    """Points where they drive."""

@MODELS.register_module()
class TheirLoss(PlanL1Loss):
    """Counts what they lose."""
'''
CONFIG = """
# How they train.
_base_ = "beyonddrive::ego_mlp/ego_mlp_1xb16-12e_synth.py"
model = dict(type="TheirPlanner", trajectory_head=dict(type="TheirHead", loss=dict(type="TheirLoss")))
"""
TAKES_OUR_NAME = """
from beyonddrive.registry import HOOKS

@HOOKS.register_module()
class EpochSeedHook:
    pass
"""
LOOK = """
import json, sys
from beyonddrive import registry
found = {"before": "their_planners" in sys.modules, "hook": registry.HOOKS.get("EpochSeedHook").__module__}
from beyonddrive.apis import init_planner, load_config
planner = init_planner("their_config")
found["planner"] = [type(planner).__module__, type(planner.trajectory_head).__name__]
found["same"] = load_config("their_planners::their_config.py").model == load_config("their_config").model
found["problems"] = registry.import_plugins()
print(json.dumps(found))
"""


def build(folder, name, module, files):
    """Write a package with one entry point, and return its wheel."""
    source = folder / name
    for path, text in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    settings = {"name": name, "point": name.split("-")[0], "module": module, "package": module.split(".")[0]}
    (source / "pyproject.toml").write_text(PYPROJECT.format(**settings))
    wheels = folder / "wheels"
    subprocess.run(
        [*PIP, "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(wheels), str(source)],
        check=True,
    )
    return next(wheels.glob(f"{name.replace('-', '_')}-*.whl"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder with three plugins: a whole one, one that raises, and one that takes a name of ours."""
    folder = tmp_path_factory.mktemp("plugins")
    whole = {
        "their_planners/__init__.py": "",
        "their_planners/planner.py": PLANNERS,
        "their_planners/configs/their_config.py": CONFIG,
    }
    wheels = [
        build(folder, "their-planners", "their_planners.planner", whole),
        build(folder, "broken-planners", "broken_planners", {"broken_planners/__init__.py": "import absent"}),
        build(folder, "rude-hooks", "rude_hooks", {"rude_hooks/__init__.py": TAKES_OUR_NAME}),
    ]  # fmt: skip
    site = folder / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), *map(str, wheels)], check=True)
    return site


def run(site, folder, *args):
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_plugin_is_registered_and_a_broken_one_is_skipped(site, tmp_path):
    done = run(site, tmp_path, "-c", LOOK)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not found["before"]
    assert found["planner"] == ["their_planners.planner", "TheirHead"] and found["same"]
    assert found["hook"] == "beyonddrive.engine.hooks.seed"
    assert sorted(found["problems"]) == ["broken", "rude"]
    told = [line for line in done.stderr.splitlines() if line.startswith("plugin ")]
    assert told[0].startswith(
        "plugin 'broken' of package broken-planners is skipped, its import fails: ModuleNotFoundError: "
    )
    assert "plugin 'rude'" in told[1] and "EpochSeedHook is already registered" in told[1]
    assert len(told) == 2 and "Traceback" not in done.stderr
