"""Many scenarios: in processes, after a kill, with one that fails."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor
from beyonddrive.evaluation.closed_loop.hugsim.benchmark import read_scenarios
from beyonddrive.evaluation.closed_loop.hugsim.run_files import (
    GROUND,
    RECORD,
    SCENE,
    read_points,
    read_record,
)
from beyonddrive.synth.live import batch, episode_files, reference
from beyonddrive.synth.live.drive import Stage
from beyonddrive.synth.live.eyes import Eyes
from beyonddrive.synth.live.place import place_of
from beyonddrive.synth.live.reference import Nobody, drive_by_sumo
from beyonddrive.synth.live.scenario import POINTS, TOWNS, read_live_scenario
from beyonddrive.synth.live.town import LiveError, open_live_town
from beyonddrive.tests.synth.live.conftest import TINY, FollowPath, points_of

SHORT = replace(TINY, max_steps=4, image_size=(32, 18))


class Raises(FollowPath):
    """Raises in the third step of one scenario."""

    def plan(self, frame):
        if frame.session.endswith("easy_01") and frame.time > 0.4:
            raise RuntimeError("no idea")
        return super().plan(frame)


class DiesInTheSecond(FollowPath):
    """Its process is killed in the second scenario."""

    def plan(self, frame):
        if frame.session.endswith("easy_01") and frame.time > 0.4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().plan(frame)


def jobs_in(live_folder, out, difficulties=("easy",), seeds=(0,)):
    return batch.jobs_of(live_folder, out, SHORT, seeds, difficulties)


def drive_all(jobs, driver=FollowPath, executor=None):
    crew = batch.Crew(driver, points_of)
    return list(batch.run_jobs(jobs, crew, executor or SerialExecutor(), progress=False))


def files_below(folder):
    """Contents by name; seconds are not the same twice."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            if path.name == episode_files.EPISODE:
                content = {k: v for k, v in json.loads(content).items() if k != "seconds"}
            found[str(path.relative_to(folder))] = content
    return found


@pytest.fixture(scope="session")
def driven(live_folder, tmp_path_factory):
    """Two scenarios with two seeds, driven in this process."""
    out = tmp_path_factory.mktemp("driven")
    return out, drive_all(jobs_in(live_folder, out, seeds=(0, 1)))


def test_processes_give_the_same_files(live_folder, tmp_path, driven):
    jobs = jobs_in(live_folder, tmp_path, seeds=(0, 1))
    episodes = drive_all(jobs, executor=ProcessExecutor(2))
    assert files_below(tmp_path) == files_below(driven[0])
    assert [(e["seed"], e["name"]) for e in episodes] == [(job.seed, job.folder.name) for job in jobs]
    # (without traffic in an easy scenario its seed changes nothing)
    assert len({e["record"] for e in episodes}) == 2


def test_an_episode_is_one_of_hugsim(live_folder, driven):
    """The official scorer's files are there, and scoring them anew gives what the episode says."""
    from beyonddrive.evaluation.closed_loop.hugsim.hd_score import score_run

    listed = {item.name: item for item in read_scenarios(live_folder)}
    for episode in driven[1]:
        folder = driven[0] / f"seed_{episode['seed']}" / episode["name"]
        points = [read_points(folder / name) for name in (GROUND, SCENE)]
        again = score_run(read_record(folder / RECORD), *points, SHORT.hugsim)
        assert again.means == pytest.approx(episode["scores"], abs=1e-12)
        assert listed[episode["name"]].difficulty == episode["difficulty"]


