"""Many scenarios: in processes, after a kill, with one that fails; figures of all, and rows side by side."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import stats

from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor
from beyonddrive.evaluation.closed_loop.hugsim.benchmark import read_scenarios
from beyonddrive.evaluation.closed_loop.hugsim.run_files import (
    GROUND,
    RECORD,
    SCENE,
    read_points,
    read_record,
)
from beyonddrive.evaluation.statistics import intervals
from beyonddrive.synth.live import batch, reference, summary
from beyonddrive.synth.live.compare import Row, compare, comparison_text, pairs_csv
from beyonddrive.synth.live.drive import Stage
from beyonddrive.synth.live.eyes import Eyes
from beyonddrive.synth.live.place import place_of
from beyonddrive.synth.live.reference import Nobody, drive_by_sumo
from beyonddrive.synth.live.scenario import read_live_scenario
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
            if path.name == batch.EPISODE:
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
    first = jobs[0].folder / batch.EPISODE
    assert batch.read_episode(jobs[0].folder) and batch.read_episode(jobs[1].folder) is None
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
        assert isinstance(results[1], batch.Failed) and "no idea" in results[1].reason
        assert batch.read_episode(folder) is None
        assert sorted(path.name for path in folder.iterdir()) == [batch.FAILED, batch.FAILED_RECORD]
        about = json.loads((folder / batch.FAILED).read_text())
        assert about == {"name": folder.name, "seed": 0, "reason": "RuntimeError: no idea", "steps": 2}
        assert results[1].record == folder / batch.FAILED_RECORD
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
    assert [path.name for path in jobs[0].folder.iterdir()] == [batch.FAILED]
    assert json.loads((jobs[0].folder / batch.FAILED).read_text())["steps"] == 0


def test_a_failure_that_cannot_be_kept_ends_no_other(live_folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    jobs = jobs_in(live_folder, tmp_path)
    drive_all(jobs[:1])
    monkeypatch.setattr(batch, "write_atomically", full)
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
        (folder / batch.VIDEO).write_text("film")

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
        assert not (jobs[1].folder / batch.VIDEO).exists() and not list(tmp_path.rglob("failed.*"))
    filmed.clear()
    (jobs[0].folder / batch.VIDEO).unlink(missing_ok=True)
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


def test_a_folder_of_another_run_is_refused(live_folder, tmp_path):
    batch.claim(tmp_path / "run", {"config": "a", "seed": [0]})
    batch.claim(tmp_path / "run", {"config": "a", "seed": (0,)})
    (tmp_path / "run" / "seed_0").mkdir()
    with pytest.raises(LiveError, match="made with another config; take another --out"):
        batch.claim(tmp_path / "run", {"config": "b", "seed": [0]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(LiveError, match="is not empty and holds no closed-loop run"):
        batch.claim(tmp_path / "mine", {})
    with pytest.raises(LiveError, match="holds no scenarios of hard"):
        batch.jobs_of(live_folder / "easy", tmp_path, SHORT, (0,), ("hard",))
    jobs = jobs_in(live_folder, tmp_path, ())
    assert batch.list_digest(jobs) != batch.list_digest(jobs[1:])


def test_runs_of_another_version_of_the_traffic_are_not_mixed(tmp_path):
    """A run of before does not say its version."""
    told = batch.settings_dict(SHORT)
    before = {key: value for key, value in told.items() if key != "traffic_version"}
    assert told["traffic_version"] == 3 and len(before) == len(told) - 1
    said = (
        r"another version of the traffic \(1 and 3; since 2 closed lanes are .*; since 3 vehicles that stop"
    )
    for name, own in (("old", before), ("new", told)):
        write_made_up(tmp_path / name, [made_up("easy_0", 0, 0.5)], **own)
    with pytest.raises(LiveError, match=said):
        batch.claim(tmp_path / "old", {"config": "old", "preset": "pr57", **told})
    with pytest.raises(LiveError, match=r"another version of the traffic \(3 and 1; since 2"):
        compare([Row(name, (tmp_path / name,)) for name in ("old", "new")])
    assert batch.claim(tmp_path / "old", {"config": "old", "preset": "pr57", **before}) == []
    assert batch.claim(tmp_path / "new", {"config": "new", "preset": "pr57", **told}) == []


def test_every_version_of_the_traffic_says_what_it_changed():
    """Those between two runs, whichever is the older, and no others; of a later release nothing is known."""
    assert list(batch.TRAFFIC_CHANGES) == list(range(2, batch.TRAFFIC_VERSION + 1))
    for there, wanted in ((2, 3), (3, 2)):
        (text,) = batch.differing_settings({"traffic_version": there}, {"traffic_version": wanted})
        assert text == f"version of the traffic ({there} and {wanted}; since 3 {batch.TRAFFIC_CHANGES[3]})"
    later = batch.TRAFFIC_VERSION + 1
    assert batch.traffic_changes(later, later - 1) == f"{later} and {later - 1}"
    assert batch.traffic_changes("3", None) == "'3' and None"


def made_up(name, seed, hdscore, collided=0, kilometres=0.1):
    scores = {**dict.fromkeys(summary.FIGURES, 1.0), "hdscore": hdscore}
    return {
        "name": name, "seed": seed, "difficulty": name.split("_")[0], "scores": scores, "ends": ["Complete"],
        "kilometres": kilometres, "collided": bool(collided), "steps": 10,
        "driver": {"fallbacks": collided, "counts": {}},
    }  # fmt: skip


def test_figures_by_difficulty_and_of_all():
    episodes = [
        made_up("easy_0", 0, 0.5), made_up("easy_1", 0, 1.0), made_up("hard_0", 0, 0.0, 1, 0.3),
        made_up("easy_0", 1, 0.7), made_up("easy_1", 1, 1.0), made_up("hard_0", 1, 0.2, 1, 0.2),
    ]  # fmt: skip
    figures = summary.summarise(episodes)
    easy, hard, every = (figures["groups"][name] for name in ("easy", "hard", "all"))
    assert (easy["scenarios"], hard["scenarios"], every["scenarios"]) == (2, 1, 3)
    assert easy["hdscore"]["mean"] == pytest.approx(0.8) and every["hdscore"]["mean"] == pytest.approx(
        3.4 / 6
    )
    assert every["hdscore"]["low"] < 3.4 / 6 < every["hdscore"]["high"]
    assert hard["collision_rate"]["mean"] == pytest.approx(2 / 0.5)
    assert every["collision_rate"]["mean"] == pytest.approx(2 / 0.9)
    text = summary.as_text(figures)
    assert text.startswith("2 of 60 plans were fallbacks, not the planner's")
    assert summary.as_csv(episodes).splitlines()[3].startswith("0,hard_0,hard,0.0,1.0")
    with pytest.raises(LiveError, match=r"hard_0 was not driven with seed 1 \(1 episodes lack\)"):
        summary.summarise(episodes[:-1])
    standing = summary.summarise([made_up("easy_0", 0, 0.0, 0, 0.0)])
    assert np.isnan(standing["groups"]["all"]["collision_rate"]["mean"])


def write_made_up(folder, episodes, **settings):
    batch.claim(folder, {"config": folder.name, "preset": "pr57", **settings})
    for episode in episodes:
        path = folder / f"seed_{episode['seed']}" / episode["name"]
        path.mkdir(parents=True)
        (path / batch.EPISODE).write_text(json.dumps(episode))


def test_rows_are_compared_scenario_by_scenario(tmp_path):
    """Scenarios differ more than rows do; of pairs the difference is known well."""
    scores = np.linspace(0.1, 0.8, 6)
    for run in range(2):
        plain = [made_up(f"easy_{i}", 0, value + 0.01 * run, 1) for i, value in enumerate(scores)]
        better = [made_up(f"easy_{i}", 0, value + 0.01 * run + 0.1) for i, value in enumerate(scores)]
        write_made_up(tmp_path / f"plain_{run}", plain)
        write_made_up(tmp_path / f"better_{run}", better)
    write_made_up(tmp_path / "still", [made_up(f"easy_{i}", 0, 0.0, 1) for i in range(6)])
    rows = [
        Row("plain", (tmp_path / "plain_0", tmp_path / "plain_1")),
        Row("better", (tmp_path / "better_0", tmp_path / "better_1")),
        Row("still", (tmp_path / "still",)),
    ]
    found = compare(rows)["groups"]["all"]["rows"]
    assert found["plain"]["difference"] is None
    apart = found["better"]["difference"]
    assert [apart["hdscore"][key] for key in ("low", "mean", "high")] == pytest.approx([0.1] * 3)
    assert apart["collision_rate"]["mean"] == pytest.approx(-10.0)
    assert found["still"]["difference"]["hdscore"]["mean"] == pytest.approx(-scores.mean() - 0.005)
    assert "+10.0 [+10.0, +10.0]" in comparison_text(compare(rows))
    lines = pairs_csv(rows).splitlines()
    assert len(lines) == 1 + 2 * 6 and lines[0].startswith("run,traffic,name,difficulty,plain: hdscore,")
    # The row without a training has the same episodes in both runs.
    assert lines[1].split(",")[-9:] == lines[7].split(",")[-9:]


def student_interval(means):
    """Student's interval of values, one per seed."""
    return tuple(stats.ttest_1samp(means, 0.0).confidence_interval())


