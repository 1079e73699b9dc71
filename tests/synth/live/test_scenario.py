"""Scenario files: what is in them, and what is refused."""

import copy

import pytest
import yaml

from beyonddrive.evaluation.closed_loop.hugsim.benchmark import read_scenarios
from beyonddrive.synth.live.scenario import read_live_scenario, scenario_of
from beyonddrive.synth.live.town import LiveError, open_live_town


def test_a_file_comes_back_as_it_was_and_is_one_of_hugsim(live_folder, scenarios):
    files = {path: read_live_scenario(path) for path in live_folder.rglob("*.yaml")}
    assert {scenario.hugsim.mode for scenario in files.values()} == set(scenarios)
    for scenario in files.values():
        assert scenario.to_dict() == scenarios[scenario.hugsim.mode].to_dict()
    listed = read_scenarios(live_folder)
    assert {item.name for item in listed} == {scenario.name for scenario in files.values()}
    assert {item.difficulty for item in listed} == {"easy", "medium", "hard", "extreme"}


def test_every_difficulty_has_what_makes_it_hard(scenarios):
    assert scenarios["easy_00"].vehicles_per_km == 0 and not scenarios["easy_00"].events
    assert [event.kind for event in scenarios["easy_01"].events] == ["lead"]
    assert scenarios["medium_00"].vehicles_per_km > 10
    kinds = {scenarios[f"hard_0{i}"].events[0].kind for i in range(3)}
    assert kinds == {"late_turn", "jaywalk", "cut_in"}
    assert [agent.planner for agent in scenarios["extreme_00"].hugsim.agents] == ["AttackPlanner"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(weather="rain"), "does not know the key 'weather'"),
        (lambda c: c.pop("lanes"), "lacks the key 'lanes'"),
        (lambda c: c.update(scene_name="../elsewhere"), "scene_name: expected letters"),
        (lambda c: c.update(town="a/b"), "town: expected letters"),
        (
            lambda c: c["plan_list"].append([0, 9, 0, 0, 1, "suv", "ConstantPlanner", "x"]),
            "arguments: expected",
        ),
        (lambda c: c.pop("start_velo"), "lacks the key 'start_velo'"),
        (lambda c: c.update(seed=-1), "seed: expected a whole number"),
        (lambda c: c.update(length="far"), "length: expected a number"),
        (lambda c: c.update(length=0), "length: expected a number from 1 on, got 0"),
        (lambda c: c.update(lanes=[3]), "lanes: expected a list"),
        (lambda c: c["events"][0].update(car="tank"), r"events\[0\]: no car 'tank'"),
        (lambda c: c["events"][0].update(car=["tank"]), r"events\[0\]: no car \['tank'\]"),
        (lambda c: c["events"][0].update(mood="bad"), r"events\[0\]: does not know the key 'mood'"),
        (
            lambda c: c["events"][0].update(car="pedestrian", then="join"),
            r"events\[0\]: then: a pedestrian cannot join",
        ),
        (lambda c: c["events"][0].update(path=[[0, 1]]), r"events\[0\]: path: expected two or more points"),
        (lambda c: c["plan_list"].append([0, 9, 0, 0, 1, "suv", "IDM", {}]), "IDM does not drive here"),
        (lambda c: c["plan_list"].append([0, 9, 0, 0, 1, "suv", "Fly", {}]), "no planner 'Fly'"),
    ],
)
def test_what_makes_no_sense_is_refused(scenarios, change, message):
    content = copy.deepcopy(scenarios["hard_00"].to_dict())
    change(content)
    with pytest.raises(LiveError, match=message):
        scenario_of(content, "file")


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "x.yaml"
    with pytest.raises(LiveError, match=r"x\.yaml: cannot be read"):
        read_live_scenario(path)
    path.write_text(yaml.safe_dump([1]))
    with pytest.raises(LiveError, match=r"x\.yaml: holds no keys"):
        read_live_scenario(path)


def test_an_unknown_town_names_those_that_are_there(live_folder, live_town):
    with pytest.raises(LiveError, match=f"no such town; there are {live_town.name}"):
        open_live_town(live_folder / "towns" / "elsewhere")
