"""The wheel as users install it: whole, importable, and one command that works in an empty folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import beyonddrive
from beyonddrive import cli
from beyonddrive.apis import load_config
from beyonddrive.registry import MODELS
from beyonddrive.version import __version__

ROOT = Path(beyonddrive.__path__[0])
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
OUTSIDE = ("tests", "docs", "benchmarks", "results", "setup.py", "build", "data", "work_dirs")
PLUGIN = {
    "their_planners/__init__.py": "",
    "their_planners/configs/human_synth.py": "_base_ = 'beyonddrive::human/human_synth.py'",
    "their_planners-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: their-planners\nVersion: 1.0\n",
    "their_planners-1.0.dist-info/entry_points.txt": "[beyonddrive.plugins]\ntheir = their_planners\n",
}
IN_ONE_PROCESS = """
import contextlib, io, json, sys
from beyonddrive import cli

done = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(words)
        except SystemExit as end:
            code = end.code
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
"""
EXTRAS = ("sumo", "ray", "onnx", "onnxscript", "onnxruntime", "mmcv", "mmdet3d")
pytestmark = pytest.mark.slow


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder into which the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy, for a build leaves its folders in the source tree.
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "data", "work_dirs", "*.egg-info")
    )
    wheel = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(wheel, check=True, cwd=folder)
    built = next(folder.glob("beyonddrive-*.whl"))
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(folder / "site"), str(built)], check=True)
    return folder / "site"


@pytest.fixture
def python(site, tmp_path):
    """Runs Python with the wheel in an empty folder; more folders may come before it on the path."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*args, before=()):
        path = os.pathsep.join(map(str, [*before, site]))
        return subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def command(site, python):
    """Runs ``beyonddrive`` of the wheel."""
    return lambda *args, before=(): python(site / "bin" / "beyonddrive", *args, before=before)


@pytest.fixture
def commands(python):
    """Runs several commands in one process, which takes the time to import torch once."""

    def run(*commands, before=()):
        words = json.dumps([list(map(str, words)) for words in commands])
        done = python("-c", IN_ONE_PROCESS, words, before=before)
        assert done.returncode == 0, done.stderr
        return [subprocess.CompletedProcess(commands, *told) for told in json.loads(done.stdout)]

    return run


@pytest.fixture
def without_extras(tmp_path):
    """Folder of modules that hide the optional dependencies, as if they were not installed."""
    hidden = {f"{name}.py": f"raise ModuleNotFoundError(\"No module named '{name}'\")\n" for name in EXTRAS}
    return _write(tmp_path / "hidden", hidden)


def test_the_wheel_holds_every_module_and_config(site, tmp_path):
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    files = [f for f in files if not f.parts[0].startswith(".") and f.parts[0] not in OUTSIDE]
    code = [f for f in files if f.parts[0] != "configs" and f.name != "__main__.py"]
    names = [".".join(("beyonddrive", *f.with_suffix("").parts)).removesuffix(".__init__") for f in code]
    assert len(names) > 300
    script = (
        "import importlib, pathlib, sys\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        "import beyonddrive\n"
        f"assert pathlib.Path(beyonddrive.__file__).is_relative_to({str(site)!r}), beyonddrive.__file__\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    others = [path.relative_to(ROOT) for pattern in ("tools/*.sh", "*/*.j2") for path in ROOT.glob(pattern)]
    missing = [str(p) for p in [*files, *others] if not (site / "beyonddrive" / p).exists()]
    assert {path.suffix for path in others} == {".sh", ".j2"} and not missing, (
        f"files that the wheel lacks: {missing}"
    )


def test_the_wheel_holds_nothing_else_of_the_checkout(site):
    """Neither tests nor what makes the site, nor files of the root that only a checkout needs."""
    top = {path.name for path in (site / "beyonddrive").iterdir()}
    assert not top & {*OUTSIDE, "docker", "mkdocs.yml", "Makefile", "CHANGELOG.md", "CITATION.cff"}
    assert not list((site / "beyonddrive").rglob("*.ipynb"))


def test_every_verb_helps(command):
    assert command("--version").stdout == f"beyonddrive {__version__}\n"
    assert all(f"  {verb} " in command("--help").stdout for verb in cli.VERBS)
    for verb in cli.VERBS:
        done = command(verb, "--help")
        assert done.returncode == 0 and done.stdout.startswith(f"usage: beyonddrive {verb} "), done.stderr


def test_lists_and_configs_need_no_checkout(commands):
    listed, printed = commands(
        ["list", "planners", "configs", "releases"],
        ["print-config", "ltf_tiny_1xb16-12e_synth", "--cfg-options", "train_cfg.max_epochs=3"],
    )
    assert listed.returncode == 0, listed.stderr
    for name in ("TransFuserPlanner", "ltf_tiny_1xb16-12e_synth", "diffusiondrive"):
        assert f"  {name} " in listed.stdout
    assert printed.returncode == 0, printed.stderr
    assert "max_epochs=3" in printed.stdout and "'TransFuserPlanner'" in printed.stdout


def test_what_is_unknown_is_one_line(command, tmp_path):
    done = command("mien", "config.py")
    assert (done.returncode, done.stderr) == (2, "beyonddrive: no verb 'mien'; did you mean 'mine'?\n")
    done = command("train", "ltf_tinny_1xb16-12e_synth")
    wanted = "train: ltf_tinny_1xb16-12e_synth: no such config; did you mean ltf_tiny_1xb16-12e_synth"
    assert done.returncode == 1 and done.stderr.startswith(wanted) and done.stderr.count("\n") == 1
    plugin = _write(tmp_path / "plugin", PLUGIN)
    done = command("print-config", "human_synth", before=[plugin])
    wanted = (
        "print-config: human_synth: fits 2 configs, say which: beyonddrive::human/human_synth.py, "
        "their_planners::human_synth.py\n"
    )
    assert (done.returncode, done.stderr) == (1, wanted)
    (plugin / "their_planners" / "__init__.py").write_text("import absent")
    done = command("list", "plugins", before=[plugin])
    assert done.returncode == 0 and "BROKEN: ModuleNotFoundError: No module named 'absent'" in done.stdout
    assert done.stderr.startswith("plugin 'their' of package their-planners is skipped")
    assert done.stderr.count("\n") == 1


def test_missing_extras_are_one_line_with_the_remedy(commands, without_extras, tmp_path):
    planner = MODELS.build(load_config("ego_mlp_1xb64-50e_navtrain").model)
    torch.save({"state_dict": planner.state_dict(), "meta": {}}, tmp_path / "a.pth")
    (tmp_path / "logs").mkdir()
    score = ["score", "--data-root", tmp_path, "--split", "s", "--plans", "p.npz", "--out", "o.npz", "--ray"]
    wanted = {
        "synth": ["create-data", "synth", "--out", tmp_path / "world", "--num-scenes", 3],
        "ray": score,
        "export": ["export", "ego_mlp_1xb64-50e_navtrain", tmp_path / "a.pth", tmp_path / "a.onnx"],
        "mmdet3d": ["flops", "transfuser-pillars_tiny_1xb16-12e_synth"],
    }
    told = commands(*wanted.values(), before=[without_extras])
    for (extra, words), done in zip(wanted.items(), told, strict=True):
        lines = [line for line in done.stderr.splitlines() if line.startswith(f"{words[0]}: ")]
        assert done.returncode in (1, 2) and "Traceback" not in done.stderr, done.stderr
        assert len(lines) == 1 and f"pip install 'beyonddrive[{extra}]'" in lines[0], done.stderr
