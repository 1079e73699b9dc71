"""Explained plans drawn from a metric cache alone, and the pictures of the documentation."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest

from beyonddrive.evaluation.pdm import explain, metric_cache_from_arrays
from beyonddrive.visualization import palette
from beyonddrive.visualization.explained import CAPTION, SideView, draw_explained

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
VIEW = SideView(320)


@pytest.fixture(scope="module")
def cache():
    """The ego at 8 m/s, turned by a right angle; a car stands 20 m ahead of it."""
    return metric_cache_from_arrays(
        ego=[100, 50, np.pi / 2, 8, 0, 0, 0],
        centerline=[(100, 20), (100, 150)],
        lanes=[[(98, 20), (102, 20), (102, 150), (98, 150)]],
        agent_poses=np.tile([100.0, 70.0, np.pi / 2], (11, 1, 1)),
        agent_sizes=[[4.0, 2.0]],
        agent_types=["vehicle"],
    )


@pytest.fixture(scope="module")
def explanation(cache):
    plan = np.zeros((1, 8, 3))
    plan[0, :, 0] = 4.0 * np.arange(1, 9)
    return explain(cache, plan)[0]


def near(picture, column, row, color):
    part = picture[row - 3 : row + 4, column - 3 : column + 4].astype(int)
    return np.abs(part - color).max(axis=-1).min() < 30


def test_a_collision_is_marked_where_it_happens(cache, explanation):
    picture = draw_explained(cache, explanation, "NC", VIEW)
    assert picture.shape == (VIEW.height + CAPTION, 320, 3)
    # The front of the ego meets the rear of the car 18 m ahead of the rear axle.
    column, row = VIEW.to_pixels([18.0, 0.0]).round().astype(int)
    assert near(picture, column, row, palette.FAILURES["NC"])
    column, row = VIEW.to_pixels([18.0, 4.0]).round().astype(int)
    assert not near(picture, column, row, palette.FAILURES["NC"])
    np.testing.assert_array_equal(picture, draw_explained(cache, explanation, "NC", VIEW))
    np.testing.assert_array_equal(picture, draw_explained(cache, explanation, view=VIEW))


def test_every_failure_can_be_shown_and_no_other(cache, explanation):
    assert len(
        {draw_explained(cache, explanation, name, VIEW).tobytes() for name in explanation.failed}
    ) == len(explanation.failed)
    with pytest.raises(KeyError, match="does not fail 'DAC'; it fails NC, TTC"):
        draw_explained(cache, explanation, "DAC", VIEW)


def test_a_plan_that_loses_nothing_is_only_drawn():
    road = [(98, 20), (102, 20), (102, 150), (98, 150)]
    cache = metric_cache_from_arrays(
        ego=[100, 50, np.pi / 2, 8, 0, 0, 0],
        centerline=[(100, 20), (100, 150)],
        lanes=[road],
        reference=np.tile([100, 50, np.pi / 2], (51, 1)),
    )
    plan = np.zeros((1, 8, 3))
    plan[0, :, 0] = 4.0 * np.arange(1, 9)
    (fine,) = explain(cache, plan)
    assert str(fine) == "loses nothing"
    picture = draw_explained(cache, fine, view=VIEW)
    red = np.abs(picture.astype(int) - palette.FAILURES["NC"]).max(axis=-1) < 30
    assert not red.any()


def test_the_pictures_of_the_documentation_are_what_the_script_draws():
    spec = importlib.util.spec_from_file_location("draw_pdm_score", PICTURES / "draw_pdm_score.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    drawn = script.pictures()
    text = (PICTURES.parent / "pdm_score.md").read_text()
    for name, picture in drawn.items():
        path = PICTURES / f"pdm_score_{name}.png"
        assert f"(pictures/{path.name})" in text
        assert path.stat().st_size < 100_000
        kept = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        # Other releases of the drawing library may shade an edge differently.
        assert kept.shape == picture.shape
        assert (np.abs(kept.astype(int) - picture).max(axis=-1) > 40).mean() < 0.01, name
