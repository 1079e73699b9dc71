"""How many scenes are won and lost, and which are shown, follows from the scores that are kept."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.results import check
from beyonddrive.results.effect import won_and_lost
from beyonddrive.results.pictures import write_picture
from beyonddrive.structures.plan import SCORE_COLUMNS

CHANGES = {"a": 1.0, "b": 0.5, "c": 0.49, "d": 0.0, "e": -0.75, "f": 1.0, "g": 0.75}


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A project that keeps the scores of a few scenes, with the picture of them."""
    monkeypatch.setattr(won_and_lost, "KEPT", tmp_path / "won_and_lost")
    monkeypatch.setattr(won_and_lost, "TABLE", tmp_path / "won_and_lost.csv")
    monkeypatch.setattr(won_and_lost, "PICTURE", tmp_path / "won_and_lost.jpg")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "CELLS", (won_and_lost,))
    monkeypatch.setattr(check, "OF_SCENES", (won_and_lost,))
    monkeypatch.setattr(check, "DRAWINGS", ())
    keep(tmp_path, CHANGES)
    write_picture(won_and_lost.PICTURE, Figure((1, 1)), won_and_lost.current())
    return tmp_path


def keep(folder, changes):
    files = [folder / "without.csv", folder / "with.csv"]
    for path, sign in zip(files, (-1, 1), strict=True):
        scenes = [
            ScoredScene(token, "log", np.full(len(SCORE_COLUMNS), max(sign * change, 0.0)))
            for token, change in changes.items()
        ]
        path.write_text(scenes_to_csv(scenes, SCORE_COLUMNS))
        path.with_name(path.name + ".made_with.json").write_text(json.dumps({"file": path.name}))
    won_and_lost.keep(*files)


def test_numbers_and_scenes_are_those_of_the_scores(kept):
    assert won_and_lost.table().splitlines() == ["row,scenes,shown", "all,7,", "won,4,f a g", "lost,1,e"]
    assert won_and_lost.current() == {
        "won": {"f": (0.0, 100.0), "a": (0.0, 100.0), "g": (0.0, 75.0)},
        "lost": {"e": (75.0, 0.0)},
    }
    assert json.loads((kept / "won_and_lost" / "made_with.json").read_text())["LTF"] == {
        "file": "without.csv"
    }


def test_a_changed_number_or_token_is_found(kept):
    check.check_cells(write=True)
    assert not check.check_cells(write=False)
    text = won_and_lost.TABLE.read_text()
    for old, new in (("won,4", "won,5"), ("f a g", "f a b")):
        won_and_lost.TABLE.write_text(text.replace(old, new))
        assert check.check_cells(write=False) == ["won_and_lost.csv: is not what the scores give"]


def test_a_picture_of_other_scenes_or_scores_is_found(kept):
    assert not check.check_pictures(write=False)
    drawn = won_and_lost.PICTURE.read_bytes()
    for change in ({"a": 0.6}, {"g": 0.8}):
        keep(kept, CHANGES | change)
        assert len(check.check_pictures(write=True)) == 1
        assert won_and_lost.PICTURE.read_bytes() == drawn
    keep(kept, CHANGES)
    Figure((1, 1)).savefig(won_and_lost.PICTURE, format="jpg")
    assert len(check.check_pictures(write=False)) == 1
