"""Two stages beside what the official code gave: follow-up scenes, reactive traffic, aggregation."""

from pathlib import Path

import numpy as np
import pytest

from beyonddrive.evaluation.two_stage_golden import RUN, SEGMENTS, WEIGHTS, compare_directory, is_golden

DATA = Path(__file__).parents[1] / "data" / "golden"
GOLDEN, MAPS = DATA / "two_stage", DATA / "pdms" / "data" / "maps"
SCENES = sorted(path.name for path in (GOLDEN / "scenes").glob("*.npz"))
FAILING = sorted(path.name for path in (GOLDEN / "data" / "failing_scenes").glob("*.pkl"))


@pytest.fixture(scope="module")
def compared():
    return {found.name: found for found in compare_directory(GOLDEN, MAPS)}


@pytest.mark.parametrize(
    "name",
    [RUN, WEIGHTS, SEGMENTS, *(f"scenes/{n}" for n in SCENES), *(f"failing_scenes/{n}" for n in FAILING)],
)
def test_every_recorded_number_is_met(compared, name):
    assert not compared[name].faults
    assert compared[name].rows


def test_a_number_that_differs_is_noticed(tmp_path):
    assert is_golden(GOLDEN) and not is_golden(tmp_path)
    for name in (RUN, SEGMENTS, WEIGHTS):
        arrays = dict(np.load(GOLDEN / name))
        if name == WEIGHTS:
            arrays["combined"][2, 9] += 1e-5
        np.savez(tmp_path / name, **arrays)
    (tmp_path / "data").symlink_to(GOLDEN / "data")
    found = {item.name: item for item in compare_directory(tmp_path, MAPS)}
    assert found[WEIGHTS].faults == ("combined 2: differs by 1.0e-05",)
    assert "no group has all of its scenes" in str(found[RUN])
