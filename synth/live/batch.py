"""Many scenarios: driven in processes, one folder each, resumed where a run was killed.

::

    <out>/settings.json                 what the run was made with; another run is refused
    <out>/seed_<k>/<scene>_<mode>/      one episode, as HUGSIM leaves it: data.pkl, ground.ply, scene.ply
    <out>/seed_<k>/.../video.webp       if it was wanted
    <out>/seed_<k>/.../episode.json     how it went; written last, so it says that the episode is complete
    <out>/seed_<k>/.../failed.json      in place of these: it failed, and why; the next run makes it again
    <out>/seed_<k>/.../failed.pkl       its record up to there, by a name that no scorer takes for an episode
    <out>/summary.json, episodes.csv    all of it, with intervals; not of a part
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.engine.environment import package_versions
from beyonddrive.engine.executors import Executor, WorkerLostError
from beyonddrive.engine.files import LockedError, lock_if_possible, remove_leftovers, write_atomically
from beyonddrive.evaluation.closed_loop.hugsim.messages import write_message
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.evaluation.closed_loop.hugsim.run_files import GROUND, RECORD, SCENE
from beyonddrive.structures.errors import describe_error, shown
from beyonddrive.structures.frame import Driver
from beyonddrive.synth.live.drive import Answer, LiveSettings, Outcome, drive
from beyonddrive.synth.live.points import Points
from beyonddrive.synth.live.scenario import LiveScenario, read_live_scenario
from beyonddrive.synth.live.town import LiveError

EPISODE, SETTINGS, VIDEO = "episode.json", "settings.json", "video.webp"
FAILED, FAILED_RECORD = "failed.json", "failed.pkl"
SUMMARY = "summary.json"
FIGURE_FILES = (SUMMARY, "episodes.csv")
"""Files of the figures of all episodes."""
TRAFFIC_CHANGES = {
    2: "closed lanes are where their cones stand, nobody stops in a lane where no traffic is wanted, and "
    "kilometres have the first step",
    3: "vehicles that stop in their lane are there before the ego comes, who turned in or pulled out goes "
    "on, seeds of the traffic are other traffic, and plans of SUMO's driver follow the way beyond its end",
}
"""What each version has changed of what is about in an episode, and of how far it is said to have gone.

Figures of two versions do not mix. Runs that do not tell a version are of the first.
"""
TRAFFIC_VERSION = max(TRAFFIC_CHANGES)
NOT_ALWAYS_TOLD = ("recipe", "scenarios", "sumo", "planner")
"""Settings that runs of earlier versions do not tell; they are compared where both tell them."""
LOCK = ".driving.lock"
"""File in a folder that a run holds a lock on while it is at work there."""
TOWNS, POINTS = "towns", "points"
"""Folders beside the scenarios: their towns, and what HUGSIM's scorer wants to know of each scene."""
Drives = Callable[..., Outcome]
Film = Callable[[Outcome, Path, Path], None]
"""Writes a video of an outcome, whose town is in one folder, to another."""


@dataclass(frozen=True)
class Filming:
    """Which episodes get a video.

    Attributes:
        film: Writes it.
        difficulties: Only scenarios of these are filmed; all if empty.
    """

    film: Film
    difficulties: tuple[str, ...] = ()

    def of(self, scenario: LiveScenario) -> Film | None:
        """What writes the video of a scenario; None if it gets none."""
        return self.film if self.wants(scenario.hugsim.difficulty) else None

    def wants(self, difficulty: str) -> bool:
        """Whether scenarios of a difficulty get one."""
        return not self.difficulties or difficulty in self.difficulties


@dataclass(frozen=True)
class Crew:
    """Who drives, made anew in every process.

    Attributes:
        make_driver: Makes the driver.
        answer: Makes its plans HUGSIM's.
        drives: Drives a scenario; :func:`beyonddrive.synth.live.drive.drive`, or another for a driver that
            makes no plans.
        filming: Which episodes get a video; None for no videos.
    """

    make_driver: Callable[[], Driver]
    answer: Answer
    drives: Drives = drive
    filming: Filming | None = None


