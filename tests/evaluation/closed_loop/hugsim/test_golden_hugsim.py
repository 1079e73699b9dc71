"""Our HUGSIM beside arrays that the official code gave."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.golden import FILES, compare_directory, is_golden, not_compared

GOLDEN = Path(__file__).parents[3] / "data" / "golden" / "hugsim"
EPISODES = sorted(path.name for path in (GOLDEN / "episodes").glob("*.npz"))


@pytest.fixture(scope="module")
def compared():
    return {comparison.name: comparison for comparison in compare_directory(GOLDEN)}


@pytest.mark.parametrize("name", [*FILES, *(f"episodes/{name}" for name in EPISODES)])
def test_every_recorded_number_is_met(compared, name):
    assert not compared[name].faults
    assert compared[name].rows > 20


def test_a_number_that_differs_is_noticed(tmp_path):
    assert is_golden(GOLDEN) and not is_golden(tmp_path)
    arrays = dict(np.load(GOLDEN / "comfort.npz"))
    arrays["comfortable"][3] = 1 - arrays["comfortable"][3]
    np.savez(tmp_path / "comfort.npz", **arrays)
    (comparison,) = compare_directory(tmp_path)
    assert "comfortable: differs by 1.0e+00" in str(comparison)


def test_a_damaged_file_does_not_end_the_comparison_of_others(tmp_path):
    (tmp_path / "frames.npz").write_bytes(b"no archive")
    shutil.copy(GOLDEN / "comfort.npz", tmp_path)
    verdicts = {c.name: bool(c.faults) for c in compare_directory(tmp_path)}
    assert verdicts == {"comfort.npz": False, "frames.npz": True}


@pytest.fixture
def float32_calls():
    """Some calls with plans in float32 that the tracker answers stably."""
    arrays = dict(np.load(GOLDEN / "controller.npz"))
    stable = (arrays["main_sensitivity"] < 1e-6) & (arrays["main_error"] == "")
    chosen = np.flatnonzero(stable & (arrays["dtype"] == "float32"))[:4]
    return {name: values[chosen] for name, values in arrays.items() if not name.startswith("first_release")}


@pytest.mark.parametrize(
    "array, entry, change, fault",
    [
        ("main_ref", (0, 3, 2), 2e-6, "later headings"),
        ("main_ref", (0, 1, 2), 1e-9, "first heading"),
        ("main_ref", (0, 3, 1), 1e-9, "reference"),
        ("main_control", (0, 1), 2e-9, "command"),
        ("pr57_cost", (0, 1), 1e-6, "costs"),
        ("pr57_iterations", (0,), 1, "iterations"),
    ],
)
def test_float32_excuses_headings_by_a_few_units_and_nothing_else(
    float32_calls, tmp_path, array, entry, change, fault
):
    np.savez(tmp_path / "controller.npz", **float32_calls)
    (same,) = compare_directory(tmp_path)
    assert not same.faults and "depend on the processor" in str(same)
    float32_calls[array][entry] += change
    np.savez(tmp_path / "controller.npz", **float32_calls)
    (changed,) = compare_directory(tmp_path)
    assert any(fault in text for text in changed.faults)


@pytest.mark.parametrize(
    "array, entry, change, fault",
    [
        ("seen_steer_rate", 5, 1e-4, "command: differs by 1.0e-04"),
        ("seen_ego_velo", 9, 1e-9, "seen motion: differs by 1.0e-09"),
    ],
)
def test_a_float32_episode_is_driven_by_its_recorded_commands(tmp_path, array, entry, change, fault):
    (tmp_path / "episodes").mkdir()
    arrays = dict(np.load(GOLDEN / "episodes" / "easy-right-f32.npz"))
    arrays[array][entry] += change
    np.savez(tmp_path / "episodes" / "changed.npz", **arrays)
    (changed,) = compare_directory(tmp_path)
    assert fault in changed.faults


def test_what_the_official_code_fails_on_has_to_be_refused(float32_calls, tmp_path):
    float32_calls["main_error"] = np.array(["AssertionError", "", "", ""])
    np.savez(tmp_path / "controller.npz", **float32_calls)
    (comparison,) = compare_directory(tmp_path)
    assert comparison.faults == ("main call 0 refused: differs by 1.0e+00",)


def test_what_is_not_compared_is_said(tmp_path):
    assert not not_compared(tmp_path)
    (tmp_path / "http.json").write_text("{}")
    assert not_compared(tmp_path).startswith("http.json: retries and ports of the package's client")
