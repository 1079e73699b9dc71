"""EPDMS, one stage, from log and map to run averages, against results of the official code."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.evaluation.pdm import (
    EPDMS_COLUMNS,
    MetricCache,
    MetricCacheError,
    build_metric_cache,
    score,
)
from beyonddrive.evaluation.pdm.cache.prepare import history_states
from beyonddrive.evaluation.pdm.scores.epdms import FILTERED
from beyonddrive.evaluation.pdm.scores.epdms_of_run import (
    RUN_COLUMNS,
    RunError,
    extended_comfort,
    neighbors,
    run_score,
)

DATA = Path(__file__).parents[2] / "data"
LOGS = (
    "green_to_red",
    "gap_red",
    "late_touch",
    "long_past",
    "cone_clip",
    "wrong_slow",
    "fast_cross",
    "wander",
    "cross_right_redinside",
)
TLC, LK = EPDMS_COLUMNS.index("TLC"), EPDMS_COLUMNS.index("LK")


@dataclass
class Item:
    scene: object
    nuplan_map: object
    cache: object
    official: dict


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """All scenes by log name, in the order of their windows."""
    official = {path.stem: path for path in (DATA / "epdms/scores").glob("*.npz")}
    found = {}
    for logs, split in ((DATA / "epdms", "epdms"), (DATA / "golden/pdms/data", "golden")):
        root = NavsimRoot(logs, DATA / "golden/pdms/data/maps")
        for scene in root.scenes(split, SceneFilter(frame_interval=1)):
            path = official.pop(f"{scene.log_name}__{scene.token}", None)
            if path is not None:
                nuplan_map = root.map(scene.map_location)
                cache = build_metric_cache(scene, nuplan_map)
                item = Item(scene, nuplan_map, cache, dict(np.load(path, allow_pickle=False)))
                found.setdefault(scene.log_name.split("_veh-")[1][2:], []).append(item)
    assert not official, "a file of scores has no scene"
    return found


@pytest.fixture(params=LOGS)
def log_items(request, items):
    if request.param == "wander":
        request.getfixturevalue("last_bits_of_numpy")
    return items[request.param]


@pytest.fixture(scope="module")
def all_items(items):
    return [item for log in LOGS for item in items[log]]


@pytest.mark.parametrize("human_filter", [True, False], ids=["filtered", "raw"])
def test_scores_equal_the_official_ones(log_items, human_filter):
    suffix = "filtered" if human_filter else "raw"
    for item in log_items:
        official, stable = item.official, item.official["stable"]
        result = score(item.cache, official["poses"], version="v2", human_filter=human_filter)
        expected = np.column_stack([official[f"scores_{suffix}"], official[f"total_{suffix}"]])
        difference = np.abs(result.values - expected)[stable]
        worst = np.unravel_index(difference.argmax(), difference.shape)
        name = official["names"][stable][worst[0]]
        assert difference.max() <= 1e-6, f"{EPDMS_COLUMNS[worst[1]]} of {name}, scene {item.scene.token}"
        exact = [EPDMS_COLUMNS.index(c) for c in ("NC", "DAC", "DDC", "TLC", "TTC", "LK", "HC")]
        assert (difference[:, exact] == 0).all()
        np.testing.assert_allclose(
            result.progress[stable], official["progress_raw"][stable], rtol=0, atol=2e-8
        )


def test_every_row_was_compared(all_items):
    assert len(all_items) == 30
    assert sum(len(item.official["stable"]) for item in all_items) == 1440
    values = np.concatenate([item.official["scores_raw"][item.official["stable"]] for item in all_items])
    failing = {name: int((values[:, c] < 1).sum()) for c, name in enumerate(EPDMS_COLUMNS[:-1])}
    assert min(failing.values()) > 90, f"the data hardly see a sub-score: {failing}"


def test_metric_cache_stages(log_items):
    for item in log_items:
        cache, official = item.cache, item.official
        scene = cache.prepared_extended
        np.testing.assert_allclose(cache.extended.proposal, official["pdm_states"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(cache.extended.human, official["human_trajectory"], rtol=0, atol=1e-8)
        np.testing.assert_allclose(scene.world.history, official["history_states"], rtol=0, atol=1e-10)
        np.testing.assert_array_equal(scene.human, official["human_scores"])
        known, left = cache.tracks.boxes(9)[..., 0], scene.world.traffic.boxes[..., 0]
        removed = np.isfinite(known).any(axis=0) & ~np.isfinite(left).any(axis=0)
        tokens = [token for token, gone in zip(cache.tracks.tokens, removed, strict=True) if gone]
        assert sorted(tokens) == sorted(official["removed_tokens"].tolist())
        ids = [str(id) for id in cache.extended.light_ids]
        order, reference = np.argsort(ids), np.argsort(official["red_ids"])
        assert sorted(ids) == official["red_ids"][reference].tolist()
        red = cache.extended.light_red[np.arange(41) // 5]
        np.testing.assert_array_equal(red[:, order], official["red_mask"][:, reference])


def test_runs_equal_the_official_ones(all_items):
    by_token = {item.scene.token: item for item in all_items}
    with np.load(DATA / "epdms/submissions.npz", allow_pickle=False) as file:
        official = dict(file)
    tokens = official["token"].tolist()
    assert len(tokens) == 30 and (official["previous"] >= 0).sum() == 20
    caches = [by_token[token].cache for token in tokens]
    results = [score(c, official["poses"][:, i], version="v2") for i, c in enumerate(caches)]
    for k, stable in enumerate(official["stable"]):
        run = run_score(
            [cache.log_name for cache in caches],
            [cache.time_us * 1e-6 for cache in caches],
            np.stack([result.values[k] for result in results]),
            np.stack([result.simulated[k] for result in results]),
        )
        np.testing.assert_array_equal(run.previous, official["previous"])
        np.testing.assert_array_equal(run.values[:, RUN_COLUMNS.index("EC")], official["ec"][k])
        np.testing.assert_allclose(run.rms[stable], official["rms"][k][stable], rtol=0, atol=1e-6)
        final = run.values[stable, RUN_COLUMNS.index("EPDMS")]
        np.testing.assert_allclose(final, official["score"][k][stable], rtol=0, atol=1e-6)
        assert run.averages["EPDMS"] == pytest.approx(run.values[:, -1].mean(), abs=1e-12)
        assert run.averages["EC"] == pytest.approx(np.nanmean(official["ec"][k]), abs=1e-12)


# ------------------------------------------------------------------ one plan, one cache
def test_a_score_does_not_depend_on_the_batch(items):
    item = items["fast_cross"][0]
    plans = item.official["poses"]
    together = score(item.cache, plans, version="v2")
    alone = np.concatenate([score(item.cache, plan[None], version="v2").values for plan in plans])
    np.testing.assert_array_equal(together.values, alone)
    backwards = score(item.cache, plans[::-1], version="v2").values[::-1]
    np.testing.assert_array_equal(together.values, backwards)


def test_a_stored_cache_gives_the_same_bits(items):
    for log in ("green_to_red", "long_past"):
        item = items[log][0]
        again = MetricCache.from_arrays(item.cache.to_arrays())
        plans = item.official["poses"]
        one, other = (score(cache, plans, version="v2") for cache in (item.cache, again))
        np.testing.assert_array_equal(one.values, other.values)
        np.testing.assert_array_equal(score(item.cache, plans).values, score(again, plans).values)


def test_a_cache_for_pdms_only_is_refused(items):
    item = items["wander"][0]
    plain = replace(item.cache, extended=None)
    plans = item.official["poses"][:3]
    again = MetricCache.from_arrays(plain.to_arrays())
    np.testing.assert_array_equal(score(again, plans).values, score(item.cache, plans).values)
    with pytest.raises(MetricCacheError, match=r"serves PDMS only.*MetricCache\.extended") as caught:
        score(again, plans, version="v2")
    assert item.scene.token in str(caught.value)


@pytest.mark.parametrize("step", [0, 50000])
def test_a_history_that_stands_still_is_refused(items, step):
    item = items["wander"][0]
    frames = [copy.copy(frame) for frame in item.scene.frames]
    for back in (1, 2, 3):
        frames[3 - back]["timestamp"] = frames[3]["timestamp"] - back * step
    scene = Scene(item.scene.log_name, item.scene.split, frames)
    cache = build_metric_cache(scene, item.nuplan_map)
    plans = item.official["poses"][:1]
    np.testing.assert_array_equal(score(cache, plans).values, score(item.cache, plans).values)
    with pytest.raises(MetricCacheError, match="do not increase"):
        score(cache, plans, version="v2")


def test_a_past_that_is_not_finite_is_refused(items):
    item = items["wander"][0]
    history = item.cache.extended.history.copy()
    history[1, 5] = np.nan
    cache = replace(item.cache, extended=replace(item.cache.extended, history=history))
    with pytest.raises(MetricCacheError, match="ego_dynamic_state of a frame before now"):
        score(cache, item.official["poses"][:1], version="v2")


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_wild_plans_have_scores_between_0_and_1(all_items, scale):
    plans = np.random.default_rng(3).normal(0, scale, (40, 8, 3))
    for item in all_items[::3]:
        for human_filter in (True, False):
            values = score(item.cache, plans, version="v2", human_filter=human_filter).values
            assert ((values >= 0) & (values <= 1)).all()


def test_progress_can_be_pooled(items):
    item = items["wander"][0]
    plans = item.official["poses"]
    pair = score(item.cache, plans, version="v2", human_filter=False)
    pooled = score(item.cache, plans, progress="pooled", version="v2", human_filter=False)
    multiplier = pair.values[:, :4].prod(axis=1)
    largest = max((pair.progress * multiplier).max(), item.cache.prepared_extended.reference_progress)
    expected = np.clip(pair.progress / largest, 0, 1)
    assert largest > 5
    np.testing.assert_allclose(pooled.column("EP"), expected, rtol=0, atol=1e-12)
    assert (pooled.column("EP") <= pair.column("EP") + 1e-12).all()


def test_unknown_version_and_column(items):
    item = items["wander"][0]
    with pytest.raises(ValueError, match="'v1' or 'v2'"):
        score(item.cache, item.official["poses"][:1], version="v3")
    with pytest.raises(KeyError, match="EPDMS_without_EC"):
        score(item.cache, item.official["poses"][:1], version="v2").column("PDMS")


def test_infractions_say_when_and_what(items):
    item = items["green_to_red"][0]
    result = score(item.cache, item.official["poses"], version="v2", human_filter=False)
    red, off = result.column("TLC") == 0, result.column("LK") == 0
    assert red.any() and off.any()
    for failed, time in ((red, result.tlc_time), (off, result.lk_time)):
        np.testing.assert_array_equal(failed, np.isfinite(time))
    samples = np.round(result.tlc_time[red] / 0.1).astype(int)
    assert item.cache.extended.light_red[samples // 5, result.tlc_light[red]].all()
    assert (result.tlc_light[~red] == -1).all()
    assert (result.lk_time[off] >= 1.9 - 1e-9).all()


def test_without_red_lights_nobody_fails_them(items):
    item = items["green_to_red"][0]
    extended = replace(item.cache.extended, light_red=np.zeros_like(item.cache.extended.light_red))
    dark = replace(item.cache, extended=extended)
    plans = item.official["poses"]
    before, after = (score(c, plans, version="v2", human_filter=False) for c in (item.cache, dark))
    assert (before.column("TLC") == 0).any() and (after.column("TLC") == 1).all()


def test_filter_only_ever_helps(all_items):
    helped = np.zeros(9, dtype=bool)
    for item in all_items:
        plans = item.official["poses"]
        raw, filtered = (score(item.cache, plans, version="v2", human_filter=f) for f in (False, True))
        assert (filtered.values >= raw.values).all()
        changed = (filtered.values > raw.values).any(axis=0)
        helped |= changed
        for name in np.array(EPDMS_COLUMNS)[:-1][changed[:-1]]:
            assert name in FILTERED and raw.human[EPDMS_COLUMNS.index(name)] == 0
    assert helped[TLC] and helped[LK] and helped[-1]


def test_history_ends_a_step_before_the_last_sample():
    states = np.zeros((4, 7))
    states[:, 0] = [0.0, 5.0, 10.0, 15.0]
    states[:, 2] = [3.0, 3.1, -3.1, -3.0]  # across the turn
    for last, count in ((1499999, 14), (1500000, 14), (1500001, 15), (1600001, 16)):
        history = history_states(np.array([0, 500000, 1000000, last]), states)
        assert len(history) == count
        np.testing.assert_allclose(history[:11, 0], np.arange(11), atol=1e-12)
        assert (np.abs(history[:, 2]) > 2.9).all() and (np.abs(history[:, 2]) <= np.pi).all()
        assert (history[:, 7:] == 0).all()


# ------------------------------------------------------------------ runs
def test_neighbours():
    logs = ["a", "b", "a", "a", "b", "c"]
    times = [0.0, 0.0, 0.5, 1.0501, 0.56, 0.5]
    assert neighbors(logs, times).tolist() == [-1, -1, 0, -1, -1, -1]
    assert neighbors([], []).tolist() == []


@pytest.mark.parametrize("gap", [0.0, 0.04])
def test_scenes_at_the_same_time(gap):
    with pytest.raises(RunError, match=r"log a: two scenes are 0\.0.* apart \(row 0, row 1\)"):
        neighbors(["a", "a"], [3.0, 3.0 + gap])
    rows = np.ones((2, 9)), np.zeros((2, 41, 11))
    with pytest.raises(RunError, match=r"apart \(one, two\)"):
        run_score(["a", "a"], [3.0, 3.0 + gap], *rows, ["one", "two"])


def test_run_without_neighbours():
    run = run_score(["a", "b"], [0.0, 0.0], np.ones((2, 9)), np.zeros((2, 41, 11)))
    assert np.isnan(run.averages["EC"]) and run.averages["EPDMS"] == 1.0
    with pytest.raises(RunError, match="expected an array"):
        run_score(["a"], [0.0], np.ones((1, 7)), np.zeros((1, 41, 11)))


def test_a_change_of_mind_is_not_comfortable():
    steady = np.zeros((41, 11))
    steady[:, 0] = 0.8 * np.arange(41)
    braking = steady.copy()
    braking[:, 5] = -3.0 * np.minimum(np.arange(41) / 10, 1.0)
    assert extended_comfort(steady, steady, 0.5)[0] == 1.0
    comfort, rms = extended_comfort(braking, steady, 0.5)
    assert comfort == 0.0 and rms[0] > 0.7 and (rms[2:] == 0).all()
    # Half a second later in the same manoeuvre is no change.
    later = np.concatenate([braking[5:], np.repeat(braking[-1:], 5, axis=0)])
    assert extended_comfort(later, braking, 0.5)[0] == 1.0
    run = run_score(["a", "a"], [0.5, 0.0], np.ones((2, 9)), np.stack([braking, steady]))
    assert run.values[:, -2].tolist() == [0.0, pytest.approx(np.nan, nan_ok=True)]
    assert run.values[:, -1].tolist() == [0.875, 1.0]
