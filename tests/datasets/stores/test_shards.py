"""The store: whole shards or none, refusal of what was made for something else."""

import json
import multiprocessing
import operator
import shutil
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from beyonddrive.datasets.stores.fingerprints import fingerprint
from beyonddrive.datasets.stores.manifests import MANIFEST, StoreError, StoreKind
from beyonddrive.datasets.stores.shard_store import ShardStore
from beyonddrive.datasets.stores.shards import ShardWriter

DEMO, OTHER = StoreKind("demo", "make demo"), StoreKind("other", "make other")
CONFIG = {"size": [64, 256], "strategy": {"noise": 0.4}}


@pytest.fixture
def root(tmp_path):
    writer = ShardWriter(tmp_path / "store", DEMO, CONFIG, "a test")
    writer.write(
        "shard-00000", {"a": {"x": np.arange(4.0)}, "b": {"x": np.ones((2, 3)), "m": np.array([True])}}
    )
    writer.write("shard-00001", {"c": {"x": np.array(7, dtype=np.int64)}}, failures={"d": "no image"})
    return writer.root


def test_records_come_back_as_written(root):
    store = ShardStore(root, DEMO, CONFIG)
    assert store.tokens == ["a", "b", "c"]
    assert len(store) == 3 and "b" in store and "d" not in store
    np.testing.assert_array_equal(store["a"]["x"], np.arange(4.0))
    assert store["b"]["m"].dtype == bool
    assert store["c"]["x"].shape == () and store["c"]["x"] == 7


def test_a_missing_record_says_why(root):
    store = ShardStore(root, DEMO)
    with pytest.raises(StoreError, match=r"scene d failed: no image"):
        store["d"]
    with pytest.raises(StoreError, match="no scene zzz"):
        store["zzz"]


def test_a_stale_store_is_refused_with_what_differs(root):
    with pytest.raises(StoreError, match=r"config\.strategy\.noise: stored 0\.4, wanted 0\.2"):
        ShardStore(root, DEMO, {**CONFIG, "strategy": {"noise": 0.2}})
    with pytest.raises(StoreError, match="kind: stored 'demo', wanted 'other'"):
        ShardWriter(root, OTHER, CONFIG, "")
    assert ShardWriter(root, DEMO, CONFIG, "again").done("shard-00000")


def test_a_folder_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="no store here"):
        ShardStore(tmp_path, DEMO)


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"version": 1}'])
def test_a_damaged_manifest_is_refused(root, manifest):
    (root / MANIFEST).write_bytes(manifest)
    with pytest.raises(StoreError, match=MANIFEST):
        ShardStore(root, DEMO)


@pytest.mark.parametrize("keep", [0, 4, 60, -5])
def test_a_damaged_shard_is_refused_by_name(root, keep):
    path = root / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="shard-00001"):
        ShardStore(root, DEMO)


