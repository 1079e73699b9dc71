"""Vocabularies: the clustering, the file, and the tool that makes it from a data root or a config."""

import json

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.generators.vocabulary import (
    assign_plans,
    build_vocabulary,
    describe_vocabulary,
    write_vocabulary,
)
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.vocabulary import Vocabulary, VocabularyError, read_vocabulary, vocabulary_id
from beyonddrive.tools.build_vocabulary import main


def drives(count=300, seed=0):
    """Plans of constant speed and curvature."""
    rng = np.random.default_rng(seed)
    arc = rng.uniform(0.5, 10, (count, 1)) * np.arange(1, 9) * 0.5
    heading = rng.normal(0, 0.03, (count, 1)) * arc
    steps = np.diff(arc, axis=1, prepend=0)
    return np.stack(
        [np.cumsum(steps * np.cos(heading), 1), np.cumsum(steps * np.sin(heading), 1), heading], -1
    )


def spread(plans, vocabulary):
    """Sum of squared distances to the assigned centre."""
    return np.square(plans - vocabulary[assign_plans(plans, vocabulary)]).sum()


def test_centres_are_the_means_of_their_clusters_and_nothing_moves_any_more():
    plans = drives()
    vocabulary = build_vocabulary(plans, 12, max_iterations=500)
    labels = assign_plans(plans, vocabulary)
    assert vocabulary.shape == (12, 8, 3) and vocabulary.dtype == np.float32
    for index in range(12):
        members = plans[labels == index]
        np.testing.assert_allclose(members[..., :2].mean(0), vocabulary[index, :, :2], atol=1e-5)
    counts = np.bincount(labels)
    assert (np.diff(counts) <= 0).all() and counts[-1] > 0


def test_same_seed_same_vocabulary_and_more_plans_fit_better():
    plans = drives()
    first = build_vocabulary(plans, 8, seed=3)
    np.testing.assert_array_equal(first, build_vocabulary(plans, 8, seed=3))
    assert not np.array_equal(first, build_vocabulary(plans, 8, seed=4))
    assert spread(plans, build_vocabulary(plans, 40)) < 0.5 * spread(plans, first)
    # Better than plans picked blindly, by far.
    assert spread(plans, first) < 0.8 * spread(plans, plans[:8])


def test_headings_are_averaged_on_the_circle():
    plans = np.zeros((4, 8, 3))
    plans[:, :, 2] = np.array([[np.pi - 0.1], [-np.pi + 0.1], [0.1], [-0.1]])
    headings = np.sort(np.abs(build_vocabulary(plans, 2)[:, 0, 2]))
    np.testing.assert_allclose(headings, [0, np.pi], atol=1e-6)


def test_as_many_clusters_as_plans_gives_the_plans():
    plans = drives(30)
    vocabulary = build_vocabulary(plans, 30)
    assert sorted(assign_plans(plans, vocabulary)) == list(range(30))
    assert spread(plans, vocabulary) < 1e-6


def test_a_cluster_that_loses_its_plans_gets_others():
    # Many equal plans and few others: every cluster must still own a plan.
    plans = np.concatenate([np.repeat(drives(1), 500, axis=0), drives(20, seed=1)])
    vocabulary = build_vocabulary(plans, 20)
    assert len(np.unique(assign_plans(plans, vocabulary))) == 20


@pytest.mark.parametrize(
    ("plans", "size", "error", "message"),
    [
        (drives(5), 6, VocabularyError, "5 plans cannot be cut into 6 clusters: read more scenes"),
        (np.zeros((5, 8, 3)), 2, VocabularyError, "only 1 of 5 plans are different, 2 clusters"),
        (drives(5), 0, VocabularyError, "at least 1 plan, got 0"),
        (np.full((5, 8, 3), np.nan), 2, PlanError, "expert plans: 5 plan.s. hold NaN"),
        (np.zeros((5, 7, 3)), 2, PlanError, "must have shape"),
    ],
)
def test_what_cannot_be_clustered_is_refused(plans, size, error, message):
    with pytest.raises(error, match=message):
        build_vocabulary(plans, size)


def test_steps_of_clusters():
    plans = drives()
    described = describe_vocabulary(plans, build_vocabulary(plans, 4), {"split": "train"})
    members = plans[assign_plans(plans, described.plans) == 2]
    dx = np.diff(members[..., 0], axis=1, prepend=0)
    np.testing.assert_allclose(described.step_means[2, 0], dx.mean())
    np.testing.assert_allclose(described.step_stds[2, 0], dx.std())
    np.testing.assert_allclose(described.step_means[2, 3], np.cos(members[..., 2]).mean())
    assert described.counts.sum() == 300
    with pytest.raises(VocabularyError, match="nearest to none of 300 plans"):
        describe_vocabulary(plans, np.concatenate([plans[:2], plans[:1] + 1e4]), {})


