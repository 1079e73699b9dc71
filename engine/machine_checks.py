"""Is this machine fit: versions, linear algebra, processor, GPUs, and the devkit's interpreter."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from beyonddrive.engine import velocity_fit
from beyonddrive.engine.checks import Check
from beyonddrive.engine.environment import PACKAGES, blas, cpu, package_versions
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.version import __version__

PACKAGE = "beyonddrive"
BROKEN_NUMPY = SpecifierSet(">=1.23,<1.24")
"""Known to fit wrongly with some kernels, and rightly with others."""
FIXED_NUMPY = "1.26"
"""From this version on the fit is right with every kernel that is known."""
DEVKIT_SECONDS = 120
_OFFICIAL_FILES = ("agents/abstract_agent.py", "common/dataclasses.py")
"""Files of the NAVSIM devkit that another package called navsim does not have."""


class DevkitError(BeyondDriveError, RuntimeError):
    """The devkit's interpreter does not start, or has no numpy; the message names it and the remedy."""


# ------------------------------------------------------------------ versions
def version_checks() -> list[Check]:
    """Versions of what computes, against what this package asks for."""
    versions = {PACKAGE: __version__, **package_versions(PACKAGES)}
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    try:
        wanted = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return [Check("versions", "warn", f"{found}; {PACKAGE} is not installed", "run pip install -e .")]
    unmet = [text for text in map(_unmet, wanted) if text]
    if unmet:
        remedy = f"run pip install --upgrade {PACKAGE}, or install these"
        return [Check("versions", "fail", f"{found}; {'; '.join(unmet)}", remedy, {"versions": versions})]
    return [Check("versions", "ok", found, facts={"versions": versions})]


def _unmet(text: str) -> str:
    """What is wrong with one requirement, empty if nothing is; those of extras do not count."""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return ""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return ""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} is {version}, wanted {requirement.specifier}"


# ------------------------------------------------------------------ linear algebra
def blas_checks() -> list[Check]:
    """Which library multiplies matrices, by which kernel, and on what processor."""
    facts = cpu()
    features = " ".join(facts["features"]) or "none that is known"
    checks = [Check("cpu", "ok", f"{facts['model']}, {facts['cores']} cores; {features}", facts=facts)]
    libraries = blas()
    if not libraries:
        message = "numpy has loaded no library of linear algebra that is known"
        return [*checks, Check("blas", "warn", message, "look at numpy.show_config()")]
    for library in libraries:
        words = f"{library['library']} {library['version']}, kernel {library['kernel'] or 'unknown'}"
        checks.append(Check("blas", "ok", f"{words}, {library['threads']} threads", facts=library))
    return checks


def fit_checks() -> list[Check]:
    """Whether this interpreter fits speeds by least squares as it should."""
    return [_fit_check("speed fit", velocity_fit.interpreter_facts(), "this interpreter")]