@pytest.mark.parametrize("position", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_zeroed_bytes_never_become_numbers(tmp_path, position):
    """A block of 512 zeros, as a lost sector of a disk leaves it."""
    rng = np.random.default_rng(0)
    writer = ShardWriter(tmp_path, DEMO, CONFIG, "a test")
    records = {name: {"x": rng.normal(size=400), "y": rng.integers(1, 9, 100)} for name in "abcd"}
    writer.write("shard-00000", records)
    path = writer.path("shard-00000")
    content = bytearray(path.read_bytes())
    start = round(position * (len(content) - 512))
    content[start : start + 512] = bytes(512)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors: is damaged .* run: make demo"):
        store = ShardStore(tmp_path, DEMO, CONFIG)
        for token in "abcd":
            assert (store[token]["x"] == records[token]["x"]).all()
    if writer.index("shard-00000") is not None:
        with pytest.raises(StoreError, match="is damaged"):
            writer.read("shard-00000", list("abcd"))


def test_any_flipped_bit_is_noticed(tmp_path):
    writer = ShardWriter(tmp_path, DEMO, CONFIG, "a test")
    writer.write("s", {"a": {"x": np.arange(3, dtype=np.int16)}}, {"b": "no"}, marks=["m"])
    path = writer.path("s")
    content = path.read_bytes()
    whole = ShardStore(tmp_path, DEMO).indices["s"]
    for position in range(0, 8 * len(content), 3):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            store = ShardStore(tmp_path, DEMO)
            # Some bits mean nothing, such as a space of padding that becomes another one.
            assert store["a"]["x"].tolist() == [0, 1, 2] and store.indices["s"] == whole
        except StoreError:
            pass


def test_a_store_of_an_older_format_is_refused_with_the_command(root):
    manifest = json.loads((root / MANIFEST).read_text())
    (root / MANIFEST).write_text(json.dumps({**manifest, "version": 1}))
    with pytest.raises(StoreError, match=r"version: stored 1, wanted 3.*make it again: make demo"):
        ShardStore(root, DEMO)


def test_an_interrupted_write_leaves_no_shard(root, monkeypatch):
    writer = ShardWriter(root, DEMO, CONFIG, "")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        writer.write("shard-00002", {"e": {"x": np.zeros(1)}})
    assert sorted(p.name for p in root.iterdir()) == [
        MANIFEST,
        "shard-00000.safetensors",
        "shard-00001.safetensors",
    ]


def test_objects_and_duplicates_are_refused(root):
    writer = ShardWriter(root, DEMO, CONFIG, "")
    with pytest.raises(StoreError, match="only numbers"):
        writer.write("shard-00002", {"e": {"x": np.array(["text"])}})
    writer.write("shard-00002", {"a": {"x": np.zeros(1)}})
    with pytest.raises(StoreError, match="scene a is also in"):
        ShardStore(root, DEMO)


def test_a_shard_knows_its_sources_and_marks(root, tmp_path):
    writer = ShardWriter(root, DEMO, CONFIG, "")
    source = tmp_path / "source"
    source.write_bytes(b"1")
    record, known = {"x": np.zeros(1)}, fingerprint(source)
    writer.write("shard-00002", {"e": record}, {"f": "no"}, {"source": known}, ["second", "first"])
    index = writer.index("shard-00002")
    assert index is not None and index.tokens == ("e",) and index.failures == {"f": "no"}
    assert index.sources == {"source": known} and index.marks == ("first", "second")
    assert ShardStore(root, DEMO).indices["shard-00002"] == index
    assert ShardStore(root, DEMO).shard_of("e") == "shard-00002"
    assert writer.index("shard-00000").sources == {} and writer.index("shard-00009") is None
    assert list(writer.read("shard-00000", ["b"])) == ["b"]
    writer.path("shard-00002").write_bytes(b"damaged")
    assert writer.index("shard-00002") is None


def test_few_shards_stay_mapped(root):
    store = ShardStore(root, DEMO, max_open=1)
    assert [len(store[token]) for token in ("a", "c", "b", "c")] == [1, 1, 2, 1]
    assert len(store._open) == 1


def test_two_writers_start_one_store(tmp_path, monkeypatch):
    """The one that is late finds a manifest between its look and its writing."""
    writer = ShardWriter(tmp_path / "store", DEMO, CONFIG, "first")
    monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
    monkeypatch.setattr("pathlib.Path.glob", lambda path, pattern: iter(()))
    assert ShardWriter(writer.root, DEMO, CONFIG, "second").root == writer.root
    with pytest.raises(StoreError, match="kind: stored 'demo', wanted 'other'"):
        ShardWriter(writer.root, OTHER, CONFIG, "third")
    assert json.loads((writer.root / MANIFEST).read_text())["source"] == "first"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_can_read(root, method):
    store = ShardStore(root, DEMO)
    assert store["a"]["x"].sum() == 6.0
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        record = pool.submit(operator.getitem, store, "a").result(timeout=60)
    np.testing.assert_array_equal(record["x"], np.arange(4.0))


def test_same_records_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        ShardWriter(tmp_path / name, DEMO, {}, "").write("s", {"a": {"x": np.arange(3), "b": np.zeros(2)}})
    assert (tmp_path / "one/s.safetensors").read_bytes() == (tmp_path / "two/s.safetensors").read_bytes()
    assert json.loads((tmp_path / "one" / MANIFEST).read_text())["version"] == 3


@pytest.mark.parametrize("other", [StoreKind("demo", "make demo"), OTHER])
def test_a_shard_of_another_store_is_refused(root, tmp_path, other):
    config = {**CONFIG, "split": "mini"} if other.name == DEMO.name else CONFIG
    strange = ShardWriter(tmp_path / "strange", other, config, "a test")
    strange.write("shard-00002", {"z": {"x": np.zeros(1)}})
    shutil.copy(strange.path("shard-00002"), root)
    message = r"shard-00002\.safetensors: .*of another split or of other settings.*run: make demo"
    with pytest.raises(StoreError, match=message):
        ShardStore(root, DEMO)
    writer = ShardWriter(root, DEMO, CONFIG, "a test")
    assert writer.index("shard-00002") is None, "to be made again"
    with pytest.raises(StoreError, match=message):
        writer.read("shard-00002", ["z"])
