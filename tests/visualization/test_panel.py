"""The page of a scene, and pictures on disk."""

import cv2
import numpy as np

from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import text_width
from beyonddrive.visualization.panel import Bundle, PanelRow, draw_panel, save_png, shorten, wrap_text

BEV = np.full((400, 400, 3), (10, 200, 30), dtype=np.uint8)
CAMERA = np.full((200, 480, 3), (200, 10, 30), dtype=np.uint8)


def page(make_verdict, **changes):
    rows = [
        PanelRow("human", palette.EXPERT, make_verdict()),
        PanelRow("planner", palette.PREDICTION, make_verdict(NC=0.0, PDMS=0.0, moments={"NC": 1.5})),
    ]
    bundle = Bundle("proposals", [make_verdict(NC=0.0)] * 3 + [make_verdict()])
    options = {"bev": BEV, "camera": CAMERA, "title": "planner", "rows": rows, "bundle": bundle, **changes}
    return draw_panel(**options)


def test_views_stand_side_by_side_unchanged(make_verdict):
    picture = page(make_verdict)
    assert picture.shape == (504, 940, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture[84:484, 20:420], BEV)
    assert np.array_equal(picture[84:284, 440:920], CAMERA)
    assert np.array_equal(picture, page(make_verdict))


def test_without_a_camera_its_place_is_left_out(make_verdict):
    assert page(make_verdict, camera=None).shape == (504, 1020, 3)


def test_failed_cells_are_tinted_and_the_bar_shows_the_shares(make_verdict):
    red = np.array(palette.FAILURES["NC"])
    picture = page(make_verdict).astype(int)
    # One row per failure: 3 of 4 proposals, so the red part of the bar is three times the other.
    bar = [(np.abs(row - red).max(axis=-1) < 10).sum() for row in picture[300:]]
    passes = [(np.abs(row - palette.PASS).max(axis=-1) < 10).sum() for row in picture[300:]]
    assert 350 <= max(bar) <= 360 and 110 <= max(passes) <= 120
    table = picture[304:400, 440:]
    tint = np.array(palette.mix(palette.SHADE, palette.FAILURES["NC"], 0.2))
    assert (np.abs(table - tint).max(axis=-1) < 4).sum() > 200
    fine = page(make_verdict, rows=[PanelRow("human", palette.EXPERT, make_verdict())], bundle=None).astype(
        int
    )
    assert (np.abs(fine[304:400, 440:] - tint).max(axis=-1) < 4).sum() == 0


def test_long_labels_are_cut():
    assert shorten("a" * 200, 100.0, 14).endswith("…")
    assert shorten("planner", 100.0, 14) == "planner"


def test_long_reasons_run_over_several_lines():
    words = "hits a vehicle at 2.3 s, gets too close to a pedestrian at 1.4 s, drives uncomfortably"
    lines = wrap_text(words, 240.0, 14, first=120.0)
    assert len(lines) > 2 and " ".join(lines) == words
    assert max(text_width(line, 14) for line in lines) <= 240.0 and text_width(lines[0], 14) <= 120.0


def test_a_saved_picture_is_whole_and_the_right_way_round(tmp_path):
    path = tmp_path / "deep" / "picture.png"
    save_png(path, CAMERA)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], CAMERA)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
