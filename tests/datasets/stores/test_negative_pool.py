import pickle

import numpy as np
import pytest

from beyonddrive.datasets.maps.nuplan_map import VERSIONS_FILE
from beyonddrive.datasets.stores.manifests import StoreError, StoreKind
from beyonddrive.datasets.stores.negative_pool import (
    KIND,
    NegativePool,
    PoolError,
    open_writer,
)
from beyonddrive.datasets.stores.online_pools import round_name, write_index
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.stores.sources import DataPlace
from beyonddrive.datasets.transforms import negatives
from beyonddrive.datasets.transforms.negatives import LoadNegatives
from beyonddrive.datasets.transforms.packing import PackPlanInputs
from beyonddrive.registry import TRANSFORMS
from beyonddrive.tests.datasets.small_pools import EXPERT, describe, record


@pytest.fixture
def root(tmp_path):
    writer = open_writer(tmp_path / "pool", describe(), "a test")
    writer.write(
        "shard-00000", {"near": record([0.0, 0.5, 1.0], [3, -1, 0]), "safe": record([0.6, 1, 1], [1, 2, 3])}
    )
    writer.write("shard-00001", {}, {"far": "LogError: log.pkl: truncated"})
    return tmp_path / "pool"


def sample(token="near", expert=EXPERT):
    return {"token": token, "trajectory": expert}


def test_reads_back_what_was_written(root):
    pool = NegativePool(root, {"split": "train", "generator": "flow", "progress": "pair", "seed": 0})
    assert pool.tokens == ["near", "safe"]
    assert "near" in pool
    assert "far" not in pool
    assert pool.failures == {"far": "LogError: log.pkl: truncated"}
    assert pool.description == describe()
    assert pool["near"].plans[1, 0].tolist() == [1, -1, 0]
    assert pool["near"].scores[:, 6].tolist() == [0, 0.5, 1]
    assert pickle.loads(pickle.dumps(pool))["safe"].expert.tolist() == EXPERT.tolist()


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"split": "val"}, "split: stored 'train', wanted 'val'"),
        ({"generator": "other"}, "generator.name: stored 'flow', wanted 'other'"),
        ({"generator": {"checkpoint_hash": "bb"}}, "generator.checkpoint_hash: stored 'aa', wanted 'bb'"),
        ({"progress": "pooled"}, "progress: stored 'pair', wanted 'pooled'"),
        ({"strategy": {"noise": 0.2}}, "strategy.noise: stored 0.4, wanted 0.2"),
        ({"planner": "x"}, "planner: not recorded"),
    ],
)
def test_a_pool_made_for_something_else_is_refused(root, expected, message):
    with pytest.raises(PoolError, match=message) as error:
        NegativePool(root, expected)
    assert str(root) in str(error.value)
    assert "beyonddrive mine" in str(error.value)


def test_all_differences_are_named_at_once(root):
    with pytest.raises(PoolError, match=r"split: stored .*; generator.name: stored .*"):
        NegativePool(root, {"split": "val", "generator": "other"})


def test_what_is_not_stated_is_accepted(root):
    NegativePool(root, {"split": None, "generator": None, "strategy": {"type": "SamplingStrategy"}})


def test_an_unfinished_pool_is_refused_unless_asked_for(root):
    (root / "shard-00001.safetensors").unlink()
    with pytest.raises(PoolError, match="2 of 3 scenes are done; run the same"):
        NegativePool(root)
    assert len(NegativePool(root, allow_partial=True)) == 2


def test_no_pool_and_another_store_are_refused(tmp_path):
    with pytest.raises(StoreError, match="nowhere"):
        NegativePool(tmp_path / "nowhere")
    ShardWriter(tmp_path / "features", StoreKind("features", "make"), {}, "a test")
    with pytest.raises(StoreError, match="kind: stored 'features', wanted 'negatives'"):
        NegativePool(tmp_path / "features")


def test_a_manifest_that_describes_no_pool_is_refused(tmp_path):
    config = describe().to_config()
    del config["progress"]
    ShardWriter(tmp_path, KIND, config, "a test").write("shard-00000", {"near": record([0.0], [3])})
    with pytest.raises(PoolError, match=r"does not describe a pool .*progress"):
        NegativePool(tmp_path)