def _fit_check(name: str, facts: dict[str, Any], where: str) -> Check:
    error = max(facts["error"].values())
    kernel = f", kernel {facts['blas_kernel']}" if facts["blas_kernel"] else ""
    what = f"numpy {facts['numpy']}{kernel}, Python {facts['python']}"
    if error <= velocity_fit.TOLERANCE:
        return Check(name, "ok", f"{what}: speeds to {error:.0e} m/s by least squares", facts=facts)
    off = "no numbers" if math.isinf(error) else f"speeds off by {error:.3g} m/s"
    remedy = f"install numpy >= {FIXED_NUMPY} there, and make its metric caches and scores anew"
    message = f"{what}: least squares give {off}; scores made by {where} are wrong"
    return Check(name, "fail", message, remedy, _finite(facts))


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts that JSON can hold: an infinite error as None."""
    errors = {key: value if math.isfinite(value) else None for key, value in facts["error"].items()}
    return {**facts, "error": errors}


def devkit_checks(python: Path) -> list[Check]:
    """Whether scores that another interpreter makes can be trusted, and which devkit it has.

    Raises:
        DevkitError: If the interpreter does not start, does not answer, or has no numpy.
    """
    facts = ask_interpreter(python)
    check = _fit_check("devkit", facts, str(python))
    if check.status == "ok" and Version(facts["numpy"]) in BROKEN_NUMPY:
        words = f"{python}: {check.message}, on this machine; with OpenBLAS's kernel Cooperlake it is wrong"
        remedy = f"install numpy >= {FIXED_NUMPY} there before scores are made on other machines"
        check = Check("devkit", "warn", words, remedy, facts)
    elif check.status == "ok":
        words = f"{python}: {check.message}; scores made there can be trusted"
        check = Check("devkit", "ok", words, facts=facts)
    place = facts["navsim"]
    return [check, _navsim_check("devkit navsim", Path(place) if place else None, str(python))]


def ask_interpreter(python: Path) -> dict[str, Any]:
    """Run :mod:`beyonddrive.engine.velocity_fit` by another interpreter.

    Returns:
        What it prints: versions, kernel, place of ``navsim``, errors of the fit.

    Raises:
        DevkitError: If the interpreter does not start, does not answer, or has no numpy.
    """
    remedy = "give the python of the devkit's environment, such as ~/miniconda3/envs/navsim/bin/python"
    # (without -I: the path of that environment, PYTHONPATH included, is what is asked about)
    command = [str(python), velocity_fit.__file__]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=DEVKIT_SECONDS, cwd=os.sep
        )
    except OSError as error:
        raise DevkitError(f"--devkit-python {python}: does not start ({error.strerror}); {remedy}") from error
    except subprocess.TimeoutExpired as error:
        raise DevkitError(f"--devkit-python {python}: no answer in {DEVKIT_SECONDS} s; {remedy}") from error
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    if "No module named 'numpy'" in last:
        raise DevkitError(f"--devkit-python {python}: has no numpy; {remedy}")
    try:
        facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        if done.returncode != 0 or not {"python", "numpy", "blas_kernel", "navsim", "error"} <= facts.keys():
            raise ValueError(done.stdout)
    except (ValueError, IndexError, AttributeError) as error:
        raise DevkitError(
            f"--devkit-python {python}: ended with {done.returncode} and said {last!r} instead of what was "
            f"asked; {remedy}"
        ) from error
    return facts


# ------------------------------------------------------------------ the package navsim
def navsim_checks() -> list[Check]:
    """Which package ``navsim`` this interpreter would import; it is looked for, not imported."""
    spec = importlib.util.find_spec("navsim")
    places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
    return [_navsim_check("navsim", Path(places[0]) if places and places[0] else None, "this interpreter")]


def _navsim_check(name: str, place: Path | None, where: str) -> Check:
    if place is None:
        message = f"{where} has no package navsim; only comparisons with the devkit need it"
        return Check(name, "ok", message, facts={"place": ""})
    facts = {"place": str(place)}
    if all((place / file).is_file() for file in _OFFICIAL_FILES):
        version = "v2" if (place / "traffic_agents_policies").is_dir() else "v1"
        return Check(
            name, "ok", f"the NAVSIM devkit, {version}, in {place}", facts={**facts, "devkit": version}
        )
    message = f"{place} is not the NAVSIM devkit: the package of that name on PyPI is another project"
    remedy = "pip uninstall navsim, then pip install -e the clone of the devkit"
    return Check(name, "warn", message, remedy, facts)


# ------------------------------------------------------------------ GPUs
def gpu_checks() -> list[Check]:
    """GPUs that torch sees, whether one computes, and NCCL."""
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        if Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists():
            message = f"a GPU is here, but torch {torch.__version__} (CUDA {built or 'none'}) does not see it"
            return [Check("gpu", "fail", message, "install the torch of this driver's CUDA version")]
        message = "none; training and evaluation run on the processor"
        return [Check("gpu", "ok", message, facts={"gpus": []})]
    checks = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        eye = torch.eye(64, device=f"cuda:{index}")
        computes = bool(torch.equal(eye @ eye, eye))
        memory = f"{free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        words = f"{index}: {torch.cuda.get_device_name(index)}, {memory}"
        checks.append(
            Check("gpu", "ok" if computes else "fail", words, "" if computes else "it computes wrong numbers")
        )
    if torch.distributed.is_available() and torch.distributed.is_nccl_available():
        version = ".".join(map(str, torch.cuda.nccl.version()))
        return [*checks, Check("nccl", "ok", version, facts={"version": version})]
    remedy = "install a torch with NCCL, or train with dist_cfg backend gloo"
    return [*checks, Check("nccl", "warn" if len(checks) < 2 else "fail", "torch has none", remedy)]
