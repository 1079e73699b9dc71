"""A zoo: a folder of released checkpoints, each named after the published config that it was trained by.

``beyonddrive make-zoo`` writes it, ``init_planner(config, "zoo")`` reads it::

    <zoo>/index.json            what each checkpoint is, with its checksum
    <zoo>/SHA256SUMS            the checksums once more, for ``sha256sum --check``
    <zoo>/<config>.safetensors  weights
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from beyonddrive.checkpoints.published_weights import check_sum
from beyonddrive.checkpoints.weight_files import SAFETENSORS, write_weights
from beyonddrive.engine.config_files import config_packages, package_folders
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.version import __version__

ZOO = "zoo"
"""The checkpoint that stands for the released one of a config, and the folder of a package that has them."""
INDEX = "index.json"
SUMS = "SHA256SUMS"
FORMAT_VERSION = 1
"""Of the index."""
MAX_MEGABYTES = 5.0
"""Most that a released checkpoint takes, so that a package can bring all of them."""
COMMAND = "beyonddrive make-zoo WORK_DIRS --out FOLDER"


class ZooError(BeyondDriveError, ValueError):
    """A zoo, or a checkpoint of it, is missing, damaged or of another kind; the message says what to do."""


@dataclass(frozen=True)
class ZooEntry:
    """What the index says of a checkpoint.

    Attributes:
        file: Its name, in the folder of the index.
        sha256: Its checksum.
        planner: Class of the planner.
        precision: ``float32``, or ``float16`` if its parameters were rounded; buffers (statistics of batch
            norms, anchors, vocabularies) never are.
        plan_difference: Largest difference of a plan [m, rad] that the rounding made, on made-up inputs.
        changes: Settings of the training that are not those of the published config.
        training: What is known of it: checkpoint, epoch, score, seed, commit, data.
    """

    file: str
    sha256: str
    planner: str
    precision: str
    plan_difference: float
    changes: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Released:
    """A checkpoint that goes into a zoo: name of its config, weights, and the rest of its entry."""

    name: str
    state: Mapping[str, Tensor]
    planner: str
    precision: str
    plan_difference: float
    changes: tuple[str, ...]
    training: Mapping[str, Any]


def in_half_precision(planner: nn.Module, name: str) -> dict[str, Tensor]:
    """Weights of a planner with its parameters in float16, and its buffers as they are.

    Raises:
        ZooError: If a parameter is beyond the range of float16.
    """
    # By storage: a head may save its parameters under other names than it has them under.
    learnt = {parameter.data_ptr() for parameter in planner.parameters()}
    state = dict(planner.state_dict())
    for key, value in state.items():
        if value.data_ptr() in learnt and value.dtype == torch.float32:
            state[key] = value.half()
            if not bool(torch.isfinite(state[key]).all()):
                raise ZooError(f"{name}: {key} is beyond the range of float16; release it without --half")
    return state


def write_zoo(folder: Path, released: Iterable[Released], max_megabytes: float = MAX_MEGABYTES) -> None:
    """Write a zoo, whole or not at all; the same weights give the same bytes.

    Args:
        folder: Where it goes; it must not be there.
        released: What goes in; names must differ.
        max_megabytes: Most that a file may take.

    Raises:
        ZooError: If the folder is there, or a file is larger.
    """
    if folder.exists():
        raise ZooError(f"{folder}: is there already; delete it, or give another folder")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        models = {}
        for item in released:
            path = partial / f"{item.name}{SAFETENSORS}"
            facts = {"planner": item.planner, "config": item.name, "precision": item.precision}
            write_weights(path, item.state, facts)
            if (megabytes := path.stat().st_size / 1e6) > max_megabytes:
                remedy = "" if item.precision == "float16" else "give --half, or "
                raise ZooError(
                    f"{item.name}: its checkpoint takes {megabytes:.1f} MB, more than {max_megabytes:g}; "
                    f"{remedy}raise --max-mb"
                )
            models[item.name] = ZooEntry(
                path.name,
                check_sum(path, ""),
                item.planner,
                item.precision,
                item.plan_difference,
                item.changes,
                item.training,
            )
        content = {"version": FORMAT_VERSION, "beyonddrive": __version__}
        entries = {name: asdict(entry) for name, entry in sorted(models.items())}
        (partial / INDEX).write_text(json.dumps({**content, "models": entries}, indent=1) + "\n")
        lines = [f"{entry.sha256}  {entry.file}\n" for _, entry in sorted(models.items())]
        (partial / SUMS).write_text("".join(lines))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_zoo(folder: str | Path) -> dict[str, ZooEntry]:
    """Entries of a zoo, by name of the config.

    Raises:
        ZooError: If there is none, or it is damaged or of a later version.
    """
    path = Path(folder) / INDEX
    try:
        content = json.loads(path.read_text())
        version = content["version"]
        if version != FORMAT_VERSION:
            writer = content.get("beyonddrive", "of another version")
            raise ZooError(
                f"{path}: is of version {version}, this release reads {FORMAT_VERSION}: install beyonddrive "
                f"{writer}, or make it anew: {COMMAND}"
            )
        entries = {str(name): ZooEntry(**values) for name, values in content["models"].items()}
        outside = [entry.file for entry in entries.values() if Path(entry.file).name != entry.file]
        if outside:
            raise ValueError(f"{outside[0]!r} is not in the folder")
    except FileNotFoundError:
        raise ZooError(f"{folder}: no zoo here ({INDEX} missing); make one: {COMMAND}") from None
    except ZooError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ZooError(f"{path}: is no index of a zoo ({error}); make it anew: {COMMAND}") from error
    return entries


def zoo_folders() -> list[Path]:
    """Where released checkpoints are installed: the folder ``zoo`` of this suite and of plugin packages."""
    places = [place for package in config_packages() for place in package_folders(package)]
    return [place / ZOO for place in places if (place / ZOO / INDEX).is_file()]


def find_released(name: str, zoo: str | Path | None = None) -> Path:
    """The checkpoint of a config, after a look at its checksum.

    Args:
        name: Bare name of the config.
        zoo: Folder of the zoo; by default those that are installed.

    Raises:
        ZooError: If none has it, or the zoo is damaged.
        PublishedError: If the file has another checksum.
        FileNotFoundError: If the index names a file that is gone.
    """
    folders = zoo_folders() if zoo is None else [Path(zoo)]
    known = {folder: read_zoo(folder) for folder in folders}
    for folder, entries in known.items():
        if name in entries:
            path = folder / entries[name].file
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path}: is gone, though {folder / INDEX} names it; get the zoo anew"
                )
            check_sum(path, entries[name].sha256)
            return path
    if not folders:
        here = " and ".join(str(place / ZOO) for place in package_folders("beyonddrive"))
        raise ZooError(
            f"{name}: no released checkpoints are installed ({here} is not there): give the folder that has "
            f"them (zoo=FOLDER), the checkpoint's own file, or make one: {COMMAND}"
        )
    has = ", ".join(sorted(other for entries in known.values() for other in entries)) or "nothing"
    raise ZooError(
        f"{name}: has no checkpoint in {', '.join(map(str, folders))}, where there is {has}: give the file "
        f"of one, or train it and make a zoo: {COMMAND}"
    )
