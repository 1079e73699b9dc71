"""What a SUMO run recorded: raw tracks of vehicles and pedestrians, and the states of all signals."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.traffic import STEP, WARM_UP


@dataclass(frozen=True)
class RawTrack:
    """One vehicle or pedestrian on the steps of the recording; nothing is smoothed yet."""

    name: str
    kind: str
    """Name of the SUMO type."""
    first: int
    """Step of the first sample; the others follow without a gap."""
    position: NDArray[np.float64]
    """(N, 2) metres: middle of the front bumper, or the person."""
    speed: NDArray[np.float64]
    """(N,) metres per second along the lane, over the step that ends with the sample."""
    lane: list[str]
    """Lane of the front bumper."""

    @property
    def vehicle(self) -> str:
        """Name of the vehicle or person in the route file."""
        return self.name.split("~")[0]


def _step(time: str) -> int:
    return round((float(time) - WARM_UP) / STEP)


def read_tracks(path: Path) -> list[RawTrack]:
    """Read ``vehicles.csv`` or ``persons.csv``, sorted by name.

    A track that vanishes and returns (a vehicle that SUMO moved on) becomes several tracks.
    """
    samples: dict[str, list[tuple[int, float, float, float, str, str]]] = defaultdict(list)
    with path.open(encoding="utf-8") as file:
        head = file.readline().rstrip("\n").split(";")
        names = [column.split("_", 1)[1] for column in head]
        columns = ("time", "id", "x", "y", "speed", "type", "lane")
        t, n, x, y, v, k, lane = (names.index(column) for column in columns)
        for line in file:
            cells = line.rstrip("\n").split(";")
            samples[cells[n]].append(
                (
                    _step(cells[t]),
                    float(cells[x]),
                    float(cells[y]),
                    float(cells[v]),
                    cells[k],
                    cells[lane],
                )
            )
    tracks = []
    for name in sorted(samples):
        rows = samples[name]
        cuts = [0, *(i for i in range(1, len(rows)) if rows[i][0] != rows[i - 1][0] + 1), len(rows)]
        for part, (begin, end) in enumerate(pairwise(cuts)):
            piece = rows[begin:end]
            tracks.append(
                RawTrack(
                    name if part == 0 else f"{name}~{part}",
                    piece[0][4],
                    piece[0][0],
                    np.array([row[1:3] for row in piece], dtype=np.float64),
                    np.array([row[3] for row in piece], dtype=np.float64),
                    [row[5] for row in piece],
                )
            )
    return tracks


class Signals:
    """States of all signals at every step of the recording."""

    def __init__(self, path: Path) -> None:
        """Read ``signals.xml``."""
        states: dict[str, dict[int, str]] = defaultdict(dict)
        if path.exists():
            for _, element in ElementTree.iterparse(path):
                if element.tag == "tlsState":
                    states[element.attrib["id"]][_step(element.attrib["time"])] = element.attrib["state"]
                element.clear()
        self._states = dict(states)

    def is_red(self, signal: tuple[str, int], step: int) -> bool:
        """Whether a link of a signal shows red (also red with yellow) at a step."""
        return self._states[signal[0]][step][signal[1]] in "ru"
