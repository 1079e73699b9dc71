"""HUGSIM runs scored from the command line: one, many, broken ones."""

import json
import pickle
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from beyonddrive.tools.check_golden import main as check_golden
from beyonddrive.tools.hugsim_score import main

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "hugsim"
SCENARIO = """
scene_name: {scene}
mode: {mode}
plan_list: []
load_HD_map: false
start_euler: [0, 0, 0]
start_ab: [0, 0]
start_velo: 1
start_steer: 0
"""


def write_ply(path, points):
    vertices = np.array([tuple(p) for p in points], dtype=[(axis, "f4") for axis in "xyz"])
    PlyData([PlyElement.describe(vertices, "vertex")]).write(path)


@pytest.fixture
def results(tmp_path):
    """Runs of three recorded scenarios, with the official ``eval.json`` of each."""
    clouds = np.load(GOLDEN / "points.npz")
    records = {item["name"]: item for item in json.loads((GOLDEN / "records.json").read_text())}
    for name, mode in (("plain", "easy_00"), ("crowd", "hard_00"), ("empty", "hard_01")):
        folder = tmp_path / "results" / f"{name}_{mode}"
        folder.mkdir(parents=True)
        (folder / "data.pkl").write_bytes(pickle.dumps([records[name]["record"]]))
        for kind in ("ground", "scene"):
            write_ply(folder / f"{kind}.ply", clouds[f"{kind}_0"])
        scenarios = tmp_path / "scenarios" / "nuscenes"
        scenarios.mkdir(parents=True, exist_ok=True)
        (scenarios / f"{name}.yaml").write_text(SCENARIO.format(scene=name, mode=mode))
    (scenarios / "lost.yaml").write_text(SCENARIO.format(scene="lost", mode="easy_01"))
    return tmp_path / "results", records


def test_one_record_gets_the_official_figures(results, tmp_path, capsys):
    folder, records = results
    out = tmp_path / "eval.json"
    record = folder / "plain_easy_00" / "data.pkl"
    assert main([str(record), "--preset", "main", "--explain", "--out", str(out)]) == 0
    written, golden = json.loads(out.read_text()), records["plain"]["eval"]
    for figures, expected in [
        (written, golden),
        *((written["details"][k], v) for k, v in golden["details"].items()),
    ]:
        for name in set(expected) - {"details"}:
            assert figures[name] == pytest.approx(expected[name], abs=1e-9)
    printed = capsys.readouterr().out
    assert "scored with (preset main): comfort_lon_max=2.4, scorer_box=up; read from the records" in printed
    assert "plan_timestep=0.5; not known from a record: controller, plan_anchor, resets" in printed
    assert written["settings"] == {"comfort_lon_max": 2.4, "scorer_box": "up"}
    assert written["from_records"] == {"plan_timestep": [0.5]}
    assert written["not_known"] == ["controller", "plan_anchor", "resets"]
    assert f"hdscore {golden['hdscore']:.4f}" in printed
    assert "collision with" in printed
    # Beside the details, whose keys are the official ones.
    lossy = {time for time, values in written["details"].items() if values["pdms"] < 1}
    assert set(written["losses"]) == lossy and "collision with" in str(written["losses"])
    assert all(set(values) == {"nc", "dac", "ttc", "c", "pdms"} for values in written["details"].values())


