"""The official file: what we write the devkit's unpickler resolves, what we read cannot run."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit, TwoStageSplitError
from beyonddrive.evaluation.submissions.boards import BOARDS, SubmissionError, Wanted
from beyonddrive.evaluation.submissions.official_file import (
    Submission,
    Team,
    merged,
    read_submission,
    split_stages,
    write_submission,
)
from beyonddrive.evaluation.submissions.pickle_writer import (
    Instance,
    NamedClass,
    PickleWriter,
    UnwritableError,
)

TESTS = Path(__file__).parents[2]
STUB = TESTS / "devkit_stub/shared"
TWO_STAGE = TESTS / "data/golden/two_stage"
TEAM = Team("a team", "A. Author, B. Author", "mail@example.org", "Institute", "Land")


def plans_of(tokens, seed=0):
    rng = np.random.default_rng(seed)
    return {token: rng.normal(0, 9, (8, 3)).astype(np.float32) for token in tokens}


def two_stages(seeds=1):
    stages = tuple((plans_of("ab", seed), plans_of(["a" * 17], seed)) for seed in range(seeds))
    return Submission(TEAM, "v2", stages)


def written(tmp_path, content):
    path = tmp_path / "submission.pkl"
    with path.open("wb") as file:
        PickleWriter(file).write(content)
    return path


def trajectory(poses=None, **sampling):
    poses = np.zeros((8, 3), np.float32) if poses is None else poses
    given = {"num_poses": 8, "time_horizon": 4.0, "interval_length": 0.5, **sampling}
    name = "nuplan.planning.simulation.trajectory.trajectory_sampling"
    made = Instance(NamedClass(name, "TrajectorySampling"), given)
    of = NamedClass("navsim.common.dataclasses", "Trajectory")
    return Instance(of, {"poses": poses, "trajectory_sampling": made})


def test_the_devkit_unpickles_what_is_written_here(tmp_path):
    one = Submission(TEAM, "v1", ((plans_of("ab"),), (plans_of("ab", 1),)))
    two = two_stages()
    write_submission(tmp_path / "v1.pkl", one)
    write_submission(tmp_path / "v2.pkl", two)
    script = (
        "import pickle, sys, numpy as np\n"
        "from navsim.common.dataclasses import Trajectory\n"
        "from nuplan.planning.simulation.trajectory.trajectory_sampling import TrajectorySampling\n"
        "one, two = (pickle.load(open(name, 'rb')) for name in ('v1.pkl', 'v2.pkl'))\n"
        "assert list(one)[:4] == ['team_name', 'authors', 'email', 'institution']\n"
        "assert one['country / region'] == 'Land' and len(one['predictions']) == 2\n"
        "stages = [two['first_stage_predictions'][0], two['second_stage_predictions'][0]]\n"
        "for plans in [*one['predictions'], *stages]:\n"
        "    for plan in plans.values():\n"
        "        assert type(plan) is Trajectory and type(plan.trajectory_sampling) is TrajectorySampling\n"
        "        assert plan.trajectory_sampling == TrajectorySampling(time_horizon=4, interval_length=0.5)\n"
        "        assert plan.poses.dtype == np.float32 and plan.poses.flags.writeable\n"
        "        plan.__post_init__()\n"
        "np.save('poses.npy', np.stack([plans['a'].poses for plans in one['predictions']]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(STUB)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    given = np.stack([stages[0]["a"] for stages in one.seeds])
    np.testing.assert_array_equal(np.load(tmp_path / "poses.npy"), given)


@pytest.mark.parametrize("make", [two_stages, lambda: two_stages(3)])
def test_what_is_written_is_read_again(tmp_path, make):
    submission = make()
    write_submission(tmp_path / "submission.pkl", submission)
    read = read_submission(tmp_path / "submission.pkl")
    assert (read.team, read.form, len(read.seeds)) == (TEAM, "v2", len(submission.seeds))
    for ours, theirs in zip(submission.seeds, read.seeds, strict=True):
        for stage, found in zip(ours, theirs, strict=True):
            assert stage.keys() == found.keys()
            for token, plan in stage.items():
                np.testing.assert_array_equal(found[token], plan)


def test_a_file_that_numpy_2_and_the_devkit_wrote_is_read():
    """Written by the official script (its plans are those of a submission whose scores are recorded)."""
    submission = read_submission(TWO_STAGE / "example_submission.pkl")
    assert submission.form == "v2" and [len(stage) for stage in submission.seeds[0]] == [18, 60]
    plan = submission.seeds[0][0]["bf6f33a537d57625"]
    np.testing.assert_array_equal(plan, np.column_stack([np.arange(4, 36, 4), *np.zeros((2, 8))]))


class Evil:
    def __reduce__(self):
        return (Path("never").touch, ())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"predictions": [{"a": Evil()}]}, "refused to load"),
        ([1], "is no submission: a list"),
        ({"plans": 1}, "is no submission: expected predictions or first_stage_predictions and"),
        ({"predictions": [{}], "first_stage_predictions": [{}]}, "is no submission"),
        ({"predictions": {"a": 1}}, "predictions: expected a list with one dictionary"),
        ({"first_stage_predictions": [{}]}, "second_stage_predictions: expected a list"),
        ({"predictions": [{"a": [1.0]}]}, "predictions: scene a: expected a Trajectory, got a list"),
        ({"predictions": [{1: 2}]}, "1 is no token"),
        ({"predictions": [{}], "authors": ["a", "b"]}, "authors: expected a text, got a list"),
    ],
)
def test_what_is_no_submission_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)  # (where code in a file would leave its mark)
    path = tmp_path / "submission.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(SubmissionError, match=said) as refused:
        read_submission(path)
    assert str(path) in str(refused.value) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (trajectory(np.zeros((40, 3)), num_poses=40, interval_length=0.1), "num_poses is 40"),
        (trajectory(interval_length=0.25), "interval_length is 0.25"),
        (trajectory(interval_length=None), "interval_length is None"),
        (trajectory(np.zeros((7, 3))), "must be 8 poses .* got an array \\(7, 3\\)"),
        (trajectory(np.full((8, 3), np.nan)), "NaN or infinity"),
    ],
)
def test_plans_of_another_length_or_without_numbers_are_refused(tmp_path, value, said):
    path = written(tmp_path, {"predictions": [{"scene": value}]})
    with pytest.raises(SubmissionError, match=f"predictions: scene scene: .*{said}"):
        read_submission(path)


def test_a_list_of_authors_of_omegaconf_is_explained(tmp_path):
    of = NamedClass("omegaconf.listconfig", "ListConfig")
    path = written(tmp_path, {"predictions": [{}], "authors": Instance(of, {})})
    with pytest.raises(SubmissionError, match="list of authors: write it again with one text"):
        read_submission(path)


def test_damaged_files_never_crash_the_reader(tmp_path):
    write_submission(tmp_path / "submission.pkl", two_stages(2))
    content = (tmp_path / "submission.pkl").read_bytes()
    rng, path = random.Random(0), tmp_path / "damaged.pkl"
    refused = 0
    for _ in range(1500):
        data = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        try:
            read_submission(path)
        except SubmissionError:
            refused += 1
    assert refused > 500
    with pytest.raises(SubmissionError, match="there is no such file"):
        read_submission(tmp_path / "none.pkl")
    key = b"\x80\x04}" + b")" + b"\x85" * 200_000 + b"K\x01s."
    path.write_bytes(key)
    with pytest.raises(SubmissionError):
        read_submission(path)


def test_a_submission_of_another_board_is_refused(tmp_path):
    two, one = two_stages(), Submission(TEAM, "v1", ((plans_of("ab"),),))
    with pytest.raises(SubmissionError, match=r"s.pkl: holds first_stage.* board navtest wants predictions"):
        two.check(BOARDS["navtest"], None, "s.pkl")
    with pytest.raises(SubmissionError, match="board navhard wants first_stage_predictions and second"):
        one.check(BOARDS["navhard"], None, "s.pkl")
    one.check(BOARDS["navtest"], Wanted("navtest.yaml", "ab"), "s.pkl")
    with pytest.raises(SubmissionError, match=r"none of its 2 scenes .* of another board or split"):
        one.check(BOARDS["navtest"], Wanted("navtest.yaml", "xyz"), "s.pkl")
    with pytest.raises(SubmissionError, match=r"1 of 3 scenes of the first stage have no plan \(c; navtest"):
        one.check(BOARDS["navtest"], Wanted("navtest.yaml", "abc"), "s.pkl")
    assert "2 + 1 scenes, navhard has 450 + 5462" in Wanted("f", "ab", "c").counts_differ(BOARDS["navhard"])


def test_plans_become_stages_and_what_cannot_is_said():
    wanted = Wanted("split.yaml", ["a", "b"], ["c"])
    plans = {token: plan[None] for token, plan in plans_of("abcd").items()}
    stages = split_stages(plans, wanted, "v2", "p.npz")
    assert [list(stage) for stage in stages] == [["a", "b"], ["c"]]
    assert all(
        plan.shape == (8, 3) and plan.dtype == np.float32 for stage in stages for plan in stage.values()
    )
    for broken, said in (
        ({**plans, "c": np.zeros((2, 8, 3))}, "scene c has 2 plans"),
        ({**plans, "c": np.zeros((1, 10, 3))}, "scene c: a plan must be 8 poses"),
        ({**plans, "b": np.full((1, 8, 3), np.inf)}, "scene b: the plan holds NaN or infinity"),
        ({**plans, "b": np.full((1, 8, 3), 1e39)}, "scene b, as float32: the plan holds NaN or infinity"),
        ({"a": plans["a"], "c": plans["c"]}, "1 of 2 scenes of the first stage have no plan"),
    ):
        with pytest.raises(SubmissionError, match=f"p.npz: {said}"):
            split_stages(broken, wanted, "v2", "p.npz")


def test_seeds_are_merged_if_they_are_of_the_same_scenes():
    first, second = two_stages(), two_stages()
    assert len(merged([first, second], ["a", "b"]).seeds) == 2
    other = Submission(TEAM, "v2", ((plans_of("ax"), plans_of(["a" * 17])),))
    with pytest.raises(SubmissionError, match="b: is of other scenes than a: b, x"):
        merged([first, other], ["a", "b"])
    with pytest.raises(SubmissionError, match="b: has the form v1"):
        merged([first, Submission(TEAM, "v1", ((plans_of("ab"),),))], ["a", "b"])


def test_only_plain_values_are_written(tmp_path):
    with pytest.raises(UnwritableError, match="a set cannot be written"):
        written(tmp_path, {"a": {1}})


def test_a_two_stage_split_is_read_from_one_file_or_from_two(tmp_path):
    whole = TwoStageSplit.read(TWO_STAGE / "data/two_stage_split.json")
    assert len(whole.first) == 18 and len(whole.second) == 60 and whole.data_split == "two_stage"
    (tmp_path / "train_test_split").mkdir()
    pairs = tmp_path / "train_test_split/hard.yaml"
    pairs.write_text("data_split: test\nreactive_all_mapping: [[a, b, [[c, d]]]]\n")
    with pytest.raises(TwoStageSplitError, match=r"has no tokens, and there is no .*scene_filter/hard.yaml"):
        TwoStageSplit.read(pairs)
    (tmp_path / "scene_filter").mkdir()
    tokens = tmp_path / "scene_filter/hard.yaml"
    tokens.write_text("tokens: [a, b]\nreactive_synthetic_initial_tokens: [c, d]\nlog_names: [log]\n")
    read = TwoStageSplit.read(pairs)
    assert (read.first, read.second, read.data_split) == (("a", "b"), ("c", "d"), "test")
    assert read.scene_filter.num_future_frames == 8 and read.scene_filter.log_names == ("log",)
    with pytest.raises(TwoStageSplitError, match=r"hard.yaml: has no reactive_all_mapping"):
        TwoStageSplit.read(tokens)
    for text, said in (
        ("- 1", "is a mapping"),
        ("{", "no yaml"),
        ("tokens: [1]\nreactive_all_mapping: []", "of texts"),
    ):
        pairs.write_text(text)
        with pytest.raises(TwoStageSplitError, match=said):
            TwoStageSplit.read(pairs)