def test_other_score_columns_are_refused(tmp_path):
    open_writer(tmp_path, describe(num_scenes=0, columns=("NC", "PDMS")), "a test")
    with pytest.raises(PoolError, match=r"score columns are \['NC', 'PDMS'\]"):
        NegativePool(tmp_path)


def test_damaged_records_are_named(tmp_path):
    writer = open_writer(tmp_path, describe(num_scenes=2), "a test")
    bad = record([0.0], [1])
    writer.write("shard-00000", {"a": {**bad, "scores": bad["scores"][:, :6]}, "b": {"plans": bad["plans"]}})
    pool = NegativePool(tmp_path)
    with pytest.raises(PoolError, match=r"scene a: scores has shape \(1, 6\), wanted \(1, 7\)"):
        pool["a"]
    with pytest.raises(PoolError, match="scene b: the record has no scores, expert, times"):
        pool["b"]


def test_a_record_that_lacks_an_array_is_refused(tmp_path):
    writer = open_writer(tmp_path / "pool", describe(num_scenes=1), "a test")
    arrays = record([0.0], [1])
    del arrays["times"]
    writer.write("shard-00000", {"near": arrays})
    with pytest.raises(PoolError, match="scene near: the record has no times; mine the pool again"):
        NegativePool(tmp_path / "pool")["near"]


def test_a_pool_of_another_scorer_is_refused_and_not_continued(tmp_path):
    writer = open_writer(tmp_path, describe(scorer_version=0), "a test")
    writer.write("shard-00000", {"near": record([0.0], [3])})
    with pytest.raises(PoolError, match=r"scorer_version: stored 0, wanted 1.*beyonddrive mine"):
        NegativePool(tmp_path)
    with pytest.raises(StoreError, match=r"config\.scorer_version: stored 0, wanted 1"):
        open_writer(tmp_path, describe(), "a test")


@pytest.fixture
def place(tmp_path):
    """A log and a map."""
    place = DataPlace(tmp_path / "data/navsim_logs/train", tmp_path / "data/maps", tmp_path / "data/sensors")
    for path in (place.logs / "one.pkl", place.maps / "town/1/map.gpkg", place.maps / VERSIONS_FILE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"as it was")
    return place


@pytest.mark.parametrize("victim", ["logs/one.pkl", "maps/town/1/map.gpkg"])
def test_a_pool_of_other_logs_or_maps_is_refused(tmp_path, place, victim):
    sources = place.of_log(place.logs / "one.pkl") | place.of_maps([place.maps / "town/1/map.gpkg"])
    writer = open_writer(tmp_path / "pool", describe(num_scenes=1), "a test", sources)
    writer.write("shard-00000", {"near": record([0.0], [1])})
    moved = DataPlace(
        tmp_path / "moved/navsim_logs/train", tmp_path / "moved/maps", tmp_path / "moved/sensors"
    )
    (tmp_path / "data").rename(tmp_path / "moved")
    LoadNegatives(tmp_path / "pool").check_sources(moved)
    NegativePool(tmp_path / "pool", place=place)  # nothing of it is here, nothing can be said against it
    moved.path(victim).write_bytes(b"as it is!")
    for read in (
        LoadNegatives(tmp_path / "pool").check_sources,
        lambda p: NegativePool(writer.root, place=p),
    ):
        with pytest.raises(PoolError, match=rf"the first is {victim}; mine it again: beyonddrive mine"):
            read(moved)
    changed = moved.of_log(moved.logs / "one.pkl") | moved.of_maps([moved.maps / "town/1/map.gpkg"])
    with pytest.raises(StoreError, match=rf"sources\.{victim}: stored"):
        open_writer(tmp_path / "pool", describe(num_scenes=1), "a test", changed)


def test_a_pool_of_a_part_of_its_split_is_not_called_complete(tmp_path):
    writer = open_writer(tmp_path / "pool", describe(num_scenes=1), "a test", lost={"far": "no image"})
    writer.write("shard-00000", {"near": record([0.0], [1])})
    with pytest.raises(PoolError, match=r"1 scene\(s\) or log\(s\) were missing .* far: no image"):
        NegativePool(tmp_path / "pool")
    pool = NegativePool(tmp_path / "pool", allow_partial=True)
    assert pool.is_finished and not pool.is_complete and pool.lost == {"far": "no image"}
    assert LoadNegatives(tmp_path / "pool", allow_partial=True)(sample())["negative_valid"].all()


