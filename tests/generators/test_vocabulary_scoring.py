"""Stores of vocabulary scores: made, resumed, refused, and read in training."""

import shutil

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores import vocabulary_scores
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.datasets.stores.vocabulary_scores import VocabularyScores, pack_scores, unpack_scores
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.datasets.transforms.vocabulary import LoadVocabularyScores
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.structures.vocabulary import vocabulary_id
from beyonddrive.tools.score_vocabulary import main


@pytest.fixture
def plans():
    """Straight ahead at five speeds, and off to the side."""
    speeds = np.array([0.0, 2.0, 5.0, 9.0, 14.0, 9.0])[:, None]
    time = np.arange(1, 9) * 0.5
    lateral = np.array([0, 0, 0, 0, 0, 1.0])[:, None] * time**2
    return np.stack([speeds * time, lateral, np.zeros((6, 8))], axis=-1)


@pytest.fixture
def vocabulary(tmp_path, plans):
    np.savez(tmp_path / "vocabulary.npz", plans=plans)
    return tmp_path / "vocabulary.npz"


def run(root, vocabulary, store, *more):
    return main([str(root), "train", str(vocabulary), "--out", str(store), *more])


def test_bytes_keep_what_matters():
    values = np.linspace(0, 1, 1001)
    assert np.abs(unpack_scores(pack_scores(values)) - values).max() <= 0.5 / 254 + 1e-6
    assert unpack_scores(pack_scores(np.array([0, 0.5, 1]))).tolist() == [0, 0.5, 1]
    for bad in (np.nan, 1.1, -0.1):
        with pytest.raises(StoreError, match=r"must be in \[0, 1\]"):
            pack_scores(np.array([bad]))


def test_scores_are_those_of_the_scorer(split_root, vocabulary, plans, tmp_path, capsys):
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 0
    scores = VocabularyScores(store, vocabulary, "train")
    root = NavsimRoot(split_root)
    scenes = list(root.scenes("train", SceneFilter()))
    assert sorted(scores.tokens) == sorted(scene.token for scene in scenes) and len(scores) > 3
    for scene in scenes[:3]:
        cache = build_metric_cache(scene, root.map(scene.map_location))
        expected = score(cache, plans.astype(np.float32).astype(np.float64)).values[:, :6]
        np.testing.assert_allclose(scores[scene.token], expected, atol=0.5 / 254 + 1e-6)
    assert "0 logs done now" not in capsys.readouterr().out
    assert run(split_root, vocabulary, store) == 0
    assert ", 0 logs done now" in capsys.readouterr().out


def test_a_killed_job_goes_on_and_a_changed_log_is_done_again(split_root, vocabulary, tmp_path, capsys):
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 0
    shards = sorted(store.glob("*.safetensors"))
    before = {path.name: path.read_bytes() for path in shards}
    shards[0].unlink()
    capsys.readouterr()
    assert run(split_root, vocabulary, store, "--num-workers", "1") == 0
    assert ", 1 logs done now" in capsys.readouterr().out
    assert shards[0].read_bytes() == before[shards[0].name]
    log = split_root / "navsim_logs/train" / f"{shards[1].stem}.pkl"
    log.write_bytes(log.read_bytes() + b"\0")
    run(split_root, vocabulary, store)
    assert ", 0 logs done now" not in capsys.readouterr().out


def test_a_scene_that_cannot_be_scored_is_named_and_tried_again(split_root, vocabulary, tmp_path, capsys):
    maps = split_root / "maps"
    target = maps.resolve()
    maps.unlink()
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 1
    assert "score-vocabulary: scene" in capsys.readouterr().err
    token = next(iter(VocabularyScores(store).failures))
    with pytest.raises(StoreError, match=f"scene {token} failed"):
        VocabularyScores(store)[token]
    maps.symlink_to(target)
    assert run(split_root, vocabulary, store) == 0
    assert VocabularyScores(store)[token].shape == (6, 6)


def test_maps_of_a_data_root_may_lie_elsewhere(split_root, vocabulary, tmp_path):
    maps = split_root / "maps"
    target = maps.resolve()
    maps.unlink()
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store, "--maps-root", str(target)) == 0
    assert len(VocabularyScores(store)) > 0 and not VocabularyScores(store).failures


def test_another_vocabulary_or_split_is_refused(split_root, vocabulary, plans, tmp_path, capsys):
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 0
    other = tmp_path / "other.npz"
    np.savez(other, plans=plans + 0.1)
    assert run(split_root, other, store) == 1
    assert "vocabulary_id" in capsys.readouterr().err
    with pytest.raises(StoreError, match=r"vocabulary_id: stored \d+, wanted \d+.*score-vocabulary"):
        VocabularyScores(store, other)
    with pytest.raises(StoreError, match="split: stored 'train', wanted 'val'"):
        VocabularyScores(store, vocabulary, "val")
    with pytest.raises(StoreError, match=r"no store here.*score-vocabulary"):
        VocabularyScores(tmp_path / "nothing", vocabulary)
    assert run(split_root, tmp_path / "missing.npz", store) == 1
    assert "there is no vocabulary here" in capsys.readouterr().err


def test_samples_get_the_scores_and_the_identity_of_their_plans(split_root, vocabulary, plans, tmp_path):
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 0
    load = LoadVocabularyScores(tmp_path / "scores", vocabulary, "train")
    token = load.scores.tokens[0]
    results = load({"token": token, "status": np.zeros(8, np.float32)})
    assert results["vocabulary_scores"].shape == (6, 6)
    gt = PackPlanInputs()(results)["data_samples"].gt
    assert int(gt.vocabulary_id) == vocabulary_id(plans)
    np.testing.assert_array_equal(gt.vocabulary_scores.numpy(), load.scores[token])
    with pytest.raises(StoreError, match="no scene moon"):
        load({"token": "moon"})
    LoadVocabularyScores("nowhere", "nothing.npz")  # a config is built before its store


def test_scores_of_another_scorer_or_of_other_maps_are_refused(split_root, vocabulary, tmp_path, monkeypatch):
    store = tmp_path / "scores"
    assert run(split_root, vocabulary, store) == 0
    place = DataPlace.of(NavsimRoot(split_root), "train")
    LoadVocabularyScores(store, vocabulary).check_sources(place)
    maps = split_root / "maps"
    target = maps.resolve()
    maps.unlink()
    shutil.copytree(target, maps)
    LoadVocabularyScores(store, vocabulary).check_sources(place)
    for path in maps.rglob("map.gpkg"):
        path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match=r"maps/.*map\.gpkg; bring them up to date: beyonddrive score-voc"):
        LoadVocabularyScores(store, vocabulary).check_sources(place)
    features = [{"type": "EgoStatus"}]
    pipeline = [{"type": "LoadVocabularyScores", "store": str(store), "vocabulary": str(vocabulary)}]
    with pytest.raises(StoreError, match="have changed since the scores were made"):
        NavsimDataset(split_root, "train", feature_pipeline=features, pipeline=pipeline)
    assert run(split_root, vocabulary, store) == 0
    NavsimDataset(split_root, "train", feature_pipeline=features, pipeline=pipeline)
    monkeypatch.setattr(vocabulary_scores, "SCORER_VERSION", vocabulary_scores.SCORER_VERSION + 1)
    with pytest.raises(StoreError, match=r"scorer_version: stored 1, wanted 2.*beyonddrive score-vocabulary"):
        VocabularyScores(store, vocabulary)
    assert run(split_root, vocabulary, store) == 1
