"""``beyonddrive score --basis``: every score of one file of plans, against recorded official results."""

import csv
import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.synthetic import read_synthetic_scene
from beyonddrive.evaluation.plan_files import read_label, write_arrays
from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.tools import report
from beyonddrive.tools import score as tool

DATA = Path(__file__).parents[1] / "data" / "golden"
GOLDEN, MAPS = DATA / "two_stage", DATA / "pdms" / "data" / "maps"


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "two_stage.npz"))


@pytest.fixture(scope="module")
def groups(golden):
    """The groups whose scenes are here."""
    table = json.loads((GOLDEN / "data/two_stage_split.json").read_text())["reactive_all_mapping"]
    known = {path.stem for path in (GOLDEN / "scenes").glob("*.npz")}
    return [group for group in table if {group[0], *chain(*group[2])} <= known]


def tokens_of(group):
    return [group[0], group[1], *chain(*group[2])]


def plans_of(golden, tokens, runs=(0,)):
    row = {str(token): i for i, token in enumerate(golden["token"])}
    return [(token, golden["poses"][list(runs), row[token]]) for token in tokens]


def arguments(folder, *options, data=GOLDEN / "data", out="table"):
    paths = ("--data-root", data, "--maps-root", MAPS, "--split", "two_stage")
    files = ("--plans", folder / "plans.npz", "--out", folder / out)
    return [str(value) for value in (*paths, *files, *options)]


@pytest.fixture(scope="module")
def everything(golden, groups, tmp_path_factory):
    """All bases of two runs, over all scenes that are here."""
    folder = tmp_path_factory.mktemp("all")
    tokens = [token for group in groups for token in tokens_of(group)]
    write_arrays(folder / "plans.npz", plans_of(golden, tokens, (0, 1)))
    code = tool.main(arguments(folder, "--basis", "all"))
    return folder, code, json.loads((folder / "table.json").read_text())


def rows_of(path):
    return {row["token"]: row for row in csv.DictReader(path.read_text().splitlines())}


COLUMNS = ("NC", "DAC", "DDC", "TLC", "EP", "TTC", "LK", "HC")


@pytest.mark.parametrize(
    ("name", "scores", "score"),
    [
        ("two-stage", "scores_filtered", "score"),
        ("two-stage-unfiltered", "scores_raw", None),
        ("two-stage-logged", "replay_scores_filtered", "replay_score"),
    ],
)
@pytest.mark.parametrize("run", [0, 1])
def test_scenes_of_two_stages_are_those_of_the_official_code(everything, golden, name, scores, score, run):
    rows = rows_of(everything[0] / f"table_scenes/{name}-{run}.csv")
    assert len(rows) == 18
    for i, token in enumerate(map(str, golden["token"])):
        if token in rows:
            found = [float(rows[token][column]) for column in COLUMNS]
            np.testing.assert_allclose(found, golden[scores][run, i], rtol=0, atol=1e-6)
            if score:
                assert float(rows[token]["EPDMS"]) == pytest.approx(golden[score][run, i], abs=1e-6)
                assert (
                    float(rows[token]["EC"]) == golden["ec" if name == "two-stage" else "replay_ec"][run, i]
                )
            if name == "two-stage":
                assert float(rows[token]["weight"]) == pytest.approx(golden["weight"][run, i], abs=1e-6)


def test_the_result_is_the_mean_over_groups_of_products_per_half(everything, golden, groups):
    _, _, table = everything
    numbers = [list(golden["group_now"]).index(group[0]) for group in groups]
    for run in (0, 1):
        halves = golden["group_scores"][run, numbers]
        wanted = (halves[:, 0] * halves[:, 1] + halves[:, 2] * halves[:, 3]).mean() / 2
        [row] = [
            row for row in table["rows"]
            if row["basis"] == "two-stage" and row["plan"] == run and row["part"] == "result"
        ]  # fmt: skip
        assert row["score"] == pytest.approx(wanted, abs=1e-9) and row["num_scenes"] == 18