def test_unknown_progress_mode_is_refused():
    with pytest.raises(PoolError, match="progress: 'batch'"):
        describe(progress="batch")


# ------------------------------------------------------------------ LoadNegatives
def test_published_negative_is_the_nearest_failure(root):
    results = LoadNegatives(root)(sample())
    assert results["negative_valid"].tolist() == [True]
    assert results["negative_plans"][0, :, 1].tolist() == [-1] * 8
    assert results["negative_scores"][0].tolist() == [1, 1, 1, 1, 1, 1, 0.5]
    assert results["negative_plans"].dtype == results["negative_scores"].dtype == np.float32


def test_empty_slots_are_zero_and_invalid(root):
    results = LoadNegatives(root, selection={"num": 3})(sample())
    assert results["negative_plans"].shape == (3, 8, 3)
    assert results["negative_scores"].shape == (3, 7)
    assert results["negative_valid"].tolist() == [True, True, False]
    assert results["negative_plans"][1, 0].tolist() == [1, 3, 0]
    assert not results["negative_plans"][2].any()
    assert not results["negative_scores"][2].any()


def test_a_scene_without_failures_has_no_negative(root):
    results = LoadNegatives(root)(sample("safe"))
    assert not results["negative_valid"].any()
    assert not results["negative_plans"].any()


def test_threshold_is_a_choice_of_the_training_config(root):
    transform = TRANSFORMS.build({"type": "LoadNegatives", "pool": root, "selection": {"threshold": 0.61}})
    assert transform(sample("safe"))["negative_valid"].tolist() == [True]


def test_per_column_negatives_by_config(root):
    selection = {"type": "NearestNegativesPerColumn", "columns": ["NC", "PDMS"], "num": 2}
    results = LoadNegatives(root, selection=selection)(sample())
    assert results["negative_valid"].tolist() == [False, False, True, True]


def test_a_missing_scene_is_an_error_or_no_negative(root):
    with pytest.raises(StoreError, match="scene unknown"):
        LoadNegatives(root)(sample("unknown"))
    with pytest.raises(StoreError, match=r"truncated; missing='none' of LoadNegatives lets scenes"):
        LoadNegatives(root)(sample("far"))
    failed = LoadNegatives(root, missing="none")(sample("far"))
    assert failed["negative_valid"].tolist() == [False]
    results = LoadNegatives(root, missing="none")(sample("unknown"))
    assert results["negative_valid"].tolist() == [False]
    assert results["negative_plans"].shape == (1, 8, 3)


