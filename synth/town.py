"""Towns: what a town is made of, and the street network that SUMO builds for it.

``netgenerate`` draws a skeleton (grid, spider web or random), this module turns it into streets - bends,
main roads with two lanes, side streets with parking strips, one-way streets, cycle lanes, junctions with
lights, signs or no rule at all - and ``netconvert`` builds lanes, junctions, crossings and signal plans.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from beyonddrive.synth.curves import headings
from beyonddrive.synth.network import Network, read_network
from beyonddrive.synth.sumo import run_sumo_program
from beyonddrive.synth.town_styles import STYLES, TownStyle

PARKING_WIDTH = 2.3
"""Width of a parking strip beside the kerb [m]."""
BICYCLE_LANE_WIDTH = 1.8
"""Width of a cycle lane [m]."""
SIDEWALK_WIDTH = 2.4
"""Width of a sidewalk [m]."""
BEND_RADIUS = 18.0
"""Least radius where just two streets meet, which is a bend rather than a corner [m]."""
LATERAL_ACCELERATION = 2.4
"""Lateral acceleration that speed limits allow for in bends and turns [m/s2]: the expert's yaw rate stays
comfortable (PDMS_V1, section 10)."""

ATTEMPTS = 6
"""A town is drawn so often at most ..."""
MIN_LANE_LENGTH = 5500.0
"""... until this length of car lanes can be reached from everywhere [m]."""
NETCONVERT_OPTIONS = {
    "node-files": "town.nod.xml",
    "edge-files": "town.edg.xml",
    "output-file": "town.net.xml",
    "precision": "4",
    "no-turnarounds": "true",
    "sidewalks.guess": "true",
    "sidewalks.guess.max-speed": "30",
    "crossings.guess": "true",
    "default.crossing-width": "3.5",
    "junctions.corner-detail": "6",
    "junctions.internal-link-detail": "24",
    "junctions.limit-turn-speed": str(LATERAL_ACCELERATION),
    "tls.green.time": "17",
    "tls.yellow.time": "3",
    "tls.allred.time": "1",
    "default.junctions.keep-clear": "true",
    "offset.disable-normalization": "true",
}
"""Options of netconvert that all towns share."""


@dataclass(frozen=True)
class Street:
    """One street between two nodes of the skeleton; ``shape`` (N, 2) [m] runs from ``start`` to ``end``."""

    start: str
    end: str
    shape: NDArray[np.float64]
    main: bool
    one_way: bool
    parking: bool
    bicycle_lane: bool


def _read_skeleton(folder: Path) -> tuple[dict[str, NDArray[np.float64]], list[tuple[str, str]]]:
    """Return node positions and the undirected links of netgenerate's plain files, dead ends removed."""
    nodes = {
        node.attrib["id"]: np.array([float(node.attrib["x"]), float(node.attrib["y"])])
        for node in ElementTree.parse(folder / "skeleton.nod.xml").getroot().iter("node")
    }
    links = sorted(
        {
            tuple(sorted((edge.attrib["from"], edge.attrib["to"])))
            for edge in ElementTree.parse(folder / "skeleton.edg.xml").getroot().iter("edge")
        }
    )
    while True:
        degree = {name: sum(name in link for link in links) for name in nodes}
        kept = [link for link in links if degree[link[0]] > 1 and degree[link[1]] > 1]
        if len(kept) == len(links):
            break
        links = kept
    return {name: nodes[name] for name in sorted(nodes) if degree[name] > 0}, [(a, b) for a, b in links]