def drive_made_up(folder, names, gains, traffic=range(3), scenarios=4):
    """A run per name; ``gains`` (R, V) say how good its scores are, by training and seed of the traffic."""
    for name, own in zip(names, gains, strict=True):
        episodes = [
            made_up(f"easy_{i}", seed, 0.1 * i + gain, collided=i % 2, kilometres=0.1 + gain)
            for seed, gain in zip(traffic, own, strict=True)
            for i in range(scenarios)
        ]
        write_made_up(folder / name, episodes)
    return Row(names[0].partition("_")[0], tuple(folder / name for name in names))


def test_seeds_of_the_traffic_are_no_trainings(tmp_path):
    """Two trainings with three seeds of the traffic each are two, judged by their means over these."""
    plain = drive_made_up(tmp_path, ["plain_0", "plain_1"], [[0.0, 0.1, 0.2], [0.1, 0.1, 0.1]])
    gains = np.array([[0.2, 0.3, 0.4], [0.2, 0.3, 0.1]])
    better = drive_made_up(tmp_path, ["better_0", "better_1"], gains)
    result = compare([plain, better])
    apart = result["groups"]["all"]["rows"]["better"]["difference"]
    # (the same in every scenario, so that only trainings differ, whose means do by 0.2 and 0.1)
    low, high = student_interval([0.2, 0.1])
    assert [apart["hdscore"][key] for key in ("mean", "low", "high")] == pytest.approx([0.15, low, high])
    scenes = 0.1 * np.arange(4)
    wanted = intervals.estimate(scenes + gains.mean(axis=1)[:, None])
    own = result["groups"]["all"]["rows"]["better"]["hdscore"]
    assert [own[key] for key in ("mean", "low", "high")] == pytest.approx([wanted.mean, *wanted.interval])
    # As where each training was driven once, with the means of its episodes.
    once = [
        drive_made_up(tmp_path / "once", [f"{name}_0", f"{name}_1"], means, (0,))
        for name, means in (("plain", [[0.1], [0.1]]), ("better", [[0.3], [0.2]]))
    ]
    table = compare(once)["groups"]["all"]["rows"]
    assert table["better"]["hdscore"] == pytest.approx(own)
    assert table["better"]["difference"]["hdscore"] == pytest.approx(apart["hdscore"])
    assert table["better"]["collision_rate"] == pytest.approx(
        result["groups"]["all"]["rows"]["better"]["collision_rate"]
    )
    words = "95 % over scenarios and 2 trainings, each the mean of traffic seeds 0, 1, 2"
    assert f"intervals of better less plain: {words}" in comparison_text(result).splitlines()
    lines = [line.split(",") for line in pairs_csv([plain, better]).splitlines()[1:]]
    assert [line[:3] for line in lines[::4]] == [[f"{r}", f"{v}", "easy_0"] for r in (0, 1) for v in range(3)]