def test_a_killed_run_goes_on_where_it_was(live_folder, tmp_path, driven):
    jobs = jobs_in(live_folder, tmp_path)
    process = multiprocessing.get_context("fork").Process(target=drive_all, args=(jobs, DiesInTheSecond))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    first = jobs[0].folder / episode_files.EPISODE
    assert episode_files.read_episode(jobs[0].folder) and episode_files.read_episode(jobs[1].folder) is None
    episode = jobs[0].folder / episode_files.EPISODE
    whole = episode.read_text()
    episode.write_text('{"steps": 4}')  # (as a hand may leave it)
    assert episode_files.read_episode(jobs[0].folder) is None
    episode.write_text(whole)
    written = first.stat().st_mtime_ns
    drive_all(jobs)
    assert first.stat().st_mtime_ns == written
    wanted = {k: v for k, v in files_below(driven[0]).items() if k.startswith("seed_0")}
    assert files_below(tmp_path) == wanted


def test_one_that_fails_does_not_end_the_others(live_folder, tmp_path, driven):
    """What it drove is kept, is no episode, and gives way to one."""
    jobs = jobs_in(live_folder, tmp_path)
    folder = jobs[1].folder
    for _ in range(2):
        results = drive_all(jobs, Raises)
        assert results[0]["steps"] == 4
        assert isinstance(results[1], episode_files.Failed) and "no idea" in results[1].reason
        assert episode_files.read_episode(folder) is None
        assert sorted(path.name for path in folder.iterdir()) == [
            episode_files.FAILED,
            episode_files.FAILED_RECORD,
        ]
        about = json.loads((folder / episode_files.FAILED).read_text())
        assert about == {"name": folder.name, "seed": 0, "reason": "RuntimeError: no idea", "steps": 2}
        assert results[1].record == folder / episode_files.FAILED_RECORD
        kept = read_record(results[1].record)
    drive_all(jobs)
    whole = read_record(folder / RECORD)
    assert [frame.to_dict() for frame in kept] == [frame.to_dict() for frame in whole[:2]]
    wanted = {k: v for k, v in files_below(driven[0]).items() if k.startswith("seed_0")}
    assert files_below(tmp_path) == wanted


def test_a_failure_without_a_step_keeps_no_record_of_an_earlier_one(live_folder, tmp_path):
    jobs = jobs_in(live_folder, tmp_path)[1:]
    drive_all(jobs, Raises)
    (jobs[0].folder / RECORD).touch()
    lost = [replace(job, towns=tmp_path / "nowhere") for job in jobs]
    (failed,) = drive_all(lost)
    assert failed.record is None and "no such town" in failed.reason
    assert [path.name for path in jobs[0].folder.iterdir()] == [episode_files.FAILED]
    assert json.loads((jobs[0].folder / episode_files.FAILED).read_text())["steps"] == 0


def test_a_failure_that_cannot_be_kept_ends_no_other(live_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    jobs = jobs_in(live_folder, tmp_path)
    drive_all(jobs[:1])
    monkeypatch.setattr(episode_files, "write_atomically", full)
    failed = drive_all(jobs, Raises)[1]
    assert failed.record is None
    assert "no idea; then its record was not kept: OSError: [Errno 28] No space" in failed.reason


def test_an_episode_without_a_video_is_driven_again_for_it(live_folder, tmp_path):
    """And stays what it was, in what it says and when it was written."""
    jobs = jobs_in(live_folder, tmp_path)
    before = drive_all(jobs)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    filmed = []

    def film(outcome, towns, folder):
        filmed.append((folder, len(outcome.film)))
        (folder / episode_files.VIDEO).write_text("film")

    def with_film(driver=FollowPath, difficulties=()):
        crew = batch.Crew(driver, points_of, filming=batch.Filming(film, difficulties))
        return list(batch.run_jobs(jobs, crew, SerialExecutor(), progress=False))

    assert with_film(difficulties=("hard",)) == before and not filmed
    # One that is driven otherwise, or not at all, gets none.
    for driver, said in (
        (partial(FollowPath, 2.0), "went otherwise than before; remove"),
        (Raises, "no idea"),
    ):
        *_, odd = with_film(driver)
        assert isinstance(odd, batch.Unfilmed) and said in odd.reason and odd.episode == before[1]
        assert not (jobs[1].folder / episode_files.VIDEO).exists() and not list(tmp_path.rglob("failed.*"))
    filmed.clear()
    (jobs[0].folder / episode_files.VIDEO).unlink(missing_ok=True)
    assert with_film() == before and filmed == [(job.folder, 4) for job in jobs]
    assert with_film() == before and len(filmed) == 2
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_what_sumo_drove_before_a_failure_has_its_plans(live_folder, tmp_path):
    """Not those that stand for them until it is known where the ego went."""
    (job,) = jobs_in(live_folder, tmp_path)[:1]
    whole, kept = [], []
    scenario = read_live_scenario(job.scenario)
    outcome = drive_by_sumo(scenario, job.towns, Nobody(), points_of, job.settings, record=whole)
    assert [frame.to_dict() for frame in whole] == [frame.to_dict() for frame in outcome.frames]

    def looks_away(self, seen):
        if seen.time > 0.4:
            raise RuntimeError("no idea")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "look", looks_away)
        patch.setattr(Eyes, "images", lambda *_: {"CAM_F0": None})
        patch.setattr(reference, "film_row", lambda *_: {})
        with pytest.raises(RuntimeError, match="no idea"):
            drive_by_sumo(scenario, job.towns, Nobody(), points_of, job.settings, True, kept)
    town = open_live_town(job.towns / scenario.town)
    place = place_of(town.network, scenario.lanes, scenario.station, scenario.length)
    expected = reference.with_what_was_done(whole[:2], place)
    assert [frame.to_dict() for frame in kept] == [frame.to_dict() for frame in expected]


