"""Our HUGSIM beside arrays that the official code gave."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.evaluation.closed_loop.hugsim.golden import FILES, compare_directory, is_golden

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
