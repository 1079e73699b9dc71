"""Published checkpoints: where they are, what they scored, and how to fetch them from a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.structures.digests import sha256_of
from beyonddrive.structures.errors import BeyondDriveError

METAFILE = "metafile.yml"
"""In the folder of a planner's configs."""
NAVTEST = "NAVSIM navtest"
"""Data set of the figures that :mod:`beyonddrive.tools.reproduce` compares with."""


class PublishedError(BeyondDriveError, ValueError):
    """A published checkpoint is not known, cannot be fetched, or is another file; the message says which."""


@dataclass(frozen=True)
class PublishedRow:
    """A model of a metafile with published figures.

    Attributes:
        name: Name of the release.
        config: Config that it is evaluated with: its bare name, or a path.
        metrics: Published figures, as printed.
        repo: Repository on the hub; empty if no address is known.
        file: File in it.
        revision: Commit or branch.
        sha256: Checksum; empty if none is known.
    """

    name: str
    config: str
    metrics: Mapping[str, float]
    repo: str = ""
    file: str = ""
    revision: str = "main"
    sha256: str = ""


def read_metafile(path: Path) -> dict[str, PublishedRow]:
    """Models of a metafile, in OpenMMLab's form, that have published figures on navtest, by name.

    Raises:
        PublishedError: If it cannot be read, or an entry lacks a key.
    """
    try:
        values: Any = yaml.safe_load(path.read_text())
        rows = {}
        for entry in values["Models"]:
            name, config = str(entry["Name"]), str(entry["Config"])
            figures = [r["Metrics"] for r in entry.get("Results") or () if r["Dataset"] == NAVTEST]
            if not figures:
                continue
            weights = entry.get("Weights") or {}
            rows[name] = PublishedRow(
                name,
                Path(config).stem if config.startswith("configs/") else config,
                {str(key): float(value) for key, value in figures[0].items()},
                str(weights.get("Repo", "")),
                str(weights.get("File", "")),
                str(weights.get("Revision", "main")),
                str(weights.get("SHA256", "")),
            )
        return rows
    except KeyError as error:
        raise PublishedError(f"{path}: an entry lacks the key {error}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, AttributeError, ValueError) as error:
        raise PublishedError(f"{path}: is no metafile ({error})") from error


def fetch(row: PublishedRow, endpoint: str | None = None) -> Path:
    """Download a checkpoint, once, into the hub's own cache.

    Args:
        row: What is wanted.
        endpoint: Address of the hub; that of huggingface_hub's settings by default.

    Raises:
        ImportError: If huggingface_hub is not installed.
        PublishedError: If no address is known, or it cannot be fetched.
    """
    if not row.repo:
        raise PublishedError(
            f"{row.name}: no address of its checkpoint is known; ask its authors and give --checkpoint"
        )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ImportError("fetching needs huggingface_hub: pip install huggingface_hub") from error
    try:
        return Path(hf_hub_download(row.repo, row.file, revision=row.revision, endpoint=endpoint))
    except Exception as error:  # whatever the hub and the network raise
        raise PublishedError(
            f"{row.repo}/{row.file}: cannot be fetched ({' '.join(str(error).split())}); get it another way "
            f"and give --checkpoint FILE"
        ) from error


def check_sum(path: Path, wanted: str) -> str:
    """The SHA-256 of a file.

    Raises:
        PublishedError: If it is not the one that is wanted; an empty one is not compared.
    """
    found = sha256_of(path)
    if wanted and found != wanted.lower():
        raise PublishedError(
            f"{path}: has the checksum {found}, the published file has {wanted}: it is damaged "
            f"or another file"
        )
    return found
