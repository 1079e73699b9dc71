"""What a run was made with; which runs go on, and which are refused."""

import json

import pytest

from beyonddrive.synth.live import run_folder
from beyonddrive.synth.live.compare import Row, compare
from beyonddrive.synth.live.town import LiveError
from beyonddrive.tests.synth.live.conftest import TINY, made_up, write_made_up


def test_a_folder_of_another_run_is_refused(tmp_path):
    run_folder.claim(tmp_path / "run", {"config": "a", "seed": [0]})
    run_folder.claim(tmp_path / "run", {"config": "a", "seed": (0,)})
    (tmp_path / "run" / "seed_0").mkdir()
    with pytest.raises(LiveError, match="made with another config; take another --out"):
        run_folder.claim(tmp_path / "run", {"config": "b", "seed": [0]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(LiveError, match="is not empty and holds no closed-loop run"):
        run_folder.claim(tmp_path / "mine", {})


def test_runs_of_another_version_of_the_traffic_are_not_mixed(tmp_path):
    """A run of before does not say its version."""
    told = run_folder.settings_dict(TINY)
    before = {key: value for key, value in told.items() if key != "traffic_version"}
    assert told["traffic_version"] == 3 and len(before) == len(told) - 1
    said = (
        r"another version of the traffic \(1 and 3; since 2 closed lanes are .*; since 3 vehicles that stop"
    )
    for name, own in (("old", before), ("new", told)):
        write_made_up(tmp_path / name, [made_up("easy_0", 0, 0.5)], **own)
    with pytest.raises(LiveError, match=said):
        run_folder.claim(tmp_path / "old", {"config": "planner", "preset": "pr57", **told})
    with pytest.raises(LiveError, match=r"another version of the traffic \(3 and 1; since 2"):
        compare([Row(name, (tmp_path / name,)) for name in ("old", "new")])
    assert run_folder.claim(tmp_path / "old", {"config": "planner", "preset": "pr57", **before}) == []
    assert run_folder.claim(tmp_path / "new", {"config": "planner", "preset": "pr57", **told}) == []


def test_every_version_of_the_traffic_says_what_it_changed():
    """Those between two runs, whichever is the older, and no others; of a later release nothing is known."""
    assert list(run_folder.TRAFFIC_CHANGES) == list(range(2, run_folder.TRAFFIC_VERSION + 1))
    for there, wanted in ((2, 3), (3, 2)):
        (text,) = run_folder.differing_settings({"traffic_version": there}, {"traffic_version": wanted})
        assert (
            text == f"version of the traffic ({there} and {wanted}; since 3 {run_folder.TRAFFIC_CHANGES[3]})"
        )
    later = run_folder.TRAFFIC_VERSION + 1
    assert run_folder.traffic_changes(later, later - 1) == f"{later} and {later - 1}"
    assert run_folder.traffic_changes("3", None) == "'3' and None"


def test_a_run_that_has_driven_nothing_may_begin_otherwise(tmp_path):
    """As where the weights were forgotten."""
    run_folder.claim(tmp_path, {"checkpoint": None})
    assert run_folder.claim(tmp_path, {"checkpoint": "a"}) == []
    assert run_folder.read_settings(tmp_path) == {"checkpoint": "a"}
    (tmp_path / run_folder.SETTINGS).write_text("{")
    with pytest.raises(LiveError, match=r"settings\.json: cannot be read"):
        run_folder.claim(tmp_path, {"checkpoint": "a"})


def test_a_run_of_before_goes_on_and_what_it_does_not_tell_is_named(tmp_path):
    run_folder.claim(tmp_path, {"config": "a"})
    (tmp_path / "seed_0").mkdir()
    assert run_folder.claim(tmp_path, {"config": "a", "recipe": "r", "sumo": "1"}) == ["recipe", "sumo"]
    assert run_folder.read_settings(tmp_path) == {"config": "a"}
    (tmp_path / run_folder.SETTINGS).write_text(json.dumps({"config": "a", "recipe": "r"}))
    with pytest.raises(LiveError, match="made with another recipe"):
        run_folder.claim(tmp_path, {"config": "a", "recipe": "s", "sumo": "1"})


def test_other_towns_behind_the_same_scenarios_are_refused_by_name(tmp_path):
    """A town that was not there when the run began joins it; runs that do not tell their towns are named."""
    began = {"config": "planner", "preset": "pr57", "towns": {"a": "1", "b": "2"}}
    for name, towns in (("one", {"a": "1", "b": "2"}), ("other", {"a": "1", "b": "3"}), ("before", None)):
        own = {} if towns is None else {"towns": towns}
        write_made_up(tmp_path / name, [made_up("easy_0", 0, 0.5)], **own)
    with pytest.raises(LiveError, match=r"made with another town behind the same name \(b\); take another"):
        run_folder.claim(tmp_path / "other", began)
    with pytest.raises(LiveError, match=r"has another town behind the same name \(b\) than"):
        compare([Row(name, (tmp_path / name,)) for name in ("one", "other")])
    assert compare([Row(name, (tmp_path / name,)) for name in ("one", "before")])["baseline"] == "one"
    assert run_folder.claim(tmp_path / "before", began) == ["towns"]
    assert run_folder.claim(tmp_path / "one", {**began, "towns": {"a": "1", "c": "4"}}) == []
    told = run_folder.read_settings(tmp_path / "one")["towns"]
    assert told == {"a": "1", "b": "2", "c": "4"}