def test_a_row_of_one_run_pairs_with_every_training_traffic_by_traffic(tmp_path):
    gains = np.array([[0.2, 0.5, 0.3], [0.1, 0.4, 0.3], [0.3, 0.4, 0.3]])
    ours = drive_made_up(tmp_path, ["ours_0", "ours_1", "ours_2"], gains)
    still = drive_made_up(tmp_path, ["still"], [[0.0, 0.3, 0.1]])
    by_training = gains.mean(axis=1) - 0.4 / 3
    for rows, sign in (([still, ours], 1.0), ([ours, still], -1.0)):
        result = compare(rows)
        apart = result["groups"]["all"]["rows"][rows[1].name]["difference"]["hdscore"]
        wanted = intervals.estimate(np.tile(sign * by_training[:, None], 4))
        assert [apart[key] for key in ("mean", "low", "high")] == pytest.approx(
            [wanted.mean, *wanted.interval]
        )
        assert "3 trainings, each" in result["intervals"][rows[1].name]["difference"]
    # The figures of the row of one run itself are over the traffic.
    own = result["groups"]["all"]["rows"]["still"]["hdscore"]
    wanted = intervals.estimate(0.1 * np.arange(4) + np.array([[0.0], [0.3], [0.1]]))
    assert [own[key] for key in ("low", "high")] == pytest.approx(wanted.interval)
    assert "traffic seeds 0, 1, 2 of one run" in result["intervals"]["still"]["figures"]
    lines = [line.split(",") for line in pairs_csv([ours, still]).splitlines()]
    place = lines[0].index("still: hdscore")
    assert [line[place] for line in lines[1:13]] == [line[place] for line in lines[13:25]]
    assert lines[1][place] != lines[5][place]


