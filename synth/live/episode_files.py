"""The files of one episode, as HUGSIM leaves them, and what is kept of one that failed.

::

    data.pkl, ground.ply, scene.ply     its record, and what HUGSIM's scorer wants to know of the scene
    video.webp                          if it was wanted
    episode.json                        how it went; written last, so it says that the episode is complete
    failed.json                         in place of these: it failed, and why; the next run makes it again
    failed.pkl                          its record up to there, by a name that no scorer takes for an episode
"""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.closed_loop.hugsim.messages import write_message
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.evaluation.closed_loop.hugsim.run_files import GROUND, RECORD, SCENE
from beyonddrive.structures.digests import digest_of_bytes
from beyonddrive.structures.errors import describe_error
from beyonddrive.synth.live.drive import LiveSettings, Outcome
from beyonddrive.synth.live.points import Points
from beyonddrive.synth.live.scenario import POINTS

EPISODE, VIDEO = "episode.json", "video.webp"
FAILED, FAILED_RECORD = "failed.json", "failed.pkl"
Film = Callable[[Outcome, Path, Path], None]
"""Writes a video of an outcome, whose town is in one folder, to another."""


@dataclass(frozen=True)
class Job:
    """One scenario with one seed of the traffic.

    Attributes:
        scenario: Its file.
        towns: Folder of the towns.
        seed: Of the traffic.
        folder: Of its results.
        settings: How it is driven.
        town: Name of its town.
    """

    scenario: Path
    towns: Path
    seed: int
    folder: Path
    settings: LiveSettings
    town: str

    @property
    def label(self) -> str:
        """Seed and scenario."""
        return f"seed {self.seed}: {self.scenario.name}"


@dataclass(frozen=True)
class Failed:
    """A job that gave no episode, and why.

    Attributes:
        name: Seed and scenario.
        reason: Why.
        record: Its frames up to the failure; None if there are none.
    """

    name: str
    reason: str
    record: Path | None = None


_EVERY_EPISODE = frozenset({"name", "difficulty", "ends", "steps", "scores", "driver"})
"""Keys of an episode's file, of every version."""


def read_episode(folder: Path) -> dict[str, Any] | None:
    """How an episode went; None if it is not complete, or its file is not as it was written."""
    try:
        found = json.loads((folder / EPISODE).read_text())
    except (OSError, ValueError):
        return None
    told = found if isinstance(found, dict) else {}
    return told if told.keys() >= _EVERY_EPISODE else None


def write_outcome(job: Job, outcome: Outcome, film: Film | None = None) -> dict[str, Any]:
    """Write an episode to its folder, and return how it went."""
    data = write_record(job, outcome.frames)
    for name, points in ((GROUND, outcome.ground), (SCENE, outcome.solid)):
        _write_points(job, name, points)
    if film is not None:
        film(outcome, job.towns, job.folder)
    forget_failure(job.folder)
    episode = {**describe(outcome), "seed": job.seed, "record": digest_of_bytes(data)}
    write_atomically(job.folder / EPISODE, json.dumps(episode, indent=1).encode())
    return episode


def write_record(job: Job, frames: Sequence[Frame], name: str = RECORD) -> bytes:
    """Write a record to its folder by a name, and return it."""
    data = _record(frames)
    write_atomically(job.folder / name, data, sync=False)
    return data


def record_digest(frames: Sequence[Frame]) -> str:
    """Digest of a record, which ``episode.json`` has of its own."""
    return digest_of_bytes(_record(frames))


def _record(frames: Sequence[Frame]) -> bytes:
    return write_message([{"type": "closeloop", "frames": [frame.to_dict() for frame in frames]}])


def keep_failure(job: Job, frames: Sequence[Frame], reason: str) -> Failed:
    """Write what there is of an episode that failed or was broken off. Raises nothing."""
    name = job.label
    try:
        forget_failure(job.folder)
        # (there already if what failed came after the drive)
        for path in (job.folder / RECORD, job.folder / VIDEO):
            path.unlink(missing_ok=True)
        about = {"name": job.folder.name, "seed": job.seed, "reason": reason, "steps": len(frames)}
        write_atomically(job.folder / FAILED, json.dumps(about, indent=1).encode())
        if frames:
            write_record(job, frames, FAILED_RECORD)
    except Exception as error:  # (such as a full disk)
        return Failed(name, f"{reason}; then its record was not kept: {describe_error(error)}")
    return Failed(name, reason, job.folder / FAILED_RECORD if frames else None)


def forget_failure(folder: Path) -> None:
    """Remove what is kept of an episode that failed."""
    # (the reason last: a record of a failure never stands without it)
    for name in (FAILED_RECORD, FAILED):
        (folder / name).unlink(missing_ok=True)


def _write_points(job: Job, name: str, points: Points) -> None:
    """Write points to the folder of a job; runs share those beside the scenarios.

    Unless these are others, as where somebody has changed a scenario since they were written.
    """
    target, shared = job.folder / name, job.towns.parent / POINTS / job.folder.name / name
    content = _ply(points)
    if not shared.exists() or shared.read_bytes() != content:
        write_atomically(target, content, sync=False)
        return
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(shared)
    except OSError:  # (another file system, or one without links)
        shutil.copyfile(shared, target)


def write_points(path: Path, points: Points) -> None:
    """Write points (n, 3) as a ply file."""
    write_atomically(path, _ply(points), sync=False)


def _ply(points: Points) -> bytes:
    from plyfile import PlyData, PlyElement

    rows = np.asarray(np.rec.fromarrays(points.T, dtype=[(axis, "<f4") for axis in "xyz"]))
    file = io.BytesIO()
    PlyData([PlyElement.describe(rows, "vertex")]).write(file)
    return file.getvalue()


def describe(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    losses = Counter(_reason(text) for frame in outcome.score.frames for text in frame.losses)
    return {
        "name": outcome.scenario.name,
        "difficulty": outcome.scenario.hugsim.difficulty,
        "town": outcome.scenario.town,
        "ends": list(outcome.ends),
        "steps": len(outcome.frames),
        "kilometres": outcome.kilometres,
        "collided": outcome.collided,
        "scores": outcome.score.means,
        "unscored": outcome.score.unscored,
        "losses": dict(losses),
        "driver": outcome.report.to_dict(),
        "seconds": {name: round(value, 3) for name, value in outcome.seconds.items()},
    }


def _reason(loss: str) -> str:
    """Why something was lost, without when and by how much.

    >>> _reason("0.5 s from a collision with 189 points of the scene at +1.5 s")
    '0.5 s from a collision with points of the scene'
    >>> _reason("acceleration of 2.51 is beyond -4.05 to 2.4")
    'acceleration'
    """
    when_or_how_much = r" at \+.*| of \S+ is beyond .*|\b\d+ (?=points of the scene)"
    return re.sub(when_or_how_much, "", loss)
