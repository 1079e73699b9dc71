"""What numbers were made with: versions, processor, linear algebra, GPUs; in short beside every result."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import threadpoolctl

from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.digests import sha256_of
from beyonddrive.version import __version__

PACKAGES = ("numpy", "scipy", "numba", "shapely", "pyogrio", "pyproj", "torch", "mmengine")
"""Packages whose versions can change a number."""
CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_bf16")
"""Instruction sets that libraries choose their kernels by."""


def utc_day(seconds: float | None = None) -> str:
    """The day (UTC) of a time since the epoch [s]; today's by default.

    >>> utc_day(86400.0)
    '1970-01-02'
    """
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


MADE_WITH = ".made_with.json"
"""Added to the name of a result file: the file beside it that says what it was made with."""


def environment() -> dict[str, Any]:
    """The facts in short, as JSON values.

    Returns:
        ``beyonddrive``, ``python`` and ``packages`` (versions; a package that is not installed is left out),
        ``platform``, ``cpu`` (model, cores of this process, features), ``blas`` (of each library that is
        loaded: name, version, kernel, threads) and ``gpus`` (names; empty where torch is not loaded). Nothing
        is imported for it.
    """
    return {
        "beyonddrive": __version__,
        "python": platform.python_version(),
        "packages": package_versions(),
        "platform": platform.platform(),
        "cpu": cpu(),
        "blas": blas(),
        "gpus": gpus(),
    }


def write_made_with(path: Path) -> Path:
    """Write :func:`environment` beside a result file, with the checksum of the result that it is about.

    Not into it: tables and archives of numbers stay what their readers expect, and the same numbers give the
    same bytes on every machine.

    Args:
        path: The result, which is there already.

    Returns:
        The file that was written.

    Raises:
        OSError: If the result cannot be read or the file not be written.
    """
    facts = {"file": path.name, "sha256": sha256_of(path), **environment()}
    beside = path.with_name(path.name + MADE_WITH)
    write_atomically(beside, (json.dumps(facts, indent=1) + "\n").encode(), sync=False)
    return beside


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that this package runs from, and whether tracked files differ from it.

    Returns:
        ``commit`` and ``changed``; None if the package was installed, or git is not.
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # (an installed package may lie below a repository of somebody else)
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": changed}


def _git(root: Path, *arguments: str) -> str:
    # (git refuses a checkout of another user, such as one that a container has mounted, unless it is named)
    command = ["git", "-C", str(root), "-c", "safe.directory=*", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of packages by name, without importing them; those that are not installed are left out."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def _processor() -> tuple[str, tuple[str, ...]]:
    """Model and features of the first core; the kind of machine where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    entries: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            entries.setdefault(key.strip(), value.strip())
    flags = set(entries.get("flags", "").split())
    return entries.get("model name", platform.machine()), tuple(f for f in CPU_FEATURES if f in flags)


def cpu() -> dict[str, Any]:
    """Model of the processor, cores that this process may use, and instruction sets."""
    model, features = _processor()
    return {"model": model, "cores": len(os.sched_getaffinity(0)), "features": list(features)}


def blas() -> list[dict[str, Any]]:
    """Libraries of linear algebra that this process has loaded: name, version, kernel, threads."""
    return [
        {
            "library": info["internal_api"],
            "version": info.get("version") or "",
            "kernel": info.get("architecture") or "",
            "threads": info["num_threads"],
        }
        for info in threadpoolctl.threadpool_info()
        if info["user_api"] == "blas"
    ]


def gpus() -> list[str]:
    """Names of the GPUs that torch sees; empty if torch is not loaded, since loading it takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