def test_every_basis_has_a_labelled_row_in_csv_and_json(everything):
    folder, code, table = everything
    assert code == 1  # the windows of these logs are too short for PDMS, which is said
    assert [b["label"]["basis"] for b in table["bases"] if b["plan"] == 0] == list(BASES)
    assert all("10" in why for b in table["bases"] for why in b["failures"].values())
    for entry in table["bases"]:
        label = ScoreLabel.from_dict(entry["label"])
        assert (label.score, label.traffic) == (BASES[label.basis].score, BASES[label.basis].traffic)
    rows = list(csv.DictReader((folder / "table.csv").read_text().splitlines()))
    assert [row["basis"] for row in rows] == [row["basis"] for row in table["rows"]]
    assert {row["scorer_version"] for row in rows} == {"1"} and all(row["scenes"] for row in rows)
    assert not list(folder.glob(".*"))


def test_before_the_fix_the_filter_changed_the_columns_and_not_the_score(everything):
    _, _, table = everything
    of = {row["basis"]: row for row in table["rows"] if row["plan"] == 0 and row["part"] == "result"}
    for stem in ("epdms", "two-stage"):
        now, old, off = (of[f"{stem}{end}"] for end in ("", "-unfixed", "-unfiltered"))
        assert [old[c] for c in COLUMNS] == [now[c] for c in COLUMNS] != [off[c] for c in COLUMNS]
        assert old["score"] == off["score"] < now["score"]


def test_one_stage_is_that_of_the_other_options_to_the_bit(tmp_path):
    epdms = Path(__file__).parents[1] / "data/epdms"
    with np.load(epdms / "submissions.npz") as data:
        chosen = [i for i, log in enumerate(data["log"]) if "fast_cross" in str(log)]
        plans = [(str(data["token"][i]), data["poses"][[0], i]) for i in chosen]
        wanted = data["score"][0, chosen]
    write_arrays(tmp_path / "plans.npz", plans)
    args = ["--data-root", epdms, "--maps-root", MAPS, "--split", "epdms", "--plans", tmp_path / "plans.npz"]
    assert tool.main([*map(str, args), "--out", str(tmp_path / "t.csv"), "--basis", "pdms,epdms"]) == 0
    for version, name, width in (("v1", "pdms", 7), ("v2", "epdms", 8)):
        out = tmp_path / f"{name}.npz"
        assert tool.main([*map(str, args), "--out", str(out), "--version", version]) == 0
        rows = rows_of(tmp_path / f"t_scenes/{name}.csv")
        for token, values in np.load(out).items():
            columns = list(rows[token])[2 : 2 + width]
            assert [float(rows[token][column]) for column in columns] == values[0, :width].tolist()
        label = read_label(out)
        (text,) = {row["label"] for row in rows.values()}
        assert label == ScoreLabel.parse(text) and label.data
        assert label == ScoreLabel.of(BASES[name], rows, data=label.data)
        assert label.scenes == digest_of_lines(rows)
    found = [float(rows_of(tmp_path / "t_scenes/epdms.csv")[token]["EPDMS"]) for token, _ in plans]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


@pytest.fixture
def small(golden, groups, tmp_path):
    """The smallest group: its tokens, and a data root of its own."""
    group = min(groups, key=lambda item: len(item[2]))
    root = tmp_path / "root"
    shutil.copytree(GOLDEN / "data", root)
    return tokens_of(group), root


@pytest.mark.parametrize("zero", [False, True])
def test_scenes_without_a_plan_are_refused_with_their_list_or_count_as_0(
    golden, small, tmp_path, capsys, zero
):
    tokens, root = small
    gone = [tokens[1], tokens[2]]  # an original scene, and a follow-up scene
    write_arrays(tmp_path / "plans.npz", plans_of(golden, [t for t in tokens if t not in gone]))
    options = ("--basis", "two-stage-logged", *(("--missing", "zero") if zero else ()))
    assert tool.main(arguments(tmp_path, *options, data=root)) == int(not zero)
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["bases"][0]["missing"] == gone
    error = capsys.readouterr().err
    assert all(f"{token} has no plan" in error for token in gone)
    if not zero:
        assert f"2 of {len(tokens)} scenes of two stages have no plan" in error
        assert table["rows"][0]["score"] is None and not (tmp_path / "table_scenes").exists()
        return
    rows = rows_of(tmp_path / "table_scenes/two-stage-logged.csv")
    assert set(rows) == set(tokens)
    for token in gone:
        assert {float(rows[token][column]) for column in (*COLUMNS, "EC", "EPDMS")} == {0.0}
    assert float(rows[tokens[0]]["EC"]) == 0.0  # which is compared with one that is not there
    assert float(rows[tokens[3]]["EC"]) == 0.0
    weights = [float(rows[token]["weight"]) for token in tokens[2::2]]
    assert sum(weights) == pytest.approx(1.0)
    assert table["rows"][0]["score"] == pytest.approx(
        float(rows[tokens[0]]["EPDMS"])
        * sum(w * float(rows[t]["EPDMS"]) for w, t in zip(weights, tokens[2::2], strict=True))
        / 2
    )