def test_of_one_training_each_the_traffic_is_the_seed(tmp_path):
    one = drive_made_up(tmp_path, ["one"], [[0.0, 0.1, 0.2]])
    other = drive_made_up(tmp_path, ["other"], [[0.1, 0.4, 0.3]])
    result = compare([one, other])
    apart = result["groups"]["all"]["rows"]["other"]["difference"]["hdscore"]
    wanted = student_interval([0.1, 0.3, 0.1])
    assert [apart["low"], apart["high"]] == pytest.approx(wanted)
    assert "over scenarios and traffic seeds 0, 1, 2 of one run\n" in comparison_text(result) + "\n"
    # With one seed there is nothing but scenarios.
    alone = [drive_made_up(tmp_path / "a", [name], [[0.1]], (0,)) for name in ("one", "other")]
    assert comparison_text(compare(alone)).endswith("less one: 95 % over scenarios (bootstrap)")


def test_intervals_are_over_scenarios_and_seeds(tmp_path):
    """Of two seeds that disagree, wide ones; of rates, too, around the rate of all."""
    scores = [[0.1, 0.3, 0.2, 0.4], [0.5, 0.6, 0.4, 0.8]]
    episodes = [
        made_up(f"easy_{i}", seed, value, collided=i < 1 + seed, kilometres=0.1 + 0.1 * seed)
        for seed, own in enumerate(scores)
        for i, value in enumerate(own)
    ]
    figures = summary.summarise(episodes)
    found = figures["groups"]["all"]
    wanted = intervals.estimate(scores)
    assert wanted.interval[0] < wanted.bootstrap[0] < wanted.bootstrap[1] < wanted.interval[1]
    assert [found["hdscore"][key] for key in ("low", "high")] == pytest.approx(wanted.interval)
    # One collision in 0.4 km and two in 0.8 km are one rate, of which no seed makes another.
    rate = found["collision_rate"]
    assert rate["mean"] == pytest.approx(2.5) and rate["low"] < 2.5 < rate["high"]
    for episode in episodes:
        episode["collided"] = episode["seed"] == 1
    rate = summary.summarise(episodes)["groups"]["all"]["collision_rate"]
    # 4 collisions in 1.2 km; the seeds have 4 / 3 fewer and more than their distance gives, by 0.6 km.
    wide = student_interval([10 / 3 - 20 / 9, 10 / 3 + 20 / 9])
    assert [rate[key] for key in ("mean", "low", "high")] == pytest.approx([10 / 3, *wide])
    text = summary.as_text(figures)
    assert "95 % over scenarios and traffic seeds 0, 1" in text.splitlines()[-2]
    assert "95 % over scenarios (bootstrap)" in summary.as_text(summary.summarise(episodes[:4]))