def test_points_are_of_the_scenario_that_was_driven(live_folder, tmp_path):
    """Not those beside it, where somebody has changed it since they were written."""
    first = jobs_in(live_folder, tmp_path / "out")[0]
    towns = tmp_path / "list" / TOWNS
    towns.parent.mkdir()
    towns.symlink_to(first.towns)
    shared = towns.parent / POINTS / first.folder.name
    job = replace(first, towns=towns)
    drive_all([job])
    own = {name: (job.folder / name).read_bytes() for name in (GROUND, SCENE)}
    episode_files.write_points(shared / GROUND, np.zeros((3, 3), dtype=np.float32))
    shared.joinpath(SCENE).write_bytes(own[SCENE])
    (job.folder / episode_files.EPISODE).unlink()
    drive_all([job])
    assert {name: (job.folder / name).read_bytes() for name in own} == own
    assert (job.folder / SCENE).samefile(shared / SCENE)


@pytest.mark.parametrize("seeds", [(), (0, 1, 0), (-1,)])
def test_seeds_that_drive_nothing_or_twice_are_refused(live_folder, tmp_path, seeds):
    with pytest.raises(LiveError, match="each once, one or more; got"):
        jobs_in(live_folder, tmp_path, seeds=seeds)


def test_a_session_is_ended_that_fails(live_folder, tmp_path):
    """Or its driver would keep what it remembers of it."""
    open_sessions = []

    class Counts(Raises):
        def reset(self, session, seed=None):
            open_sessions.append(session)
            super().reset(session, seed)

        def close(self, session):
            open_sessions.remove(session)
            return super().close(session)

    results = drive_all(jobs_in(live_folder, tmp_path)[1:], Counts)
    assert isinstance(results[0], episode_files.Failed) and not open_sessions


def test_a_list_is_told_by_what_is_in_it(live_folder, tmp_path):
    with pytest.raises(LiveError, match="holds no scenarios of hard"):
        batch.jobs_of(live_folder / "easy", tmp_path, SHORT, (0,), ("hard",))
    jobs = jobs_in(live_folder, tmp_path, ())
    assert batch.list_digest(jobs) != batch.list_digest(jobs[1:])


def test_a_run_tells_its_towns_as_far_as_they_are_there(live_folder, live_town, tmp_path):
    jobs = jobs_in(live_folder, tmp_path)
    assert list(batch.about_list(jobs)["towns"]) == [live_town.name]
    assert batch.about_list([replace(job, towns=tmp_path) for job in jobs])["towns"] == {}
