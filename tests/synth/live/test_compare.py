"""Figures of a run, and rows side by side."""

import json

import numpy as np
import pytest
from scipy import stats

from beyonddrive.evaluation.statistics import intervals
from beyonddrive.synth.live import run_folder, summary
from beyonddrive.synth.live.compare import Row, compare, comparison_text, pairs_csv
from beyonddrive.synth.live.town import LiveError
from beyonddrive.tests.synth.live.conftest import made_up, write_made_up


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


def test_episodes_without_a_score_are_named_and_not_only_counted_as_0(tmp_path):
    episodes = [made_up(f"easy_{i}", 0, 0.5) for i in range(3)]
    write_made_up(tmp_path / "plain", episodes)
    assert "unscored" not in summary.summarise(episodes)
    why = "no key frame has a plan of three or more points"
    for episode in episodes[1:]:
        episode["unscored"] = why
    write_made_up(tmp_path / "short", episodes)
    figures = summary.summarise(episodes)
    assert figures["unscored"] == {why: 2}
    line = f"without a score, counted as 0: 2 episodes: {why}"
    assert summary.as_text(figures).splitlines()[0] == line
    result = compare([Row(name, (tmp_path / name,)) for name in ("plain", "short")])
    assert result["unscored"] == {"plain": {}, "short": {why: 2}}
    assert comparison_text(result).splitlines()[0] == f"short: {line}"


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


@pytest.mark.parametrize(
    ("key", "there"),
    [("config", "another"), ("options", {"model.calibration.turn": "0.1"}), ("exported", True)],
)
def test_a_row_has_trainings_of_one_planner(tmp_path, key, there):
    episodes = [made_up(f"easy_{i}", 0, 0.5) for i in range(2)]
    own = {"options": {"data_root": "a"}, "exported": False}
    write_made_up(tmp_path / "a", episodes, **own)
    write_made_up(tmp_path / "b", episodes, **own | {"options": {"data_root": "b"}})
    write_made_up(tmp_path / "c", episodes, **own | {key: there})
    a, b, c = (tmp_path / name for name in "abc")
    assert compare([Row("one", (a, b)), Row("another", (c,))])
    with pytest.raises(LiveError, match=rf"mixed: \S+settings\.json has another {key} than \S+a; a row has"):
        compare([Row("mixed", (a, c))])


def test_trainings_that_were_served_have_a_script_each(tmp_path):
    for name, script in (("a", "of weights a"), ("b", "of weights b")):
        write_made_up(tmp_path / name, [made_up(f"easy_{i}", 0, 0.5) for i in range(2)], planner=script)
    a, b = tmp_path / "a", tmp_path / "b"
    assert compare([Row("both", (a, b)), Row("one", (a,))])["intervals"]["both"]["figures"]


def test_rows_that_do_not_pair_are_refused(tmp_path):
    write_made_up(tmp_path / "a", [made_up("easy_0", 0, 0.1), made_up("easy_1", 0, 0.1)])
    write_made_up(tmp_path / "less", [made_up("easy_0", 0, 0.1)])
    write_made_up(tmp_path / "other", [made_up("easy_0", 0, 0.1), made_up("easy_1", 0, 0.1)], pivot="camera")
    three = [made_up("easy_0", seed, 0.1) for seed in range(3)]
    write_made_up(tmp_path / "three", three)
    write_made_up(tmp_path / "two", three[:2])
    (tmp_path / "begun").mkdir()
    run_folder.claim(tmp_path / "begun", {"config": "begun", "preset": "pr57"})
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