def _roads(nodes: dict[str, NDArray[np.float64]], links: list[tuple[str, str]]) -> list[list[int]]:
    """Group links into roads: at each node the two links that continue each other best stay together."""
    partner: dict[tuple[int, str], int] = {}
    for name, position in nodes.items():
        here = [i for i, link in enumerate(links) if name in link]
        pairs = []
        for a in here:
            for b in here:
                if a < b:
                    first, second = (
                        nodes[links[i][1] if links[i][0] == name else links[i][0]] - position for i in (a, b)
                    )
                    lengths = np.linalg.norm(first) * np.linalg.norm(second)
                    pairs.append((round(float(first @ second / lengths), 9), a, b))
        taken: set[int] = set()
        for cosine, a, b in sorted(pairs):
            if cosine < -0.82 and a not in taken and b not in taken:
                partner[a, name], partner[b, name] = b, a
                taken |= {a, b}
    roads: list[list[int]] = []
    seen: set[int] = set()
    for start in range(len(links)):
        if start in seen:
            continue
        road = [start]
        seen.add(start)
        for end in links[start]:
            link, node = start, end
            while (following := partner.get((link, node))) is not None and following not in seen:
                road.append(following)
                seen.add(following)
                node = links[following][1] if links[following][0] == node else links[following][0]
                link = following
        roads.append(sorted(road))
    return roads


def _curve(
    start: NDArray[np.float64], end: NDArray[np.float64], bend: float, spacing: float = 4.0
) -> NDArray[np.float64]:
    """Return points (N, 2) of a street that bends sideways by ``bend`` metres, straight if that is small."""
    along = end - start
    length = float(np.linalg.norm(along))
    if abs(bend) < 1.0:
        return np.stack([start, end])
    fraction = np.linspace(0.0, 1.0, max(int(length / spacing), 4) + 1)
    normal = np.array([-along[1], along[0]]) / length
    # A raised cosine leaves both nodes in the direction of the straight street, so corners keep their angles.
    sideways = bend * (1.0 - np.cos(2.0 * np.pi * fraction)) * 0.5
    return start + fraction[:, None] * along + sideways[:, None] * normal


def _curve_speed(shape: NDArray[np.float64]) -> float:
    """Speed at which the tightest bend of a street takes :data:`LATERAL_ACCELERATION` [m/s]."""
    if len(shape) < 3:
        return np.inf
    turn = np.abs(np.diff(np.unwrap(headings(shape))))
    tightest = float((turn / np.hypot(*np.diff(shape, axis=0).T)).max())
    return round(float(np.sqrt(LATERAL_ACCELERATION / max(tightest, 1e-6))), 1)


def plan_streets(
    nodes: dict[str, NDArray[np.float64]],
    links: list[tuple[str, str]],
    style: TownStyle,
    rng: np.random.Generator,
) -> list[Street]:
    """Decide for every link of a skeleton what street it becomes."""
    length = {i: float(np.linalg.norm(nodes[b] - nodes[a])) for i, (a, b) in enumerate(links)}
    roads = _roads(nodes, links)
    order = sorted(range(len(roads)), key=lambda r: (-sum(length[i] for i in roads[r]), r))
    total = sum(length.values())
    main: set[int] = set()
    for position in order:
        if sum(length[i] for i in main) < style.main_share * total:
            main |= set(roads[position])
    streets: list[Street | None] = [None] * len(links)
    for road in roads:
        is_main = road[0] in main
        parking = rng.random() < (0.25 if is_main else 0.65)
        bicycle_lane = is_main and not parking and rng.random() < 0.5
        for i in road:
            bend = style.bend * length[i] * rng.uniform(-1.0, 1.0) * (0.5 if is_main else 1.0)
            a, b = links[i]
            one_way = not is_main and rng.random() < style.one_way_share
            streets[i] = Street(
                a, b, _curve(nodes[a], nodes[b], bend), is_main, one_way, parking, bicycle_lane
            )
    return [street for street in streets if street is not None]


def _edge_xml(
    name: str, start: str, end: str, shape: NDArray[np.float64], street: Street, style: TownStyle
) -> str:
    lanes = []
    if street.parking:
        lanes.append(f'width="{PARKING_WIDTH}" disallow="all"')
    if street.bicycle_lane:
        lanes.append(f'width="{BICYCLE_LANE_WIDTH}" allow="bicycle"')
    lanes += [f'width="{style.lane_width}" disallow="pedestrian"'] * (2 if street.main else 1)
    speed = min(style.main_speed if street.main else style.side_speed, _curve_speed(shape))
    points = " ".join(f"{x:.3f},{y:.3f}" for x, y in shape)
    rows = "".join(f'<lane index="{i}" {lane}/>' for i, lane in enumerate(lanes))
    return (
        f'<edge id={quoteattr(name)} from={quoteattr(start)} to={quoteattr(end)} numLanes="{len(lanes)}" '
        f'speed="{speed}" priority="{3 if street.main else 1}" shape="{points}" '
        f'spreadType="{"center" if street.one_way else "right"}" sidewalkWidth="{SIDEWALK_WIDTH}">'
        f"{rows}</edge>"
    )