def test_a_broken_scene_costs_its_group_and_the_rest_goes_on(golden, groups, tmp_path, capsys):
    root = tmp_path / "root"
    shutil.copytree(GOLDEN / "data", root)
    broken = groups[0][2][0][1]
    path = root / f"synthetic_scene_pickles/{broken}.pkl"
    path.write_bytes(path.read_bytes()[:-100])
    tokens = [token for group in groups for token in tokens_of(group)]
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    assert tool.main(arguments(tmp_path, "--basis", "two-stage-logged", data=root)) == 1
    error = capsys.readouterr().err
    assert f"{broken}: " in error and "corrupt or truncated" in error
    assert "1 of 2 groups are left out" in error
    rows = rows_of(tmp_path / "table_scenes/two-stage-logged.csv")
    scored = {token for token, row in rows.items() if row["EPDMS"]}
    assert scored == set(tokens_of(groups[1])) and rows[broken]["error"]
    label = ScoreLabel.parse(rows[broken]["label"])
    assert (label.num_scenes, label.scenes) == (len(scored), digest_of_lines(scored))


@pytest.mark.parametrize("basis", ["two-stage-logged", "epdms,two-stage-logged"])
def test_scenes_of_two_stages_are_of_the_logs_that_the_split_names(golden, small, tmp_path, capsys, basis):
    tokens, root = small
    (root / "navsim_logs/two_stage/0_not_named.pkl").write_bytes(b"no log")
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    code = tool.main(arguments(tmp_path, "--basis", basis, data=root))
    only_two = basis == "two-stage-logged"
    assert code == 0 and ("0_not_named" in capsys.readouterr().err) == (not only_two)
    log = rows_of(tmp_path / "table_scenes/two-stage-logged.csv")[tokens[0]]["log"]
    split = json.loads((root / "two_stage_split.json").read_text())
    split["log_names"].remove(log)
    (root / "two_stage_split.json").write_text(json.dumps(split))
    assert tool.main(arguments(tmp_path, "--basis", basis, data=root)) == 1
    table = json.loads((tmp_path / "table.json").read_text())
    failures = table["bases"][-1]["failures"]
    assert set(failures) == set(tokens) and "is not among log_names" in failures[tokens[-1]]
    first = failures[tokens[0]]
    assert ("logs that the two-stage split names" if only_two else "is not among log_names") in first
    assert table["rows"][0]["score"] is None if only_two else table["rows"][0]["num_scenes"] == 2


def test_a_follow_up_of_a_window_that_is_not_there_has_no_score(golden, small, tmp_path, capsys):
    tokens, root = small
    path = root / f"synthetic_scene_pickles/{tokens[2]}.pkl"
    origin = read_synthetic_scene(path).origin
    path.write_bytes(path.read_bytes().replace(origin.encode(), origin[::-1].encode()))
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    assert tool.main(arguments(tmp_path, "--basis", "two-stage-logged", data=root)) == 1
    table = json.loads((tmp_path / "table.json").read_text())
    assert set(table["bases"][0]["failures"]) == set(tokens) and table["rows"][0]["score"] is None
    reason = f"{tokens[2]}: it follows a window that ends with frame {origin[::-1]}"
    assert reason in capsys.readouterr().err


def test_without_data_of_two_stages_it_is_said_in_one_line(golden, small, tmp_path, capsys):
    tokens, root = small
    shutil.rmtree(root / "synthetic_scene_pickles")
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens[:2]))
    assert tool.main(arguments(tmp_path, "--basis", "epdms,two-stage", data=root)) == 0
    out, error = capsys.readouterr()
    assert error.count("there are no follow-up scenes") == 1 and "epdms is the one to compare by" in error
    assert "2/2" in out
    assert tool.main(arguments(tmp_path, "--basis", "two-stage", data=root)) == 2
    assert "give --synthetic-scenes DIR" in capsys.readouterr().err
    (root / "two_stage_split.json").unlink()
    assert tool.main(arguments(tmp_path, "--basis", "two-stage", data=root)) == 2
    assert "there is no table of pairs of split two_stage" in capsys.readouterr().err