def test_many_runs_count_what_is_absent_as_zero(results, tmp_path, capsys):
    folder, records = results
    out = tmp_path / "all.json"
    options = ["--scenarios", str(tmp_path / "scenarios"), "--preset", "main", "--out", str(out)]
    assert main([str(folder), *options, "--explain"]) == 1
    found = json.loads(out.read_text())
    total = records["plain"]["eval"]["hdscore"] + records["crowd"]["eval"]["hdscore"]
    assert found["num_scenarios"] == 4
    assert found["mean_per_episode"]["hdscore"] == pytest.approx(total / 4)
    assert found["absent"] == {"empty_hard_01": "the record has no frames", "lost_easy_01": "wrote no record"}
    assert set(found["by_difficulty"]) == {"easy", "hard"} and set(found["by_data_set"]) == {"nuscenes"}
    printed = capsys.readouterr().out
    assert "2 without a score count as 0" in printed
    for name, folder_name in (("plain", "plain_easy_00"), ("crowd", "crowd_hard_00")):
        golden = records[name]["eval"]
        heading, *lines = printed[printed.index(folder_name) :].splitlines()
        assert heading.startswith(f"{folder_name}  hdscore {golden['hdscore']:.4f}")
        time, values = next(iter(golden["details"].items()))
        assert lines[0].startswith(f"{float(time):8.2f} s  {values['pdms']:.4f}")
    assert "collision with" in str(found["runs"]["plain_easy_00"]["losses"])
    assert "\nby difficulty\n  easy" in printed and "\nby data set\n  nuscenes" in printed


