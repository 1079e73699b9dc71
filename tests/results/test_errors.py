"""Distances of plans and of the nearest failures from the expert."""

import numpy as np
import pytest

from beyonddrive.evaluation.plan_files import PlanFileError
from beyonddrive.results.effect import errors
from beyonddrive.results.effect.pool_failures import PoolFailures
from beyonddrive.results.row_files import add_rows, named_files


def test_a_row_is_compared_with_the_failures():
    cells = errors.cells_of(np.array([1.0, 2.0, 3.0, 2.0]), np.array([4.0, 4.0, 2.0, 6.0]))
    assert cells == {"scenes": "4", "distance": "2.00", "ratio": "0.50", "nearer than the failure": "75.0"}


def test_plans_have_a_row_each_and_all_scenes(tmp_path):
    assert {name: str(path) for name, path in named_files(["LTF/0=w=5/a.npz"]).items()} == {
        "LTF/0": "w=5/a.npz"
    }
    for texts in (["a.npz"], ["=a.npz"], ["LTF=a", "LTF=b"]):
        with pytest.raises(SystemExit, match="expected ROW=FILE"):
            named_files(texts)
    pool = PoolFailures(("a", "b"), np.zeros((2, 8, 3)), np.zeros((2, 8, 3)), np.ones(2, bool))
    np.savez(tmp_path / "plans.npz", a=np.zeros((1, 8, 3)), c=np.zeros((1, 8, 3)))
    with pytest.raises(SystemExit, match=r"plans.npz: has no plan of b \(1 of the 2"):
        pool.plans(tmp_path / "plans.npz")
    np.savez(tmp_path / "plans.npz", a=np.zeros((1, 8, 3)), b=np.ones((8, 3)))
    assert pool.plans(tmp_path / "plans.npz").shape == (2, 8, 3)
    np.savez(tmp_path / "plans.npz", a=np.zeros((1, 8, 3)), b=np.ones((2, 8, 3)))
    with pytest.raises(PlanFileError, match=r"plans.npz: b: needs one plan"):
        pool.plans(tmp_path / "plans.npz")


def test_rows_of_other_columns_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    add_rows(path, {"a": {"x": "1", "y": "2"}})
    with pytest.raises(SystemExit, match=r"rows.csv: row 'b' and the first one do not both have y"):
        add_rows(path, {"b": {"x": "1"}})
    assert path.read_text() == "row,x,y\na,1,2\n"


def test_rows_that_were_measured_beside_another_pool_are_refused(tmp_path):
    path = tmp_path / "rows.csv"
    add_rows(path, {"pool": {"x": "1"}, "a": {"x": "2"}}, "pool")
    add_rows(path, {"pool": {"x": "1"}, "b": {"x": "3"}}, "pool")
    with pytest.raises(SystemExit, match=r"rows.csv: row 'pool' is another one there, .* measure all"):
        add_rows(path, {"pool": {"x": "4"}, "b": {"x": "5"}}, "pool")
    assert path.read_text() == "row,x\npool,1\na,2\nb,3\n"
    add_rows(path, {"pool": {"x": "4"}, "a": {"x": "5"}, "b": {"x": "6"}}, "pool")  # (all rows anew)
    assert path.read_text() == "row,x\npool,4\na,5\nb,6\n"
