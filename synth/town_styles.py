"""How the towns of each location look."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TownStyle:
    """How the towns of one location look; lengths in metres, speeds in m/s, shares in [0, 1]."""

    skeleton: tuple[str, ...]
    """Options of netgenerate."""
    jitter: float
    """Largest displacement of a junction along each axis."""
    bend: float
    """Largest sideways bend of a street, as a share of its length."""
    main_share: float
    """Share of street length that belongs to main roads (two lanes per direction)."""
    one_way_share: float
    """Share of side streets that are one-way."""
    signal_share: float
    """Share of junctions on main roads that have traffic lights."""
    main_speed: float
    side_speed: float
    lane_width: float
    corner_radius: float


STYLES: dict[str, TownStyle] = {
    "us-nv-las-vegas-strip": TownStyle(
        skeleton=("--grid", "--grid.x-number", "5", "--grid.y-number", "4", "--grid.length", "115"),
        jitter=8.0,
        bend=0.04,
        main_share=0.55,
        one_way_share=0.15,
        signal_share=0.85,
        main_speed=13.0,
        side_speed=10.0,
        lane_width=3.7,
        corner_radius=9.0,
    ),
    "us-ma-boston": TownStyle(
        skeleton=(
            "--rand",
            "--rand.iterations=42",
            "--rand.min-distance=85",
            "--rand.max-distance=150",
            "--rand.min-angle=55",
            "--rand.connectivity=0.95",
            "--rand.neighbor-dist3=15",
            "--rand.neighbor-dist4=10",
        ),
        jitter=0.0,
        bend=0.12,
        main_share=0.35,
        one_way_share=0.15,
        signal_share=0.6,
        main_speed=11.5,
        side_speed=8.5,
        lane_width=3.5,
        corner_radius=7.0,
    ),
    "us-pa-pittsburgh-hazelwood": TownStyle(
        skeleton=(
            "--spider",
            "--spider.arm-number=6",
            "--spider.circle-number=3",
            "--spider.space-radius=95",
            "--spider.omit-center",
        ),
        jitter=10.0,
        bend=0.1,
        main_share=0.4,
        one_way_share=0.15,
        signal_share=0.65,
        main_speed=12.0,
        side_speed=9.0,
        lane_width=3.6,
        corner_radius=8.0,
    ),
    "sg-one-north": TownStyle(
        skeleton=("--grid", "--grid.x-number", "5", "--grid.y-number", "5", "--grid.length", "95"),
        jitter=16.0,
        bend=0.1,
        main_share=0.45,
        one_way_share=0.2,
        signal_share=0.6,
        main_speed=12.5,
        side_speed=9.0,
        lane_width=3.5,
        corner_radius=8.0,
    ),
}
"""Style of the towns of every location. All towns drive on the right."""