def test_files_of_two_stages_do_not_matter_to_one_stage(golden, small, tmp_path, capsys):
    tokens, root = small
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens[:2]))
    shutil.copy(root / "two_stage_split.json", root / "copy_of_two_stage_split.json")
    assert tool.main(arguments(tmp_path, "--basis", "epdms,two-stage", data=root)) == 2
    assert "all are of split two_stage; say which" in capsys.readouterr().err
    (root / "two_stage_split.json").write_text('{"reactive_all_mapping": ')
    assert tool.main(arguments(tmp_path, "--basis", "epdms", data=root)) == 0
    out, error = capsys.readouterr()
    assert "2/2" in out and "two stages" not in error


def test_a_table_does_not_take_the_place_of_the_table_of_pairs(golden, small, tmp_path, capsys):
    tokens, root = small
    pairs = shutil.copy(root / "two_stage_split.json", tmp_path / "table.json")
    kept = pairs.read_bytes()
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    options = ("--basis", "two-stage-logged", "--two-stage", str(pairs))
    assert tool.main(arguments(tmp_path, *options, data=root)) == 2
    assert "table.json: is read by this command; give the results another name" in capsys.readouterr().err
    assert pairs.read_bytes() == kept


def test_scenes_of_an_earlier_table_of_the_name_are_not_taken_for_its_own(golden, small, tmp_path):
    tokens, root = small
    folder = tmp_path / "table_scenes"
    for runs, bases, wanted in (
        (
            (0, 1),
            "epdms,epdms-unfiltered",
            ["epdms-0", "epdms-1", "epdms-unfiltered-0", "epdms-unfiltered-1"],
        ),
        ((0,), "epdms,epdms-unfiltered", ["epdms", "epdms-unfiltered", "own"]),
        ((0,), "epdms", ["epdms", "own"]),
    ):
        write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens[:2], runs))
        assert tool.main(arguments(tmp_path, "--basis", bases, data=root)) == 0
        assert sorted(path.stem for path in folder.glob("*.csv")) == wanted
        assert len(list(folder.glob("*.made_with.json"))) == len([name for name in wanted if name != "own"])
        (folder / "own.csv").write_text("mine\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[0][2][0].pop(), "a pair needs both halves"),
        (lambda t: t[0][2][0].__setitem__(1, None), "a pair needs both halves"),
        (lambda t: t[1].__setitem__(0, t[0][1]), "is there twice"),
        (lambda t: t[0].__setitem__(1, t[0][0]), "no scene follows itself"),
        (lambda t: t[0][2][0].__setitem__(0, 1234), "put quotes around all-digit tokens"),
    ],
)
def test_a_wrong_table_of_pairs_is_refused(golden, small, tmp_path, capsys, change, message):
    tokens, root = small
    table = json.loads((root / "two_stage_split.json").read_text())
    change(table["reactive_all_mapping"])
    (root / "two_stage_split.json").write_text(json.dumps(table))
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    assert tool.main(arguments(tmp_path, "--basis", "two-stage", data=root)) == 2
    error = capsys.readouterr().err
    assert message in error and "two_stage_split.json" in error
    assert not list(tmp_path.glob("table*"))


