"""What earlier versions wrote is read as it was, and what later ones may write is refused with a remedy.

``record_compat.py`` makes and reads the artefacts, and ``tests/data/compat/README.md`` says what they are.
"""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores import negative_pool, vocabulary_scores
from beyonddrive.datasets.stores.manifests import FORMAT_VERSION, StoreError
from beyonddrive.datasets.stores.negative_pool import NegativePool
from beyonddrive.datasets.stores.vocabulary_scores import VocabularyScores
from beyonddrive.evaluation import metric_caches
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.pdm.cache.metric_cache import CACHE_VERSION, MetricCache, MetricCacheError
from beyonddrive.tests.record_compat import COMPAT, make_data, readings
from beyonddrive.version import __version__

VERSIONS = sorted(path.name for path in COMPAT.iterdir() if path.is_dir())
FEATURES = [{"type": "EgoStatus"}, {"type": "PlanTarget"}, {"type": "BEVMapTarget", "walkways": False}]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_version_wrote_is_read_as_it_was(version, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path)
    wanted = json.loads((COMPAT / version / "expected.json").read_text())
    found = readings(COMPAT / version)
    assert found.keys() >= wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4, err_msg=f"{version}: {name}")


def test_this_version_is_among_them_and_they_are_small():
    assert __version__ in VERSIONS, "record what this version writes: python tests/record_compat.py"
    assert sum(path.stat().st_size for path in COMPAT.rglob("*")) < 3e6


READERS = {
    "features": lambda folder: (
        NavsimDataset("data", "test", feature_pipeline=FEATURES, cache_dir=folder).tokens
    ),
    "metrics": lambda folder: MetricCaches("test", None, folder),
    "pool": NegativePool,
    "vocabulary_scores": VocabularyScores,
}


@pytest.mark.parametrize("store", READERS)
@pytest.mark.parametrize("change", [1, -1, "draft"])
def test_a_store_of_another_format_is_refused(store, change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_data(tmp_path)
    shutil.copytree(COMPAT / __version__ / store, tmp_path / store)
    READERS[store](tmp_path / store)
    manifest = json.loads((tmp_path / store / "manifest.json").read_text())
    manifest["version"] = change if isinstance(change, str) else FORMAT_VERSION + change
    (tmp_path / store / "manifest.json").write_text(json.dumps(manifest))
    stored = f"version: stored {manifest['version']!r}, wanted {FORMAT_VERSION}"
    with pytest.raises(StoreError, match=rf"{store}: .*{stored}.*make it again: beyonddrive "):
        READERS[store](tmp_path / store)


@pytest.mark.parametrize(
    ("store", "module", "name"),
    [
        ("metrics", metric_caches, "CACHE_VERSION"),
        ("pool", negative_pool, "SCORER_VERSION"),
        ("vocabulary_scores", vocabulary_scores, "SCORER_VERSION"),
    ],
)
def test_a_store_of_another_scorer_is_refused(store, module, name, monkeypatch):
    stored = getattr(module, name)
    monkeypatch.setattr(module, name, stored - 1)  # to whom the store is of a later version
    wrong = rf"{name.lower()}: stored {stored}, wanted {stored - 1}.*beyonddrive "
    with pytest.raises(StoreError, match=wrong):
        READERS[store](COMPAT / __version__ / store)


def test_a_metric_cache_of_another_version_is_refused():
    shard = next((COMPAT / __version__ / "metrics").glob("*.safetensors"))
    arrays = {}
    for name, array in load_file(shard).items():
        arrays.setdefault(name.partition("/")[0], {})[name.partition("/")[2]] = array
    (record,) = [found for found in arrays.values() if "version" in found]
    MetricCache.from_arrays(record)
    record["version"] = np.array(CACHE_VERSION + 1)
    with pytest.raises(MetricCacheError, match=rf"has version {CACHE_VERSION + 1}.*reads {CACHE_VERSION}"):
        MetricCache.from_arrays(record)