def test_file_round_trip(tmp_path):
    plans = drives()
    described = describe_vocabulary(plans, build_vocabulary(plans, 4), {"split": "train"})
    path = tmp_path / "new/vocabulary.npz"
    write_vocabulary(path, described)
    content = path.read_bytes()
    write_vocabulary(path, described)
    assert path.read_bytes() == content
    again = read_vocabulary(path, size=4)
    assert isinstance(again, Vocabulary) and again.meta == {"split": "train", "num_plans": 300}
    for name in ("plans", "counts", "step_means", "step_stds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(described, name))
    assert vocabulary_id(again.plans) == vocabulary_id(described.plans)
    np.save(tmp_path / "plain.npy", described.plans)
    np.testing.assert_array_equal(read_vocabulary(tmp_path / "plain.npy").plans, described.plans)


def test_bad_files_are_named(tmp_path):
    path = tmp_path / "vocabulary.npz"
    with pytest.raises(VocabularyError, match=r"vocabulary\.npz: there is no vocabulary.*build-vocabulary"):
        read_vocabulary(path)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(VocabularyError, match=r"vocabulary\.npz: is no vocabulary"):
        read_vocabulary(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(VocabularyError, match="no array 'plans"):
        read_vocabulary(path)
    np.savez(path, plans=np.full((2, 8, 3), np.inf))
    with pytest.raises(VocabularyError, match="hold NaN or infinity"):
        read_vocabulary(path)
    np.savez(path, plans=drives(3))
    with pytest.raises(VocabularyError, match="holds 3 plans, 4 are wanted"):
        read_vocabulary(path, size=4)


def test_tool_reads_a_split_of_a_data_root(split_root, tmp_path, capsys):
    out = tmp_path / "vocabulary.npz"
    assert main([str(split_root), "train", "--size", "3", "--out", str(out)]) == 0
    found = read_vocabulary(out, 3)
    assert found.meta == {"split": "train", "data_root": "data", "seed": 0, "num_plans": found.counts.sum()}
    assert main([str(split_root), "train", "--size", "300", "--out", str(tmp_path / "no.npz")]) == 1
    assert "cannot be cut into 300 clusters" in capsys.readouterr().err
    assert not (tmp_path / "no.npz").exists()
    assert main([str(split_root), "moon", "--size", "3", "--out", str(out)]) == 1
    assert "no such split" in capsys.readouterr().err


def test_tool_reads_the_data_set_of_a_config(blind_recipe, split_root, tmp_path, capsys):
    out, other = tmp_path / "vocabulary.npz", tmp_path / "other.npz"
    assert main([str(blind_recipe), "train", "--size", "3", "--out", str(out), "--num-workers", "1"]) == 0
    assert main([str(split_root), "train", "--size", "3", "--out", str(other)]) == 0
    np.testing.assert_array_equal(read_vocabulary(out).plans, read_vocabulary(other).plans)
    assert main([str(blind_recipe), "moon", "--size", "3", "--out", str(out)]) == 1
    assert "has no data set 'moon', choose one of ['train', 'val', 'test']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("indices=2", "indices=2 takes a part"),
        (
            '_delete_=True, type="RepeatDataset", times=2, dataset=dict()',
            "RepeatDataset has no data_root and no split",
        ),
    ],
)
def test_a_part_of_a_data_set_or_a_wrapper_is_refused(tmp_path, blind_recipe, capfd, settings, message):
    recipe = tmp_path / "part.py"
    recipe.write_text(f'_base_ = "{blind_recipe}"\ntrain_dataloader = dict(dataset=dict({settings}))\n')
    out = tmp_path / "no.npz"
    assert main([str(recipe), "train", "--size", "3", "--out", str(out)]) == 1
    assert message in capfd.readouterr().err and not out.exists()


def test_tool_says_of_what_part_of_a_split_the_vocabulary_is(split_root, tmp_path, capsys):
    log = sorted((split_root / "navsim_logs/train").glob("*.pkl"))[0]
    log.write_bytes(b"nothing")
    out = tmp_path / "vocabulary.npz"
    arguments = [str(split_root), "train", "--size", "3", "--out", str(out)]
    assert main(arguments) == 1 and len(read_vocabulary(out).plans) == 3
    said = capsys.readouterr().err
    assert log.name in said and "of 5 scenes, without those of 1 log(s) that cannot be read" in said
    names = [path.stem for path in (split_root / "navsim_logs/train").glob("*.pkl")]
    tokens = [ref.token for ref in NavsimRoot(split_root).refs("train")]
    scene_filter = tmp_path / "filter.yaml"
    scene_filter.write_text(json.dumps({"log_names": names, "tokens": [*tokens, "f" * 16]}))
    assert main([*arguments, "--scene-filter", str(scene_filter)]) == 1
    said = capsys.readouterr().err
    assert "f" * 16 + ": it may be in" in said and "the vocabulary is of 5 of 6 scenes" in said


def test_tool_writes_over_nothing_but_a_vocabulary(split_root, tmp_path, capsys):
    words = [str(split_root), "train", "--size", "2", "--out"]
    (split_root / "synth.json").write_text("{}")
    log = next((split_root / "navsim_logs/train").glob("*.pkl"))
    for path in (split_root / "synth.json", log):
        before = path.read_bytes()
        assert main([*words, str(path)]) == 1
        assert f"--out {path}: is there and no vocabulary" in capsys.readouterr().err
        assert path.read_bytes() == before
    for _ in range(2):
        assert main([*words, str(tmp_path / "v.npz")]) == 0