def test_a_table_that_holds_itself_is_refused(golden, small, tmp_path, capsys):
    tokens, _ = small
    split = tmp_path / "split.yaml"
    split.write_text(
        "tokens: []\nreactive_synthetic_initial_tokens: []\nreactive_all_mapping: &a [*a, *a, *a]\n"
    )
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    assert tool.main(arguments(tmp_path, "--basis", "two-stage", "--two-stage", split)) == 2
    assert "reactive_all_mapping" in (text := capsys.readouterr().err) or "group 0" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--basis", "all", "--version", "v2"), "--version: does not go with --basis"),
        (("--basis", "all", "--cache-dir", "c"), "--cache-dir: does not go with --basis"),
        (("--missing", "zero"), "--missing: goes with --basis"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        tool.main(arguments(tmp_path, *options))
    assert message in capsys.readouterr().err


def test_unknown_names_and_plans_of_another_length(golden, groups, tmp_path, capsys):
    tokens = tokens_of(groups[0])[:2]
    plans = plans_of(golden, tokens[:1]) + plans_of(golden, tokens[1:], (0, 1))
    write_arrays(tmp_path / "plans.npz", plans)
    assert tool.main(arguments(tmp_path, "--basis", "epdm")) == 2
    assert "no basis 'epdm'; there are pdms, epdms" in capsys.readouterr().err
    assert tool.main(arguments(tmp_path, "--basis", "epdms")) == 1
    assert f"{tokens[1]}: has 2 plans, the first scene of" in capsys.readouterr().err


def test_report_compares_like_with_like_only(everything, capsys):
    scenes = everything[0] / "table_scenes"

    def compare(first, second, *options):
        rows = [f"--row=a={scenes / first}.csv", f"--row=b={scenes / second}.csv"]
        return report.main([*rows, *options]), *capsys.readouterr()

    code, out, _ = compare("two-stage-0", "two-stage-1")
    assert code == 0 and "two-stage: EPDMS, 2 stages, reactive traffic" in out
    table = everything[2]["rows"]
    for run in (0, 1):
        [row] = [r for r in table if (r["basis"], r["plan"], r["part"]) == ("two-stage", run, "result")]
        assert f"{100 * row['score']:6.1f}" in out
    code, _, error = compare("epdms-0", "epdms-reactive-0")
    assert code == 1 and "traffic: logged, reactive" in error
    code, out, _ = compare("epdms-0", "epdms-reactive-0", "--different-labels")
    assert code == 0 and "epdms-reactive: EPDMS, 1 stage" in out and "traffic: logged, reactive" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "its label is of 18 scenes"),
        (
            lambda rows: [*rows[:-1], rows[-1].replace("scorer_version=1", "scorer_version=0")],
            "different labels",
        ),
        (lambda rows: [row.replace("scorer_version=1", "scorer_version=x") for row in rows], "is damaged"),
    ],
)
def test_a_file_whose_label_is_not_of_its_scenes_is_refused(everything, tmp_path, capsys, change, message):
    lines = (everything[0] / "table_scenes/two-stage-0.csv").read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(change(lines)) + "\n")
    assert report.main([f"--row=a={tmp_path / 'a.csv'}"]) == 1
    assert message in (error := capsys.readouterr().err) and "a.csv" in error


def test_a_file_without_label_is_not_compared_silently(everything, tmp_path, capsys):
    file = everything[0] / "table_scenes/epdms-0.csv"
    rows = list(csv.reader(file.read_text().splitlines()))
    (tmp_path / "old.csv").write_text("\n".join(",".join(row[:-1]) for row in rows) + "\n")
    words = [f"--row=old={tmp_path / 'old.csv'}", f"--row=new={file}"]
    assert report.main(words) == 1
    assert "old.csv has none" in capsys.readouterr().err
    assert report.main([*words, "--different-labels", f"--markdown={tmp_path / 't.md'}"]) == 0
    assert "old: EPDMS, NAVSIM v2, no label" in (tmp_path / "t.md").read_text()


@pytest.mark.parametrize(
    "option", [("--missing", "zero"), ("--synthetic-scenes", "nowhere"), ("--two-stage", "nowhere")]
)
def test_options_of_two_stages_are_refused_for_bases_of_one(golden, small, tmp_path, capsys, option):
    tokens, root = small
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens[:2]))
    assert tool.main(arguments(tmp_path, "--basis", "pdms,epdms", *option, data=root)) == 2
    assert f"{option[0]}" in (err := capsys.readouterr().err) and "--basis pdms,epdms has none" in err


def test_the_label_tells_follow_up_scenes_that_were_made_anew(golden, small, tmp_path):
    tokens, root = small
    write_arrays(tmp_path / "plans.npz", plans_of(golden, tokens))
    labels = []
    for _ in range(2):
        assert tool.main(arguments(tmp_path, "--basis", "two-stage-logged", data=root)) == 0
        rows = rows_of(tmp_path / "table_scenes/two-stage-logged.csv")
        labels.append(ScoreLabel.parse(rows[tokens[0]]["label"]))
        path = root / "synthetic_scene_pickles" / f"{tokens[-1]}.pkl"
        path.write_bytes(path.read_bytes() + b" ")
    assert all(label.data for label in labels)
    assert [text.partition(":")[0] for text in labels[0].differences(labels[1])] == ["data"]
