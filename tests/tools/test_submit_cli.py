"""``submit``: planners become official files of both kinds, which are read and scored again."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.engine.runner import build_test_runner, load_config
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm.scores.epdms_of_run import RUN_COLUMNS
from beyonddrive.evaluation.plan_files import write_arrays
from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.evaluation.score_results import read_results
from beyonddrive.evaluation.score_rows import two_stage_means
from beyonddrive.evaluation.split_scoring import score_split
from beyonddrive.evaluation.submissions.official_file import read_submission
from beyonddrive.tools import submit as tool

TWO_STAGE = Path(__file__).parents[1] / "data/golden/two_stage"
TEAM = ["--team=T", "--authors=A", "--email=a@example.org", "--institution=I", "--country=C"]


@pytest.fixture
def weights(tmp_path, blind_recipe):
    torch.manual_seed(0)
    model = build_test_runner(load_config(blind_recipe), work_dir=str(tmp_path / "w")).model
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


@pytest.fixture
def one_group(tmp_path):
    """The split of one recorded group."""
    values = json.loads((TWO_STAGE / "data/two_stage_split.json").read_text())
    there = {path.stem for path in (TWO_STAGE / "data/synthetic_scene_pickles").glob("*.pkl")}
    group = next(g for g in values["reactive_all_mapping"] if {t for pair in g[2] for t in pair} <= there)
    group[2] = group[2][:2]
    values.update(
        reactive_all_mapping=[group],
        tokens=group[:2],
        reactive_synthetic_initial_tokens=[token for pair in group[2] for token in pair],
        log_names=None,
    )
    path = tmp_path / "one_group.json"
    path.write_text(json.dumps(values))
    return path


def test_a_planner_of_one_stage_is_submitted_and_scored(
    tmp_path, monkeypatch, capsys, blind_recipe, split_root, weights
):
    monkeypatch.chdir(tmp_path)
    words = [str(blind_recipe), weights, weights, "--board=navtest", *TEAM, "--out=submission.pkl"]
    assert tool.main(words) == 0
    out, err = capsys.readouterr()
    assert "submission.pkl: v1, 3 plans, 2 seed(s), of 'T'" in out
    assert err.count("has 3 scenes, navtest has 12146: this is not the split of the board") == 1
    assert err.count("nobody compares the scenes with those of the board") == 1
    plans = {token: plan[None] for token, plan in read_submission(Path("submission.pkl")).seeds[1][0].items()}
    check = ["--check=submission.pkl", "--board=navtest", f"--data-root={split_root}", "--scores=s.csv"]
    assert tool.main(check) == 0
    scores = score_split(NavsimRoot(split_root), "test", plans, progress_bar=False).values
    rows = list(csv.reader(Path("s.csv").read_text().splitlines()))
    assert rows[0][:9] == ["seed", "token", "NC", "DAC", "EP", "TTC", "C", "DDC", "PDMS"] and len(rows) == 7
    assert rows[0][9:] == ["error", "label"]
    root = NavsimRoot(split_root)
    logs = [(scene.token, scene.log_name) for scene in root.scenes("test") if scene.token in scores]
    data = MetricCaches("test", root).logs_digest(logs)
    for seed, token, *values, error, label in rows[1:]:
        assert not error and data
        assert ScoreLabel.parse(label) == ScoreLabel.of(BASES["pdms"], scores, data=data)
        assert seed in "01" and [float(value) for value in values] == scores[token][0].tolist()
    mean = 100 * np.mean([values[0, -1] for values in scores.values()])
    assert capsys.readouterr().out.count(f"{mean:8.2f}\n") == 2
    # A board walks over its own scenes: plans of others do not count, those that it lacks end it.
    token = min(scores)
    Path("board.yaml").write_text(f"tokens: ['{token}']\nlog_names: null\n")
    assert tool.main([*check, "--split-file=board.yaml"]) == 0
    out, err = capsys.readouterr()
    assert out.count(f"{100 * scores[token][0, -1]:8.2f}\n") == 2 and "1 scenes" in out
    assert "2 plans are of scenes that board.yaml does not list" in err


def test_a_scene_without_a_plan_stops_a_submission(
    tmp_path, monkeypatch, capsys, blind_recipe, split_root, weights
):
    monkeypatch.chdir(tmp_path)
    log = max((split_root / "navsim_logs/test").glob("*.pkl"))
    shutil.copy(log, tmp_path / "log.pkl")
    log.write_bytes(log.read_bytes()[:100])
    words = [str(blind_recipe), weights, "--board=navtest", *TEAM, "--out=submission.pkl"]
    assert tool.main(words) == 1
    said = capsys.readouterr().err
    assert "1 scenes have no plan" in said and log.stem in said and not Path("submission.pkl").exists()


def test_a_planner_of_two_stages_is_submitted_and_scored(
    tmp_path, monkeypatch, capsys, blind_recipe, weights, one_group
):
    monkeypatch.chdir(tmp_path)
    data = TWO_STAGE / "data"
    where = [f"--split-file={one_group}", f"--synthetic-scenes={data / 'synthetic_scene_pickles'}"]
    words = [str(blind_recipe), weights, "--board=navhard", *TEAM, "--out=submission.pkl", *where]
    assert tool.main([*words, "--cfg-options", f"data_root={data}"]) == 0
    out, err = capsys.readouterr()
    assert "v2, 2 + 4 plans" in out and "this is not the split of the board" in err
    maps = TWO_STAGE.parent / "pdms/data/maps"
    check = ["--check=submission.pkl", *where, f"--data-root={data}", f"--maps-root={maps}"]
    assert tool.main(check) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[-4:]] == [
        *("NC", "stage", "stage", "combined")
    ]
    broken = shutil.copytree(data / "synthetic_scene_pickles", tmp_path / "pickles")
    token = json.loads(one_group.read_text())["reactive_synthetic_initial_tokens"][0]
    (broken / f"{token}.pkl").write_bytes(b"x")
    where[1] = f"--synthetic-scenes={broken}"
    assert tool.main(["--check=submission.pkl", *where, *check[3:]]) == 1
    assert (
        f"{token} has no score" in (said := capsys.readouterr().err) and "the board would give none" in said
    )
    words = [word for word in words if not word.startswith(("--synth", "--out"))]
    assert tool.main([*words, where[1], "--out=s.pkl", "--cfg-options", f"data_root={data}"]) == 1
    assert f"{token} has no plan" in capsys.readouterr().err and not Path("s.pkl").exists()


@pytest.fixture
def private_test(tmp_path):
    """A private test as NAVSIM lays it out: two groups of original scenes in one log, two follow-ups."""
    logs = sorted((TWO_STAGE.parent / "pdms/data/navsim_logs/golden").glob("*.pkl"))[:4]
    groups = []
    for number, path in enumerate(logs):
        frames = pickle.loads(path.read_bytes())[:5]
        for frame in frames:
            del frame["anns"]
            frame["scene_token"] = f"group{number}"
            frame["token"] = f"{number}{frame['token'][1:]}" + ("f" if number > 1 else "")
        groups.append(frames)
    folder, later = tmp_path / "private/navsim_logs/private", tmp_path / "follow-ups"
    folder.mkdir(parents=True)
    later.mkdir()
    # Mixed, as nothing says that they are not, and with a group that is too short.
    mixed = [*groups[1][::-1], *groups[0]]
    mixed.insert(3, groups[1][0] | {"token": "short", "scene_token": "short"})
    (folder / "log.pkl").write_bytes(pickle.dumps(mixed))
    for number in (2, 3):
        (later / f"{number}.pkl").write_bytes(pickle.dumps(groups[number]))
    tokens = [[frame["token"] for frame in group[3:]] for group in groups]
    split = {"tokens": tokens[0] + tokens[1], "data_split": "private"}
    split["reactive_synthetic_initial_tokens"] = [tokens[2][0], tokens[3][0]]
    (tmp_path / "private_test.yaml").write_text(json.dumps(split))
    return tokens


def test_the_private_test_is_submitted_and_checked(
    tmp_path, monkeypatch, capsys, blind_recipe, weights, private_test
):
    monkeypatch.chdir(tmp_path)
    where = ["--board=private", "--split-file=private_test.yaml", "--synthetic-scenes=follow-ups"]
    words = [str(blind_recipe), weights, *where, *TEAM, "--out=submission.pkl"]
    assert tool.main([*words, "--cfg-options", "data_root=private"]) == 0
    assert "v2, 4 + 4 plans" in capsys.readouterr().out
    [(first, second)] = read_submission(Path("submission.pkl")).seeds
    assert sorted(first) == sorted(private_test[0] + private_test[1])
    assert sorted(second) == sorted(private_test[2] + private_test[3])
    assert tool.main(["--check=submission.pkl", *where]) == 0
    assert "submission.pkl has 4 + 4 scenes, private has 140 + 1732" in capsys.readouterr().err
    assert tool.main(["--check=submission.pkl", *where, "--data-root=private"]) == 1
    assert "board private cannot be scored here: neither its table" in capsys.readouterr().err
    assert tool.main(["--check=submission.pkl", "--board=navhard", "--split-file=private_test.yaml"]) == 1
    assert "has no reactive_all_mapping" in capsys.readouterr().err
    broken = next(Path("follow-ups").glob("*.pkl"))
    broken.write_bytes(pickle.dumps(pickle.loads(broken.read_bytes())[:4]))
    Path("submission.pkl").unlink()
    assert tool.main([*words, "--cfg-options", "data_root=private"]) == 1
    assert "no group of 5 frames, but of 4" in capsys.readouterr().err
    assert not Path("submission.pkl").exists()


def test_recorded_scores_of_the_official_code_are_met(tmp_path, capsys, one_group):
    golden = np.load(TWO_STAGE / "two_stage.npz")
    row_of = {str(token): row for row, token in enumerate(golden["token"])}
    write_arrays(
        tmp_path / "p.npz", [(token, golden["poses"][0, row][None]) for token, row in row_of.items()]
    )
    data = TWO_STAGE / "data"
    out, scores = tmp_path / "submission.pkl", tmp_path / "scores.csv"
    where = [f"--split-file={one_group}", f"--synthetic-scenes={data / 'synthetic_scene_pickles'}"]
    words = ["--board=warmup", f"--plans={tmp_path / 'p.npz'}", where[0], *TEAM, f"--out={out}"]
    assert tool.main(words) == 0
    assert "72 scenes that the board does not want are left out" in capsys.readouterr().err
    places = [f"--data-root={data}", f"--maps-root={TWO_STAGE.parent / 'pdms/data/maps'}"]
    assert tool.main([f"--check={out}", *where, *places, f"--scores={scores}"]) == 0
    rows = list(csv.DictReader(scores.read_text().splitlines()))
    assert len(rows) == 6
    for row in rows:
        token, found = row["token"], np.array([row[name] for name in RUN_COLUMNS], dtype=float)
        # float32, as the file has them
        np.testing.assert_allclose(found[:8], golden["scores_filtered"][0, row_of[token]], atol=1e-5)
        assert found[8] == golden["ec"][0, row_of[token]]
    # What it says of itself is what a report needs.
    said = capsys.readouterr().out.splitlines()
    results = read_results("golden", scores)
    assert str(results.scored) in said
    mean = 100 * two_stage_means(results.values, results.halves)[-1]
    assert said[-1].startswith("combined") and said[-1].endswith(f"{mean:8.2f}")
    values = json.loads(one_group.read_text())
    values["reactive_all_mapping"][0][2].pop()
    one_group.write_text(json.dumps(values))
    assert tool.main([f"--check={out}", *where, *places]) == 1
    assert "2 of 6 plans are of scenes in no group of" in capsys.readouterr().err


def test_a_split_file_that_does_not_say_whose_logs_is_refused(tmp_path, capsys, one_group):
    values = json.loads(one_group.read_text())
    del values["data_split"]
    one_group.write_text(json.dumps(values))
    tokens = values["tokens"] + values["reactive_synthetic_initial_tokens"]
    write_arrays(tmp_path / "p.npz", [(token, np.zeros((1, 8, 3))) for token in tokens])
    out, data = tmp_path / "submission.pkl", TWO_STAGE / "data"
    where = [f"--split-file={one_group}", f"--synthetic-scenes={data / 'synthetic_scene_pickles'}"]
    words = ["--board=warmup", f"--plans={tmp_path / 'p.npz'}", where[0], *TEAM, f"--out={out}"]
    assert tool.main(words) == 0
    assert tool.main([f"--check={out}", *where, f"--data-root={data}"]) == 1
    assert f"{one_group}: has no data_split" in capsys.readouterr().err


def test_plans_that_are_missing_and_words_that_do_not_fit_are_said(tmp_path, capsys, one_group):
    write_arrays(tmp_path / "p.npz", [("a", np.zeros((1, 8, 3)))])
    words = [f"--plans={tmp_path / 'p.npz'}", f"--split-file={one_group}", *TEAM, f"--out={tmp_path / 'o'}"]
    assert tool.main(["--board=warmup", *words]) == 1
    assert "2 of 2 scenes of the first stage have no plan" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
    for line, said in (
        (words, "--board: name the leaderboard"),
        (["--board=navtest", *words[:2], "--out=o"], "--team, --authors, --email"),
        (["--board=navtest", "config", *TEAM, "--plans=p", "--out=o"], "give one of CONFIG CHECKPOINT"),
        (["--board=navhard", "config", *TEAM, "--out=o", "--split-file=s"], "--synthetic-scenes: board"),
        (["--check=a", "--out=o"], "--out: nothing is written"),
        (["--merge=a", "--out=a"], "is read by this command"),
        (["--merge=a", "--out=b", "--team=T"], "--team: goes with CONFIG or --plans"),
        (["--merge=a", "--out=b", "--split=s"], "--split: goes with CONFIG or --check"),
        (["--merge=a", "--out=b", "--synthetic-scenes=s"], "--synthetic-scenes: goes with CONFIG"),
        (["--board=warmup", *words, "--synthetic-scenes=s"], "--synthetic-scenes: goes with CONFIG"),
        (["--board=warmup", *words, "--synthetic-sensors=s"], "--synthetic-sensors: goes with CONFIG"),
        (["--check=a", "--data-root=d", "--synthetic-sensors=s"], "--synthetic-sensors: goes with CONFIG"),
        (["--check=a", "--cache-dir=c"], "--cache-dir: goes with --data-root"),
        (["--check=a", "--split=test"], "--split: goes with --data-root"),
        (["--check=a", "--data-root=d", "--scores=a"], "--scores: a is a folder, or read by this command"),
        (["--merge=a", "--out=b", "--split-file=s"], "--split-file: compares the scenes with those of a"),
        (["--board=warmup", *words, "--data-root=d"], "--data-root: goes with --check"),
        (["--board=warmup", *words, "--maps-root=d"], "--maps-root: goes with --check"),
        (["--board=warmup", *words, "--cache-dir=d"], "--cache-dir: goes with --check"),
        (["--board=warmup", *words, "--scores=d"], "--scores: goes with --check"),
        (["--board=warmup", *words, "--num-workers=2"], "--num-workers: goes with --check"),
        (["--board=warmup", *words, "--cfg-options", "a=b"], "--cfg-options: goes with CONFIG"),
        (["config", "--board=navtest", *TEAM, "--out=o", "--split=s"], "--split: goes with a board of two"),
        (
            ["config", "--board=navtest", *TEAM, "--out=o", "--synthetic-sensors=s"],
            "--synthetic-sensors: goes",
        ),
        (["--check=a", "--email=e"], "--email: goes with CONFIG or --plans"),
    ):
        with pytest.raises(SystemExit):
            tool.parse_args(line)
        assert said in capsys.readouterr().err


def test_without_a_list_of_scenes_their_number_is_compared(tmp_path, capsys, one_group):
    values = json.loads(one_group.read_text())
    tokens = values["tokens"] + values["reactive_synthetic_initial_tokens"]
    write_arrays(tmp_path / "p.npz", [(token, np.zeros((1, 8, 3))) for token in tokens])
    out = tmp_path / "submission.pkl"
    words = [f"--plans={tmp_path / 'p.npz'}", f"--split-file={one_group}", *TEAM, f"--out={out}"]
    assert tool.main(["--board=warmup", *words]) == 0
    capsys.readouterr()
    for line in ([f"--check={out}"], [f"--merge={out}", f"--out={tmp_path / 'again.pkl'}"]):
        assert tool.main([*line, "--board=warmup"]) == 0
        err = capsys.readouterr().err
        assert "give --split-file, NAVSIM's train_test_split/warmup_two_stage.yaml" in err
        assert f"{out} has 2 + {len(tokens) - 2} scenes, warmup has 16 + 204" in err


def test_a_file_that_cannot_be_written_is_said_before_the_work(
    tmp_path, monkeypatch, capsys, blind_recipe, weights, one_group
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(tool, "planned", None)
    words = [str(blind_recipe), weights, "--board=navtest", *TEAM, f"--out={tmp_path / 'file/out.pkl'}"]
    assert tool.main(words) == 1
    assert "file/out.pkl: cannot be written" in capsys.readouterr().err
    tokens = json.loads(one_group.read_text())["tokens"]
    tokens += json.loads(one_group.read_text())["reactive_synthetic_initial_tokens"]
    write_arrays(tmp_path / "p.npz", [(token, np.zeros((1, 8, 3))) for token in tokens])
    words = ["--board=warmup", f"--plans={tmp_path / 'p.npz'}", f"--split-file={one_group}", *TEAM]
    assert tool.main([*words, f"--out={tmp_path / 's.pkl'}"]) == 0
    monkeypatch.setattr(tool, "score_seed", None)
    words = [f"--check={tmp_path / 's.pkl'}", f"--data-root={TWO_STAGE / 'data'}"]
    assert tool.main([*words, f"--scores={tmp_path / 'file/s.csv'}"]) == 1
    assert "file/s.csv: cannot be written" in capsys.readouterr().err