def test_scenes_whose_mining_failed_are_told_before_a_training_meets_them(root, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(negatives, "print_log", lambda text, *_: told.append(text))
    place = DataPlace(tmp_path / "navsim_logs/train", tmp_path / "maps", tmp_path / "sensors")
    LoadNegatives(root, missing="none").check_sources(place)
    assert not told
    LoadNegatives(root).check_sources(place)
    assert (
        len(told) == 1 and "failed for 1 scene(s), the first is far: LogError: log.pkl: truncated" in told[0]
    )
    assert "missing='none'" in told[0]


def test_stated_expectations_are_checked_at_the_first_sample(root):
    transform = LoadNegatives(root, split="val", generator="flow", progress="pooled")
    with pytest.raises(PoolError, match=r"split: stored 'train', wanted 'val'; progress: stored 'pair'"):
        transform(sample())
    LoadNegatives(root, split="train", generator={"name": "flow"}, progress="pair")(sample())


def test_a_pool_of_other_data_with_the_same_tokens_is_refused(root):
    other = EXPERT.copy()
    other[:, 1] = 0.5
    with pytest.raises(
        PoolError, match=r"scene near has another expert than the sample, they differ by 0\.5"
    ):
        LoadNegatives(root)(sample(expert=other))
    turned = EXPERT.copy()
    turned[:, 2] = 2 * np.pi
    LoadNegatives(root)(sample(expert=turned))


def test_bad_options_are_refused(root):
    with pytest.raises(ValueError, match="missing must be"):
        LoadNegatives(root, missing="skip")
    with pytest.raises(ValueError, match="column: 'NO'"):
        LoadNegatives(root, selection={"column": "NO"})


def test_a_config_can_be_built_before_its_pool_exists(tmp_path):
    transform = LoadNegatives(tmp_path / "later")
    with pytest.raises(StoreError, match="later"):
        transform(sample())


def test_survives_pickling_into_a_data_worker(root):
    transform = LoadNegatives(root)
    transform(sample())
    assert pickle.loads(pickle.dumps(transform))(sample())["negative_valid"].all()


def test_slots_say_what_they_are_for_and_when_it_happens(root):
    selection = {"type": "NearestNegativesPerColumn", "columns": ["NC", "PDMS"]}
    results = LoadNegatives(root, selection=selection)(sample())
    assert results["negative_columns"].tolist() == [0, 6]
    assert results["negative_times"].tolist() == [np.inf, 2.0]  # plan 1 is the nearest failure
    assert results["negative_times"].dtype == np.float32
    packed = PackPlanInputs(input_keys=("trajectory",))({**results, **sample()})["data_samples"]
    assert packed.negatives.times.tolist() == [np.inf, 2.0]
    assert packed.negatives.columns.tolist() == [0, 6]


# ------------------------------------------------------------------ rounds of a running training
def mined_round(folder, epoch, pdms, sideways, **changes):
    writer = open_writer(folder / round_name(epoch), describe(num_scenes=1, **changes), "a test")
    writer.write("shard-00000", {"near": record(pdms, sideways)})
    return round_name(epoch)


def load_online(folder, pool=None, **settings):
    """What the hook makes of a ``LoadNegatives`` with ``online=True``."""
    transform = LoadNegatives(pool, online=True, **settings)
    transform.read_rounds(folder)
    return transform


def test_rounds_join_the_pool_as_soon_as_the_index_names_them(root, tmp_path):
    online = tmp_path / "online"
    transform = load_online(online, root, selection={"num": 2})
    assert transform(sample())["negative_plans"][:, 0, 1].tolist() == [-1, 3]
    name = mined_round(online, 2, [0.0, 1.0], [0.5, 0.1])
    assert transform(sample())["negative_plans"][:, 0, 1].tolist() == [-1, 3]
    write_index(online, [name])
    results = transform(sample())
    assert results["negative_plans"][:, 0, 1].tolist() == [0.5, -1]
    assert results["negative_times"].tolist() == [1.0, 2.0]
    assert transform(sample("safe"))["negative_valid"].tolist() == [False, False]
    write_index(online, [mined_round(online, 4, [0.0], [0.2]), name])
    assert transform(sample())["negative_plans"][:, 0, 1].tolist() == pytest.approx([0.2, 0.5])


def test_what_a_kill_left_of_an_index_goes_with_the_next_one(tmp_path):
    left = tmp_path / ".rounds.json.0123.partial"
    left.write_text('{"rounds"')
    write_index(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == ["rounds.json"]


def test_rounds_alone_are_enough(tmp_path):
    transform = load_online(tmp_path, split="train")
    assert not transform(sample())["negative_valid"].any()
    write_index(tmp_path, [mined_round(tmp_path, 1, [0.0], [0.5])])
    assert pickle.loads(pickle.dumps(transform))(sample())["negative_valid"].all()
    assert transform(sample())["negative_times"].tolist() == [1.0]


def test_bad_rounds_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"give pool .* online=True, or both"):
        LoadNegatives()
    with pytest.raises(PoolError, match="online=True, but nothing mines"):
        LoadNegatives(online=True)(sample())
    write_index(tmp_path, ["epoch_0001"])
    with pytest.raises(StoreError, match="epoch_0001: no store here"):
        load_online(tmp_path)(sample())
    mined_round(tmp_path, 1, [0.0], [0.5], split="val")
    with pytest.raises(PoolError, match="split: stored 'val', wanted 'train'"):
        load_online(tmp_path, split="train")(sample())
    (tmp_path / "rounds.json").write_text("{")
    with pytest.raises(PoolError, match=r"rounds\.json: cannot be read"):
        load_online(tmp_path)(sample())
