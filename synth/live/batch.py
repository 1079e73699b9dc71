"""Many scenarios: driven in processes, one folder each, resumed where a run was killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from beyonddrive.engine.environment import package_versions
from beyonddrive.engine.executors import Executor, WorkerLostError
from beyonddrive.engine.files import remove_leftovers
from beyonddrive.evaluation.closed_loop.hugsim.record import Frame
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.frame import Driver
from beyonddrive.synth.live.drive import Answer, LiveSettings, Outcome, drive
from beyonddrive.synth.live.episode_files import (
    VIDEO,
    Failed,
    Film,
    Job,
    keep_failure,
    read_episode,
    record_digest,
    write_outcome,
)
from beyonddrive.synth.live.run_folder import TOWNS_TOLD
from beyonddrive.synth.live.scenario import TOWNS, LiveScenario, read_live_scenario
from beyonddrive.synth.live.town import LiveError
from beyonddrive.synth.live.town_digest import town_digest

Drives = Callable[..., Outcome]


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
        for town, name, path in sorted(found):
            jobs.append(Job(path, scenarios / TOWNS, seed, out / f"seed_{seed}" / name, own, town))
    return jobs


def about_list(jobs: Sequence[Job]) -> dict[str, Any]:
    """What is driven, in which towns, and by which SUMO, as JSON values."""
    towns = {job.town: town_digest(job.towns / job.town) for job in jobs}
    return {
        "scenario_list": list_digest(jobs),
        "scenarios": len({job.folder.name for job in jobs}),
        # (a town that is not there is not told: its scenarios fail, and may be driven when it is)
        TOWNS_TOLD: {name: digest for name, digest in sorted(towns.items()) if digest is not None},
        "sumo": package_versions(("libsumo",)).get("libsumo"),
    }


def list_digest(jobs: Sequence[Job]) -> str:
    """Digest of the scenario list: names and contents."""
    return digest_of_lines(
        {f"{job.folder.name} {blake2b(job.scenario.read_bytes()).hexdigest()}" for job in jobs}
    )


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
            told = Failed(job.label, reason) if done is None else Unfilmed(job.label, reason, done)
        told = told or read_episode(job.folder)
        assert told is not None
        yield told


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
        if record_digest(outcome.frames) != done.get("record"):
            reason = f"driven again it went otherwise than before; remove {job.folder} to drive it anew"
            return Unfilmed(job.label, reason, done)
        crew.filming.film(outcome, job.towns, job.folder)
    except Exception as error:  # (as of an episode that fails)
        return Unfilmed(job.label, describe_error(error), done)
    return done


def _is_left(job: Job, filming: Filming | None) -> bool:
    done = read_episode(job.folder)
    return done is None or lacks_video(job, done, filming)