@dataclass(frozen=True)
class Job:
    """One scenario with one seed of the traffic."""

    scenario: Path
    towns: Path
    seed: int
    folder: Path
    settings: LiveSettings


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


@dataclass(frozen=True)
class Unfilmed:
    """An episode of before without the video that is wanted now, and why; the episode itself is as it was.

    Attributes:
        name: Seed and scenario.
        reason: Why.
        episode: How it went.
    """

    name: str
    reason: str
    episode: dict[str, Any]


Result = dict[str, Any] | Failed | Unfilmed
_crew: list[tuple[Crew, Driver]] = []


def _start(crew: Crew) -> None:
    _crew[:] = [(crew, crew.make_driver())]


def _work(job: Job) -> Result:
    crew, driver = _crew[0]
    done = read_episode(job.folder)
    if done is not None:
        return _film_anew(job, done, crew, driver) if lacks_video(job, done, crew.filming) else done
    frames: list[Frame] = []
    try:
        scenario = read_live_scenario(job.scenario)
        film = None if crew.filming is None else crew.filming.of(scenario)
        outcome = crew.drives(
            scenario, job.towns, driver, crew.answer, job.settings, keep_film=film is not None, record=frames
        )
        return write_outcome(job, outcome, film)
    except Exception as error:  # (one scenario that fails must not end the others)
        return keep_failure(job, frames, describe_error(error))


def lacks_video(job: Job, episode: Mapping[str, Any], filming: Filming | None) -> bool:
    """Whether an episode has no video and is to get one."""
    wanted = filming is not None and filming.wants(str(episode.get("difficulty")))
    return wanted and not (job.folder / VIDEO).exists()


def _film_anew(job: Job, done: dict[str, Any], crew: Crew, driver: Driver) -> dict[str, Any] | Unfilmed:
    """Drive a finished episode again for its video; all that is there of it stays as it is."""
    assert crew.filming is not None
    try:
        scenario = read_live_scenario(job.scenario)
        outcome = crew.drives(scenario, job.towns, driver, crew.answer, job.settings, keep_film=True)
        if _digest(_record(outcome.frames)) != done.get("record"):
            reason = f"driven again it went otherwise than before; remove {job.folder} to drive it anew"
            return Unfilmed(_name(job), reason, done)
        crew.filming.film(outcome, job.towns, job.folder)
    except Exception as error:  # (as of an episode that fails)
        return Unfilmed(_name(job), describe_error(error), done)
    return done


def keep_failure(job: Job, frames: Sequence[Frame], reason: str) -> Failed:
    """Write what there is of an episode that failed or was broken off. Raises nothing."""
    name = _name(job)
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


def read_episode(folder: Path) -> dict[str, Any] | None:
    """How an episode went; None if it is not complete."""
    try:
        found: dict[str, Any] = json.loads((folder / EPISODE).read_text())
    except (OSError, ValueError):
        return None
    return found


def run_jobs(jobs: Sequence[Job], crew: Crew, executor: Executor, progress: bool = True) -> Iterator[Result]:
    """Drive jobs that are not done yet; what is done is read. In the order of the jobs.

    An episode that is done and lacks the video that the crew is to make is driven again for it. The same seed
    gives the same episode; where it does not, there is no video, and the episode is :class:`Unfilmed`.

    Where a worker process is killed, the others end with it: each job that is not done then is
    :class:`Failed`.
    """
    left = [job for job in jobs if _is_left(job, crew.filming)]
    for job in left:
        remove_leftovers(job.folder) if job.folder.exists() else None
    made = executor.map(
        _work, left, desc="episodes" if progress else "", initializer=_start, initargs=(crew,)
    )
    results: dict[Path, Result] = {}
    lost: WorkerLostError | None = None
    try:
        for job, result in zip(left, made, strict=True):
            results[job.folder] = result
    except WorkerLostError as error:
        lost = error
    for job in jobs:
        # (a worker may have finished an episode of which it could not tell any more)
        told: Result | None = results.get(job.folder)
        if told is None and _is_left(job, crew.filming):
            assert lost is not None
            if job.folder.exists():
                remove_leftovers(job.folder)
            reason, done = f"not driven to its end: {lost}", read_episode(job.folder)
            told = Failed(_name(job), reason) if done is None else Unfilmed(_name(job), reason, done)
        told = told or read_episode(job.folder)
        assert told is not None
        yield told