def test_a_bad_record_counts_as_zero_and_stops_no_other(results, tmp_path, capsys):
    folder, records = results
    record = folder / "crowd_hard_00" / "data.pkl"
    content = pickle.loads(record.read_bytes())
    content[0]["frames"][2]["rc"] = "abc"
    record.write_bytes(pickle.dumps(content))
    out = tmp_path / "all.json"
    assert main([str(folder), "--preset", "main", "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    expected = records["plain"]["eval"]["hdscore"] / found["num_scenarios"]
    assert found["mean_per_episode"]["hdscore"] == pytest.approx(expected)
    reason = f"{record}: frame 2: rc: must be a finite number, got 'abc'"
    assert found["absent"]["crowd_hard_00"] == reason and reason in capsys.readouterr().err


def test_the_hash_of_a_list_says_what_it_covers(results, tmp_path, capsys):
    folder, _ = results
    out = tmp_path / "all.json"
    scenarios = tmp_path / "scenarios"
    words = [str(folder), "--out", str(out)]

    def written(*more):
        main([*words, *more])
        found = json.loads(out.read_text())
        line = f"list {found['scenario_list']} ({found['scenario_list_of']})"
        assert line in capsys.readouterr().out
        return found["scenario_list"], found["scenario_list_of"], found["scenario_files"]

    first, of, files = written("--scenarios", str(scenarios))
    assert of == "names and contents of scenario files"
    content = (scenarios / "nuscenes" / "plain.yaml").read_bytes()
    assert files["plain_easy_00"] == blake2b(content, digest_size=8).hexdigest() and len(files) == 4
    (scenarios / "nuscenes" / "plain.yaml").write_bytes(content + b"# changed")
    second, _, other = written("--scenarios", str(scenarios))
    assert second != first
    assert {name for name in files if files[name] != other[name]} == {"plain_easy_00"}
    _, of, files = written()
    assert of == "names of folders alone" and files == {}


@pytest.mark.parametrize("words", [["--scorer-box", "down"], ["--switch", "scorer_box=down"]])
def test_switches_change_the_figures_and_are_named(results, tmp_path, capsys, words):
    record, out = results[0] / "crowd_hard_00" / "data.pkl", tmp_path / "eval.json"
    assert main([str(record), *words, "--out", str(out)]) == 0
    assert "scored with (preset pr57 with scorer_box=down): " in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found["preset"] == "pr57 with scorer_box=down" and found["settings"]["scorer_box"] == "down"


@pytest.mark.parametrize(
    "words, said",
    [
        (["--switch", "controller=main"], "controller: acts while a run is driven, not in the scorer"),
        (["--switch", "scorer_box=left"], "scorer_box: must be one of up, down, got 'left'"),
        (["--comfort-lon-max", "-1"], "comfort_lon_max: must be a positive number, got -1.0"),
    ],
)
def test_switches_that_cannot_act_are_refused(results, capsys, words, said):
    assert main([str(results[0] / "crowd_hard_00" / "data.pkl"), *words]) == 1
    seen = capsys.readouterr()
    assert said in seen.err and seen.err.count("\n") == 1 and not seen.out


def test_a_record_that_a_preset_did_not_make_is_named(results, capsys):
    record = str(results[0] / "plain_easy_00" / "data.pkl")
    assert main([record, "--preset", "main"]) == 0
    assert not capsys.readouterr().err
    assert main([record, "--preset", "mid_2025"]) == 0
    seen = capsys.readouterr()
    assert "plan_timestep of 0.5 s, and preset mid_2025 has 0.25 s" in seen.err
    assert "plan_timestep=0.5;" in seen.out and "0.25" not in seen.out


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("data.pkl", b"no pickle", "corrupt"),
        ("data.pkl", pickle.dumps([print]), "refused to load builtins.print"),
        ("ground.ply", b"no ply", "is no ply file"),
        ("scene.ply", None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_named(results, capsys, name, content, message):
    path = results[0] / "plain_easy_00" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    assert main([str(path.with_name("data.pkl"))]) == 1
    error = capsys.readouterr().err
    assert str(path) in error and message in error


def test_folders_that_belong_to_no_scenario_count_nowhere_and_are_named(results, tmp_path, capsys):
    folder, _ = results
    out = tmp_path / "all.json"
    (folder / "logs").mkdir()
    (folder / "plain_easy_00").rename(folder / "plain_easy_07")
    assert main([str(folder), "--out", str(out)]) == 1
    found, seen = json.loads(out.read_text()), capsys.readouterr()
    assert found["left_out"] == ["logs"] and found["num_scenarios"] == 3
    assert set(found["by_difficulty"]) == {"easy", "hard"} and found["by_data_set"] == {}
    means = [values["rc"] for values in found["by_difficulty"].values()]
    assert found["mean_of_difficulties"]["rc"] == pytest.approx(sum(means) / 2)
    assert "left out folders that belong to no scenario by their names: logs\n" in seen.err
    assert "by data set" not in seen.out
    assert main([str(folder), "--scenarios", str(tmp_path / "scenarios"), "--out", str(out)]) == 1
    found = json.loads(out.read_text())
    assert found["left_out"] == ["logs", "plain_easy_07"]
    assert found["absent"]["plain_easy_00"] == "wrote no record"
    assert "no file of --scenarios: logs, plain_easy_07\n" in capsys.readouterr().err
    (tmp_path / "other" / "logs").mkdir(parents=True)
    assert main([str(tmp_path / "other")]) == 1
    assert "holds no folders of runs, <scene>_<difficulty>_<number>" in capsys.readouterr().err


def test_golden_directories_are_recognised(tmp_path, capsys):
    (tmp_path / "comfort.npz").write_bytes((GOLDEN / "comfort.npz").read_bytes())
    assert check_golden([str(tmp_path)]) == 0
    assert "comfort.npz" in capsys.readouterr().out


def test_recorded_episodes_alone_are_recognised_and_options_of_others_refused(tmp_path, capsys):
    (tmp_path / "episodes").mkdir()
    path = min((GOLDEN / "episodes").glob("*.npz"))
    (tmp_path / "episodes" / path.name).write_bytes(path.read_bytes())
    assert check_golden([str(tmp_path)]) == 0
    assert f"episodes/{path.name}" in capsys.readouterr().out
    for option, value, owner in (
        ("--planner", "ltf", "planners"), ("--device", "cuda", "planners"),
        ("--maps-root", "maps", "two-stage scores"),
    ):  # fmt: skip
        assert check_golden([str(tmp_path), option, value]) == 1
        said = f"{tmp_path}: holds HUGSIM's arrays; {option} goes with {owner} alone"
        assert said in capsys.readouterr().err


def test_results_that_are_no_folder_are_named(results, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "result"), "--scenarios", str(tmp_path / "scenarios")])
    assert ended.value.code == 2
    assert f"a folder of runs, and {tmp_path / 'result'} is none" in capsys.readouterr().err
