"""The wheel as users install it: every module is in it and can be imported, and so is every config."""

import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beyonddrive

ROOT = Path(beyonddrive.__path__[0])


def _modules() -> list[str]:
    found = []
    for module in pkgutil.walk_packages([str(ROOT)], "beyonddrive."):
        if module.name.split(".")[1] not in ("tests", "docs", "benchmarks", "results", "setup", "build"):
            found.append(module.name)
    return found


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
        f"for name in {[m for m in _modules() if not m.endswith('__main__')]!r}:\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    configs = sorted(p.relative_to(ROOT) for p in (ROOT / "configs").rglob("*.py"))
    missing = [str(p) for p in configs if not (site / "beyonddrive" / p).exists()]
    assert not missing, f"configs that the wheel lacks: {missing}"