def _is_left(job: Job, filming: Filming | None) -> bool:
    done = read_episode(job.folder)
    return done is None or lacks_video(job, done, filming)


def _name(job: Job) -> str:
    return f"seed {job.seed}: {job.scenario.name}"


def jobs_of(
    scenarios: Path, out: Path, settings: LiveSettings, seeds: Sequence[int], difficulties: Sequence[str] = ()
) -> list[Job]:
    """Jobs of all scenarios in a folder, town by town.

    Args:
        scenarios: Folder of scenario files, and of their towns.
        out: Where results go.
        settings: How all are driven.
        seeds: Of the traffic.
        difficulties: Only these; all if empty.

    Raises:
        LiveError: If there is none, one cannot be read, or two write to one folder, as with a seed that is
            there twice.
    """
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        given = ", ".join(map(str, seeds)) or "none"
        raise LiveError(f"seeds of the traffic: numbers from 0 on, each once, one or more; got {given}")
    files = sorted([*scenarios.rglob("*.yaml"), *scenarios.rglob("*.yml")])
    found = []
    for path in files:
        scenario = read_live_scenario(path)
        if not difficulties or scenario.hugsim.difficulty in difficulties:
            found.append((scenario.town, scenario.name, path))
    if not found:
        wanted = f" of {', '.join(difficulties)}" if difficulties else ""
        raise LiveError(
            f"{scenarios}: holds no scenarios{wanted}; beyonddrive closed-loop scenarios --out D writes some"
        )
    names = Counter(name for _, name, _ in found)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise LiveError(f"{scenarios}: two scenarios write to {twice[0]}; give one of them another mode")
    jobs = []
    for seed in seeds:
        own = LiveSettings(**{**vars(settings), "seed": seed})
        for _, name, path in sorted(found):
            jobs.append(Job(path, scenarios / TOWNS, seed, out / f"seed_{seed}" / name, own))
    return jobs


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Let no other run drive into a folder meanwhile; where a file system knows no locks the log says so.

    Raises:
        LiveError: If another run is at work in it.
    """
    with ExitStack() as held:
        try:
            unknown = held.enter_context(lock_if_possible(out / LOCK))
        except LockedError as error:
            raise LiveError(
                f"{out}: another run is at work in it; wait until it has ended, or give another --out"
            ) from error
        if unknown is not None:
            logging.getLogger(__name__).warning(
                "%s: its file system knows no locks (%s): a second run in it would not be noticed",
                out,
                unknown.strerror,
            )
        yield


def claim(out: Path, about: Mapping[str, Any]) -> list[str]:
    """Begin or resume a run in a folder; one that has driven nothing yet may begin otherwise.

    Returns:
        Settings that the run there, of an earlier version, does not tell: it may have been made otherwise.

    Raises:
        LiveError: If the folder holds a run that was made otherwise; names what differs.
    """
    path = out / SETTINGS
    wanted = json.loads(json.dumps(about))
    if path.exists():
        there = read_settings(out)
        differing = differing_settings(there, wanted)
        if not differing:
            return sorted(set(wanted) - set(there))
        if any(out.glob("seed_*")):
            raise LiveError(
                f"{path}: the run there was made with another {', '.join(differing)}; take another --out or "
                "remove it"
            )
    elif out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise LiveError(f"{out}: is not empty and holds no closed-loop run; choose another --out")
    write_atomically(path, json.dumps(wanted, indent=1).encode())
    return []


def read_settings(out: Path) -> dict[str, Any]:
    """What the run in a folder was made with.

    Raises:
        LiveError: If that cannot be read.
    """
    try:
        found = json.loads((out / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise LiveError(f"{out / SETTINGS}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise LiveError(f"{out / SETTINGS}: holds no settings")
    return found


def differing_settings(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In which settings two runs differ.

    >>> differing_settings({"pivot": "camera", "sumo": "1.26"}, {"pivot": "camera", "scenarios": 8})
    []
    >>> differing_settings({"pivot": "camera", "sumo": "1.26"}, {"pivot": "camera", "sumo": "1.27"})
    ['sumo']
    """
    there, wanted = ({"traffic_version": 1, **settings} for settings in (there, wanted))
    untold = {key for key in NOT_ALWAYS_TOLD if key not in there or key not in wanted}
    keys = (set(there) | set(wanted)) - untold
    differing = sorted(key for key in keys if there.get(key) != wanted.get(key))
    versions = [settings["traffic_version"] for settings in (there, wanted)]
    words = {"traffic_version": f"version of the traffic ({traffic_changes(*versions)})"}
    return [words.get(key, key) for key in differing]