def _node_type(degree: int, main_roads: int, style: TownStyle, rng: np.random.Generator) -> str:
    if degree < 3:
        return "priority"
    if main_roads > 0:
        return "traffic_light" if rng.random() < style.signal_share else "priority"
    return str(rng.choice(["priority", "allway_stop", "right_before_left"], p=[0.4, 0.35, 0.25]))


def _node_rows(
    nodes: dict[str, NDArray[np.float64]], streets: list[Street], style: TownStyle, rng: np.random.Generator
) -> list[str]:
    rows = []
    for name, (x, y) in nodes.items():
        here = [street for street in streets if name in (street.start, street.end)]
        kind = _node_type(len(here), sum(street.main for street in here), style, rng)
        radius = style.corner_radius * rng.uniform(0.85, 1.3)
        if len(here) == 2:
            radius = max(radius, BEND_RADIUS)
        rows.append(
            f'<node id={quoteattr(name)} x="{x:.3f}" y="{y:.3f}" type="{kind}" radius="{radius:.2f}"/>'
        )
    return rows


def _edge_rows(streets: list[Street], style: TownStyle, rng: np.random.Generator) -> list[str]:
    rows = []
    for i, street in enumerate(streets):
        only = ("a", "b")[int(rng.integers(2))] if street.one_way else "ab"
        if "a" in only:
            rows.append(_edge_xml(f"e{i}a", street.start, street.end, street.shape, street, style))
        if "b" in only:
            rows.append(_edge_xml(f"e{i}b", street.end, street.start, street.shape[::-1], street, style))
    return rows


def build_network(location: str, seed: int, folder: Path, style: TownStyle | None = None) -> Network:
    """Build the street network of a town; SUMO's ``town.net.xml`` is then in ``folder``.

    A town in which little can be reached (a random skeleton with few streets, one-way streets that lead
    nowhere) is drawn again.

    Args:
        location: Location name, which chooses the style.
        seed: Everything about the town follows from it.
        folder: Working folder; intermediate files stay in it.
        style: Another style than that of the location.

    Raises:
        SumoError: If SUMO is missing or fails.
    """
    style = style or STYLES[location]
    for attempt in range(ATTEMPTS):
        _build_once(seed, attempt, folder, style)
        network = read_network(folder / "town.net.xml")
        if network.lane_length() > MIN_LANE_LENGTH:
            break
    return network


def _build_once(seed: int, attempt: int, folder: Path, style: TownStyle) -> None:
    rng = np.random.default_rng([seed, 1, attempt])
    plain = ["--plain-output-prefix", "skeleton", "-o", "skeleton.net.xml"]
    run_sumo_program("netgenerate", [*style.skeleton, "--seed", str(rng.integers(2**31)), *plain], folder)
    nodes, links = _read_skeleton(folder)
    nodes = {name: xy + rng.uniform(-1.0, 1.0, 2) * style.jitter for name, xy in nodes.items()}
    streets = plan_streets(nodes, links, style, rng)
    node_rows, edge_rows = _node_rows(nodes, streets, style, rng), _edge_rows(streets, style, rng)
    (folder / "town.nod.xml").write_text("<nodes>" + "\n".join(node_rows) + "</nodes>")
    (folder / "town.edg.xml").write_text("<edges>" + "\n".join(edge_rows) + "</edges>")
    options = {
        **NETCONVERT_OPTIONS,
        # Most lights let left turns give way to oncoming traffic; some towns have a phase for them.
        "tls.left-green.time": "0" if rng.random() < 0.7 else "6",
    }
    run_sumo_program("netconvert", [f"--{key}={value}" for key, value in options.items()], folder)