def test_a_comparison_says_first_whose_plans_were_fallbacks(tmp_path):
    write_made_up(tmp_path / "plain", [made_up(f"easy_{i}", 0, 0.5) for i in range(2)])
    for run in range(2):
        episodes = [made_up(f"easy_{i}", 0, 0.5) for i in range(2)]
        episodes[1]["driver"]["fallbacks"] = 7 + run
        write_made_up(tmp_path / f"lame_{run}", episodes)
    rows = [
        Row("plain", (tmp_path / "plain",)),
        Row("lame", (tmp_path / "lame_0", tmp_path / "lame_1")),
    ]
    result = compare(rows)
    assert next(iter(result)) == "fallbacks" and result["fallbacks"] == {"plain": 0, "lame": 15}
    assert result["steps"] == {"plain": 20, "lame": 40}
    lines = comparison_text(result).splitlines()
    assert lines[0] == "lame: 15 of 40 plans were fallbacks, not the planner's"
    assert "fallbacks" not in "".join(lines[1:])
    assert "fallbacks" not in comparison_text(compare(rows[:1]))
    cells = [line.split(",") for line in pairs_csv(rows).splitlines()]
    assert cells[0][-1] == "lame: fallbacks"
    assert [row[-1] for row in cells[1:]] == ["0.0", "7.0", "0.0", "8.0"]


def test_rows_of_other_numbers_of_trainings_have_figures_of_their_own_alone(tmp_path):
    """Beside a row of one run, one of two and one of three: the first has no third."""
    still = drive_made_up(tmp_path, ["still"], [[0.0]], (0,))
    two = drive_made_up(tmp_path, ["two_0", "two_1"], [[0.1], [0.2]], (0,))
    three = drive_made_up(tmp_path, ["three_0", "three_1", "three_2"], [[0.1], [0.2], [0.3]], (0,))
    head, *lines = [line.split(",") for line in pairs_csv([still, two, three]).splitlines()]
    column = {name: head.index(f"{name}: hdscore") for name in ("still", "two", "three")}
    first = [line for line in lines if line[2] == "easy_0"]
    assert [line[column["two"]] for line in first] == ["0.1", "0.2", ""]
    assert [line[column["three"]] for line in first] == ["0.1", "0.2", "0.3"]
    assert [line[column["still"]] for line in first] == ["0.0"] * 3


@pytest.mark.parametrize("same", ["folder", "weights"])
def test_runs_of_one_training_are_no_two(tmp_path, same):
    episodes = [made_up(f"easy_{i}", 0, 0.5) for i in range(2)]
    for name, checkpoint in (("a", "1"), ("b", "1"), ("c", "2")):
        write_made_up(tmp_path / name, episodes, checkpoint=checkpoint)
    a, b, c = (tmp_path / name for name in "abc")
    copies = (a, c, tmp_path / "c" / ".." / "a") if same == "folder" else (a, c, b)
    with pytest.raises(LiveError, match=r"ours: \S+a and \S+[ab] are of one training"):
        compare([Row("ours", copies)])
    # (two rows may be of the same weights, as with and without what is hidden)
    assert compare([Row("ours", (a, c)), Row("told less", (b, c))])


def test_points_are_of_the_scenario_that_was_driven(live_folder, tmp_path):
    """Not those beside it, where somebody has changed it since they were written."""
    first = jobs_in(live_folder, tmp_path / "out")[0]
    towns = tmp_path / "list" / batch.TOWNS
    towns.parent.mkdir()
    towns.symlink_to(first.towns)
    shared = towns.parent / batch.POINTS / first.folder.name
    job = replace(first, towns=towns)
    drive_all([job])
    own = {name: (job.folder / name).read_bytes() for name in (GROUND, SCENE)}
    batch.write_points(shared / GROUND, np.zeros((3, 3), dtype=np.float32))
    shared.joinpath(SCENE).write_bytes(own[SCENE])
    (job.folder / batch.EPISODE).unlink()
    drive_all([job])
    assert {name: (job.folder / name).read_bytes() for name in own} == own
    assert (job.folder / SCENE).samefile(shared / SCENE)


