"""What a report is made of besides scores: pictures with their index, coverage figures and times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.visualization.tables import parse_named

INDEX = "index.json"
"""File in a folder of pictures that says what they show."""


class ReportError(BeyondDriveError, ValueError):
    """Something that a report should show is missing or damaged; the message names file and remedy."""


@dataclass(frozen=True)
class ScenePicture:
    """One picture of one planner in one scene."""

    token: str
    log_name: str
    planner: str
    path: Path


def read_picture_index(folder: Path) -> list[ScenePicture]:
    """Pictures of a folder that ``beyonddrive visualize`` wrote.

    Raises:
        ReportError: If the folder has no index, or it is damaged.
    """
    path = Path(folder) / INDEX
    try:
        entries = json.loads(path.read_text())["pictures"]
        return [
            ScenePicture(str(e["token"]), str(e["log"]), str(e["planner"]), path.parent / str(e["file"]))
            for e in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path}: no index of pictures ({type(error).__name__}: {error}); beyonddrive visualize "
            "draws them"
        ) from error


def write_picture_index(
    folder: Path,
    pictures: Sequence[ScenePicture],
    made_from: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
) -> None:
    """Say what the pictures of a folder show, for :func:`read_picture_index`.

    Args:
        folder: The folder.
        pictures: What they show.
        made_from: What they are made from, as JSON values.
        files: Names of pictures that are made from it wherever they are there, those of earlier jobs too.
    """
    entries = [
        {"token": p.token, "log": p.log_name, "planner": p.planner, "file": p.path.name} for p in pictures
    ]
    content = {
        "pictures": entries,
        **({} if made_from is None else {"made_from": made_from, "files": list(files)}),
    }
    write_atomically(Path(folder) / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def read_coverage(path: Path) -> dict[str, Any]:
    """Figures of a negative pool, as its ``coverage.json`` holds them.

    Raises:
        ReportError: If the file is missing or holds something else.
    """
    try:
        values = json.loads(Path(path).read_text())
        if "num_proposals" not in values:
            raise KeyError("num_proposals")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path}: not a coverage report ({type(error).__name__}: {error}); beyonddrive mine "
            f"writes coverage.json to the folder of the pool"
        ) from error
    return dict(values)


def parse_times(arguments: Sequence[str]) -> dict[str, float]:
    """Seconds by stage from ``STAGE=SECONDS`` arguments.

    Raises:
        ReportError: If a time is no number of seconds.
    """
    times: dict[str, float] = {}
    for stage, text in parse_named(arguments, "--time"):
        try:
            times[stage] = float(text)
        except ValueError:
            times[stage] = float("nan")
        if not 0.0 <= times[stage] < float("inf"):
            raise ReportError(f"--time {stage}={text}: wanted seconds, for example 'train LTF=183.2'")
    return times
