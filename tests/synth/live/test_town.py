"""Towns: the traffic of a run knows the closed lanes that are painted."""

import shutil
import sqlite3
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from beyonddrive.synth.live.town import BUILT_FOR, MAP, NETWORK, STATIC, _closed
from beyonddrive.synth.live.town_digest import town_digest
from beyonddrive.synth.roadside import closed_stretches
from beyonddrive.synth.traffic import TrafficPlan, write_demand


def marks_of(things):
    """Centres of the signs and barriers at both ends of closed stretches, by name."""
    return {
        thing.name: pytest.approx(thing.center)
        for thing in things
        if thing.name.startswith("closed") and thing.name.endswith(("_end", "_sign"))
    }


@pytest.mark.parametrize(
    "plan",
    [BUILT_FOR, TrafficPlan(126.0), TrafficPlan(138.0, 3.0, 4.0), TrafficPlan(126.0, stopping_share=0.0)],
)
def test_lanes_are_closed_where_their_cones_stand_whatever_the_plan(live_town, tmp_path, plan):
    live_town.write_traffic(plan, tmp_path)
    stretches = _closed(tmp_path / "town.rou.xml", live_town.network)
    painted = list(closed_stretches(live_town.network, *stretches, np.random.default_rng(0)))
    assert len(marks_of(painted)) >= 4
    assert {thing.name: thing.center for thing in painted if thing.name in marks_of(painted)} == marks_of(
        live_town.static
    )
    text = (tmp_path / "town.rou.xml").read_text()
    stopping = {part.split('"')[0] for part in text.split('id="stopping_')[1:]}
    assert bool(stopping) == bool(plan.stopping_share)
    assert not stopping & {closure.road for closure in live_town.closures}


def test_who_stops_has_come_before_the_ego(live_town, tmp_path):
    live_town.write_traffic(TrafficPlan(126.0), tmp_path, come_by=20.0)
    text = (tmp_path / "town.rou.xml").read_text()
    came = [float(line.split('"')[1]) for line in text.splitlines() if 'id="stopping_' in line]
    assert len(came) >= 2 and 0.0 <= min(came) < max(came) <= 20.0


def test_another_seed_is_other_traffic_on_the_same_roads(live_town, tmp_path):
    found = []
    for seed in (0, 1, 1, 2):
        folder = tmp_path / str(len(found))
        folder.mkdir()
        live_town.write_traffic(TrafficPlan(126.0), folder, seed)
        found.append((folder / "town.rou.xml").read_text())
    assert found[1] == found[2] and len(set(found)) == 3
    closed = [[line for line in text.splitlines() if 'id="closed' in line] for text in found]
    assert closed[0] and closed[0] == closed[1] == closed[3]


def test_the_way_onward_leads_from_road_to_road(live_town):
    network = live_town.network
    road = min(network.strongly_connected())
    onward = network.onward(road, 6)
    assert len(onward) == 6
    for one, following in pairwise([road, *onward]):
        directions = {network.links[one, to][0].direction for to in network.successors(one)}
        assert network.links[one, following][0].direction == "s" or "s" not in directions


def test_a_plan_draws_its_own_closed_lanes_unless_it_is_given_some(live_town, tmp_path):
    """With those of the town's own plan the files are the same to the byte."""
    (tmp_path / "town.net.xml").symlink_to(live_town.folder / "town.net.xml")

    def routes(plan, **closures):
        rng = np.random.default_rng([live_town.seed, 4])
        write_demand(live_town.network, plan, rng, tmp_path, **closures)
        return (tmp_path / "town.rou.xml").read_bytes()

    assert routes(BUILT_FOR) == routes(BUILT_FOR, closures=live_town.closures)
    longer = replace(BUILT_FOR, duration=126.0)
    assert routes(longer) != routes(longer, closures=live_town.closures)


def test_a_town_is_told_by_what_it_holds(live_town, tmp_path):
    """And not by when its files were written; one that is not there as a whole is not told."""
    folder = tmp_path / "town"
    shutil.copytree(live_town.folder, folder)
    told = town_digest(live_town.folder)
    network = folder / NETWORK
    text = network.read_text()
    assert "<!-- generated on " in text
    network.write_text(text.replace("<!-- generated on 2", "<!-- generated on 3"))
    with sqlite3.connect(folder / MAP) as connection:
        connection.execute("PRAGMA user_version = 7")
        connection.execute("VACUUM")
    assert told and town_digest(folder) == told
    network.write_text(text.replace('speed="', 'speed="1', 1))
    assert town_digest(folder) != told
    network.write_text(text)
    with sqlite3.connect(folder / MAP) as connection:
        connection.execute("DELETE FROM crosswalks WHERE fid = (SELECT MIN(fid) FROM crosswalks)")
    assert town_digest(folder) != told
    shutil.copyfile(live_town.folder / MAP, folder / MAP)
    assert town_digest(folder) == told
    (folder / STATIC).write_text("[]")
    assert town_digest(folder) != told
    (folder / MAP).write_bytes(b"half")
    assert town_digest(folder) is None and town_digest(tmp_path / "nowhere") is None