def traffic_changes(there: Any, wanted: Any) -> str:
    """Two versions of the traffic, and what lies between them as far as that is known.

    >>> traffic_changes(2, 1)
    '2 and 1; since 2 closed lanes are where their cones stand, nobody stops in a lane where no traffic is \
wanted, and kilometres have the first step'
    """
    told = f"{shown(there)} and {shown(wanted)}"
    if not isinstance(there, int) or not isinstance(wanted, int):
        return told
    since = [
        f"; since {version} {change}"
        for version, change in TRAFFIC_CHANGES.items()
        if min(there, wanted) < version <= max(there, wanted)
    ]
    return told + "".join(since)


def forget_figures(out: Path) -> None:
    """Remove figures of a run that is about to go on: they would be of a part."""
    for name in FIGURE_FILES:
        (out / name).unlink(missing_ok=True)


def about_list(jobs: Sequence[Job]) -> dict[str, Any]:
    """What is driven, and by which SUMO, as JSON values."""
    return {
        "scenario_list": list_digest(jobs),
        "scenarios": len({job.folder.name for job in jobs}),
        "sumo": package_versions(("libsumo",)).get("libsumo"),
    }


def list_digest(jobs: Sequence[Job]) -> str:
    """Digest of the scenario list: names and contents."""
    lines = sorted({f"{job.folder.name} {blake2b(job.scenario.read_bytes()).hexdigest()}" for job in jobs})
    return blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()


def write_outcome(job: Job, outcome: Outcome, film: Film | None = None) -> dict[str, Any]:
    """Write an episode to its folder, and return how it went."""
    data = write_record(job, outcome.frames)
    for name, points in ((GROUND, outcome.ground), (SCENE, outcome.solid)):
        _write_points(job, name, points)
    if film is not None:
        film(outcome, job.towns, job.folder)
    forget_failure(job.folder)
    episode = {**describe(outcome), "seed": job.seed, "record": _digest(data)}
    write_atomically(job.folder / EPISODE, json.dumps(episode, indent=1).encode())
    return episode


def write_record(job: Job, frames: Sequence[Frame], name: str = RECORD) -> bytes:
    """Write a record to its folder by a name, and return it."""
    data = _record(frames)
    write_atomically(job.folder / name, data, sync=False)
    return data


def _record(frames: Sequence[Frame]) -> bytes:
    return write_message([{"type": "closeloop", "frames": [frame.to_dict() for frame in frames]}])


def _digest(record: bytes) -> str:
    return blake2b(record, digest_size=8).hexdigest()


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


def settings_dict(settings: LiveSettings) -> dict[str, Any]:
    """Settings as JSON values, without the seed; with the version of the traffic."""
    told = {key: value for key, value in asdict(settings).items() if key != "seed"}
    return {**told, "traffic_version": TRAFFIC_VERSION}
