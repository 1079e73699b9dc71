"""The package as users install it: every module is shipped, importable, and imports no more than it may."""

import ast
import configparser
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beyonddrive

ROOT = Path(beyonddrive.__path__[0])
# Folders of the checkout that are not part of the package.
NOT_SHIPPED = {"tests", "docs", "benchmarks"}


def _packages() -> list[str]:
    found = ["beyonddrive"]
    for init in sorted(ROOT.rglob("__init__.py")):
        parts = init.parent.relative_to(ROOT).parts
        if (
            parts
            and parts[0] not in NOT_SHIPPED
            and not any(p.startswith(".") or p == "build" for p in parts)
        ):
            found.append(".".join(["beyonddrive", *parts]))
    return found


def _modules() -> list[str]:
    names = []
    for package in _packages():
        folder = ROOT.joinpath(*package.split(".")[1:])
        names += [f"{package}.{m.name}" for m in pkgutil.iter_modules([str(folder)]) if not m.ispkg]
    return names


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    assert listed == sorted(listed)
    assert set(listed) == set(_packages()) | {"beyonddrive.configs"}


@pytest.mark.slow
def test_the_wheel_imports_everywhere(tmp_path):
    """Build the wheel, unpack it elsewhere, and import each module of it there."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # From a copy, for a build leaves its folders in the source tree.
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "data", "work_dirs", "*.egg-info")
    )
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(wheel, check=True, cwd=tmp_path)
    site = tmp_path / "site"
    built = next(tmp_path.glob("beyonddrive-*.whl"))
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(built)], check=True)
    script = (
        "import importlib, pathlib, sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import beyonddrive\n"
        f"assert pathlib.Path(beyonddrive.__file__).is_relative_to({str(site)!r}), beyonddrive.__file__\n"
        f"for name in {_modules()!r}:\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    configs = sorted(p.relative_to(ROOT) for p in (ROOT / "configs").rglob("*.py"))
    missing = [str(p) for p in configs if not (site / "beyonddrive" / p).exists()]
    assert not missing, f"configs that the wheel lacks: {missing}"


#: Modules that data workers and other codebases use without a deep-learning framework.
LIGHT = (
    "beyonddrive.evaluation.pdm",
    "beyonddrive.datasets.navsim_root",
    "beyonddrive.datasets.sensors",
    "beyonddrive.datasets.shards",
    "beyonddrive.engine.executors",
    "beyonddrive.structures.plan",
)


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_neither_torch_nor_mmengine(module):
    script = f"import sys, {module}\nsys.exit(bool({{'torch', 'mmengine'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# Who may import whom: a room may use the rooms listed and itself. tools may use everything.
STRUCTURES = {"structures", "engine", "registry", "version"}
ALLOWED = {
    "registry": set(),
    "structures": set(),
    "engine": {"registry", "structures", "version"},
    "losses": STRUCTURES,
    "backbones": STRUCTURES,
    "heads": STRUCTURES | {"losses"},
    "plugins": STRUCTURES | {"losses", "backbones", "heads"},
    "datasets": STRUCTURES,
    "evaluation": STRUCTURES | {"datasets"},
    "generators": STRUCTURES | {"datasets", "evaluation"},
    "visualization": STRUCTURES | {"datasets", "evaluation"},
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("beyonddrive.")}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_the_rooms_below(room):
    files = sorted((ROOT / room).rglob("*.py")) if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
    wrong = {
        f"{path.relative_to(ROOT)} -> {other}"
        for path in files
        for other in _imports(path) - ALLOWED[room] - {room}
    }
    assert not wrong


def test_no_environment_variable_is_an_interface():
    """Settings live in configs and arguments (torchrun's own variables are mmengine's business)."""
    readers = []
    for module in _modules():
        path = ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
        if "configs" not in path.parts and "os.environ[" in path.read_text().replace(
            "os.environ.get(", "os.environ["
        ):
            readers.append(module)
    assert not [m for m in readers if not m.startswith("beyonddrive.engine.")], os.linesep.join(readers)
