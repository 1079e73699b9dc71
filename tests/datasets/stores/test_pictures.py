"""Feature caches whose camera images are compressed pictures."""

import numpy as np
import pytest

from beyonddrive.datasets.feature_caching import cache_features
from beyonddrive.datasets.navsim_dataset import DatasetError, NavsimDataset
from beyonddrive.datasets.stores.feature_cache import KIND
from beyonddrive.datasets.stores.manifests import StoreError
from beyonddrive.datasets.stores.pictures import ENCODED, EncodingError, decoded
from beyonddrive.datasets.stores.shards import ShardWriter
from beyonddrive.datasets.transforms.encoding import EncodeCamera
from beyonddrive.engine.executors import SerialExecutor

FEATURES = [{"type": "LoadCameraStitch", "size": (64, 256)}, {"type": "EgoStatus"}, {"type": "PlanTarget"}]
LOSSLESS = [{"format": "png"}, {"format": "webp"}]
LOSSY = [{"format": "jpeg", "quality": 90}, {"format": "webp", "quality": 90}]


@pytest.fixture
def make(world):
    def make(encoding=None, **changes):
        steps = FEATURES + ([] if encoding is None else [{"type": "EncodeCamera", **encoding}])
        return NavsimDataset(
            world, "mini", feature_pipeline=steps, scene_filter={"frame_interval": 1}, **changes
        )

    return make


def run(make, cache, encoding=None):
    report = cache_features(make(encoding, lazy_init=True), cache, SerialExecutor())
    assert report.complete
    return sum(path.stat().st_size for path in cache.glob("*.safetensors"))


@pytest.mark.parametrize("encoding", LOSSLESS + LOSSY, ids=str)
def test_samples_are_the_same_from_a_cache_and_on_the_fly(make, tmp_path, encoding):
    raw = make()
    size = run(make, tmp_path / "raw")
    smaller = run(make, tmp_path / "cache", encoding)
    cached, made = make(encoding, cache_dir=tmp_path / "cache"), make(encoding)
    for index in range(len(raw)):
        image = raw.features(index)["camera"]
        assert cached.features(index).keys() == raw.features(index).keys()
        np.testing.assert_array_equal(cached.features(index)["camera"], made.features(index)["camera"])
        difference = np.abs(cached.features(index)["camera"].astype(int) - image.astype(int))
        # (a lossy picture halves the resolution of colours, and the test's images are noise)
        assert difference.max() == 0 if encoding in LOSSLESS else 0 < difference.mean() < 30
        for key in ("status", "trajectory"):
            np.testing.assert_array_equal(cached.features(index)[key], raw.features(index)[key])
    assert smaller < size


def test_the_encoding_is_part_of_what_a_cache_is(make, tmp_path):
    run(make, tmp_path / "raw")
    run(make, tmp_path / "jpeg", {"format": "jpeg", "quality": 90})
    for cache, wanted in (
        ("raw", {"format": "png"}),
        ("jpeg", None),
        ("jpeg", {"format": "jpeg", "quality": 95}),
    ):
        with pytest.raises(StoreError, match=r"(?s)config\..*make it again: beyonddrive cache-features"):
            make(wanted, cache_dir=tmp_path / cache)


def test_colours_keep_their_place():
    image = np.zeros((3, 32, 64), np.uint8)
    image[0, :, :32], image[2, :, 32:] = 200, 100  # red, blue
    for encoding in LOSSLESS + LOSSY:
        read = decoded(EncodeCamera(**encoding)({"camera": image}))["camera"].astype(int)
        assert read.shape == image.shape
        assert np.abs(read - image)[:, :, np.r_[:24, 40:64]].max() < 8


@pytest.mark.parametrize("found", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_a_picture_that_cannot_be_decoded_is_an_error_of_its_scene(make, tmp_path, found):
    """Whose bytes are those that were written: checksums tell the other kind of damage."""
    cache, encoding = tmp_path / "cache", {"format": "png"}
    run(make, cache, encoding)
    dataset = make(encoding, cache_dir=cache)
    writer = ShardWriter(cache, KIND, dataset.feature_config, "")
    token = dataset.tokens[2]
    [path] = [path for path in cache.glob("*.safetensors") if token in writer.index(path.stem).tokens]
    index = writer.index(path.stem)
    records = {key: dict(record) for key, record in writer.read(path.stem, index.tokens).items()}
    content = records[token][ENCODED].tobytes()[:300] if found is None else found
    records[token][ENCODED] = np.frombuffer(content, np.uint8)
    writer.write(path.stem, records, sources=index.sources, order=index.order)
    broken = make(encoding, cache_dir=cache)
    message = rf"{path.name}: is damaged .*scene {token}: its camera image .*delete this file and run"
    with pytest.raises(DatasetError, match=rf"^split mini: scene {token}: .*{message}"):
        broken[2]
    broken[1]
    path.unlink()
    run(make, cache, encoding)
    np.testing.assert_array_equal(
        make(encoding, cache_dir=cache).features(2)["camera"], make().features(2)["camera"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "png", "quality": 90}, "format='png' with quality=90 .* is not possible"),
        ({"format": "jpeg"}, r"format='jpeg' without quality \(lossless\) is not possible"),
        ({"format": "gif"}, "choose png or webp"),
        ({"format": "webp", "quality": 0}, "quality must be from 1 to 100, got 0"),
        ({"format": "jpeg", "quality": True}, "quality must be from 1 to 100, got True"),
    ],
)
def test_encodings_that_are_none_are_refused(settings, message):
    with pytest.raises(EncodingError, match=message):
        EncodeCamera(**settings)


def test_images_that_are_none_are_refused():
    step = EncodeCamera("png")
    with pytest.raises(EncodingError, match="put it behind LoadCameraStitch"):
        step({"status": np.zeros(8)})
    with pytest.raises(EncodingError, match=r"uint8 \(3, H, W\), got float32 \(3, 4, 4\)"):
        step({"camera": np.zeros((3, 4, 4), np.float32)})
