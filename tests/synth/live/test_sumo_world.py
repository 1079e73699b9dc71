"""What SUMO is told of the ego and of guests."""

from types import SimpleNamespace

import numpy as np
import pytest

from beyonddrive.synth.live.sumo_world import EGO, SumoWorld


class Vehicles:
    """SUMO's vehicles by name with their lanes, and what was done to them."""

    def __init__(self):
        self.lanes, self.added, self.done = {}, set(), []

    def getIDList(self):  # noqa: N802
        return list(self.lanes)

    def getLaneID(self, name):  # noqa: N802
        return self.lanes[name]

    def remove(self, name):
        del self.lanes[name]
        self.done.append(f"remove {name}")

    def add(self, name, *args, **kwargs):
        assert name not in self.lanes and name not in self.added
        self.added.add(name)
        self.done.append(f"add {name}")

    def setSpeedMode(self, name, mode):  # noqa: N802
        if name not in self.lanes and name not in self.added:
            raise RuntimeError("unknown")

    def moveToXY(self, name, *args):  # noqa: N802
        self.done.append(f"move {name}")

    def __getattr__(self, name):
        return lambda *args: None


@pytest.mark.parametrize(
    ("lane", "done"),
    [
        ("e1_0", ["move {}"]),
        ("", ["remove {}", "add {}", "move {}"]),  # it left the roads: SUMO may crash on moving it further
        (None, ["add {}", "move {}"]),  # SUMO took it away
    ],
)
@pytest.mark.parametrize("name", [EGO, "guest"])
def test_who_is_on_no_lane_enters_anew(lane, done, name):
    vehicles = Vehicles()
    world = SumoWorld(None, SimpleNamespace(vehicle=vehicles, route=Vehicles(), TraCIException=RuntimeError))
    if name == EGO:
        vehicles.lanes = {} if lane is None else {EGO: lane}
        world.hold_ego(np.zeros(3), 5.0)
    else:
        world.add_guest(name, "sedan", np.array([4.0, 2.0, 1.5]), ["e1"])
        vehicles.added.clear()
        vehicles.done.clear()
        vehicles.lanes = {} if lane is None else {name: lane}
        world.hold_guest(name, np.zeros(3), 4.0, 5.0)
    assert vehicles.done == [step.format(name) for step in done]