def test_rows_that_do_not_pair_are_refused(tmp_path):
    write_made_up(tmp_path / "a", [made_up("easy_0", 0, 0.1), made_up("easy_1", 0, 0.1)])
    write_made_up(tmp_path / "less", [made_up("easy_0", 0, 0.1)])
    write_made_up(tmp_path / "other", [made_up("easy_0", 0, 0.1), made_up("easy_1", 0, 0.1)], pivot="camera")
    three = [made_up("easy_0", seed, 0.1) for seed in range(3)]
    write_made_up(tmp_path / "three", three)
    write_made_up(tmp_path / "two", three[:2])
    (tmp_path / "begun").mkdir()
    batch.claim(tmp_path / "begun", {"config": "begun", "preset": "pr57"})
    rows = {path.name: Row(path.name, (path,)) for path in tmp_path.iterdir()}
    rows["both"] = Row("both", (tmp_path / "two", tmp_path / "two"))
    rows["trio"] = Row("trio", (tmp_path / "two",) * 3)
    rows["mixed"] = Row("mixed", (tmp_path / "two", tmp_path / "three"))
    for pair, said in (
        (("a", "less"), "only one of them has driven easy_1"),
        (("a", "other"), "has another pivot than"),
        (("both", "trio"), "both and trio: 2 and 3 trainings do not pair"),
        (("two", "three"), "three: was driven with traffic seeds 0, 1, 2, .*two with traffic seeds 0, 1;"),
        (("less", "two"), "two: was driven with traffic seeds 0, 1, .*less with traffic seed 0;"),
        (("mixed",), "three: was driven with traffic seeds 0, 1, 2, .*the same --seeds"),
        (("a", "begun"), "begun: has no episode yet"),
    ):
        with pytest.raises(LiveError, match=said):
            compare([rows[name] for name in pair])
    with pytest.raises(LiveError, match="holds no run"):
        compare([Row("none", (tmp_path / "none",))])


def test_a_run_that_has_driven_nothing_may_begin_otherwise(tmp_path):
    """As where the weights were forgotten."""
    batch.claim(tmp_path, {"checkpoint": None})
    assert batch.claim(tmp_path, {"checkpoint": "a"}) == []
    assert batch.read_settings(tmp_path) == {"checkpoint": "a"}
    (tmp_path / batch.SETTINGS).write_text("{")
    with pytest.raises(LiveError, match=r"settings\.json: cannot be read"):
        batch.claim(tmp_path, {"checkpoint": "a"})


def test_a_run_of_before_goes_on_and_what_it_does_not_tell_is_named(tmp_path):
    batch.claim(tmp_path, {"config": "a"})
    (tmp_path / "seed_0").mkdir()
    assert batch.claim(tmp_path, {"config": "a", "recipe": "r", "sumo": "1"}) == ["recipe", "sumo"]
    assert batch.read_settings(tmp_path) == {"config": "a"}
    (tmp_path / batch.SETTINGS).write_text(json.dumps({"config": "a", "recipe": "r"}))
    with pytest.raises(LiveError, match="made with another recipe"):
        batch.claim(tmp_path, {"config": "a", "recipe": "s", "sumo": "1"})


def test_a_part_of_a_run_is_not_compared(tmp_path):
    """Not even where both were killed at the same place."""
    episodes = [made_up("easy_0", 0, 0.1), made_up("easy_1", 0, 0.2)]
    write_made_up(tmp_path / "whole", episodes, scenarios=2)
    write_made_up(tmp_path / "part", episodes[:1], scenarios=2)
    rows = {path.name: Row(path.name, (path,)) for path in tmp_path.iterdir()}
    assert compare([rows["whole"]])["groups"]["all"]["scenarios"] == 2
    with pytest.raises(LiveError, match="part: has driven 1 of 2 scenarios; finish the run"):
        compare([rows["part"]])
    (path,) = (tmp_path / "part").glob("*/*/episode.json")
    del episodes[0]["kilometres"]
    path.write_text(json.dumps(episodes[0]))
    with pytest.raises(LiveError, match=r"part: easy_0, seed 0: its episode\.json lacks 'kilometres'"):
        compare([rows["part"]])
    path.write_text("{")
    with pytest.raises(LiveError, match=r"easy_0/episode\.json: cannot be read"):
        compare([rows["part"]])


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
    assert isinstance(results[0], batch.Failed) and not open_sessions
