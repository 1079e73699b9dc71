"""Colours of every picture: quiet ones for the world, loud ones for plans, one per way of failing.

All colours are RGB bytes. The failure colours stay apart for the common colour-vision deficiencies and on
white as well as on asphalt.
"""

from __future__ import annotations

Color = tuple[int, int, int]

GROUND: Color = (238, 240, 236)
ROAD: Color = (203, 208, 214)
INTERSECTION: Color = (196, 202, 209)
CAR_PARK: Color = (214, 217, 228)
WALKWAY: Color = (225, 222, 211)
CROSSWALK: Color = (250, 250, 250)
LANE_EDGE: Color = (246, 247, 248)
ROAD_EDGE: Color = (150, 158, 168)
ROUTE: Color = (190, 208, 232)
CENTERLINE: Color = (110, 150, 205)
BASELINE: Color = (182, 189, 197)

AGENTS: dict[str, Color] = {
    "vehicle": (122, 138, 160),
    "pedestrian": (70, 160, 150),
    "bicycle": (88, 128, 200),
    "traffic_cone": (240, 150, 70),
    "barrier": (164, 140, 116),
    "czone_sign": (222, 184, 92),
    "generic_object": (150, 150, 150),
    "ego": (122, 138, 160),
}
"""Fill of an object by its class (NAVSIM_FORMAT, section 2)."""

RED_LIGHT: Color = (226, 40, 48)
OTHER_LIGHT: Color = (70, 170, 90)

EGO: Color = (30, 36, 46)
EXPERT: Color = (24, 140, 84)
PREDICTION: Color = (24, 96, 222)
PASS: Color = (60, 160, 190)
DETECTION: Color = (200, 30, 200)
"""Outline of a box that a planner found."""

FAILURES: dict[str, Color] = {
    "NC": (214, 30, 52),
    "DAC": (240, 120, 0),
    "TTC": (232, 186, 0),
    "C": (134, 62, 196),
    "EP": (96, 106, 122),
    "DDC": (226, 70, 160),
}
"""Colour of a plan by the sub-score it fails."""
EXTENDED_FAILURES: dict[str, Color] = {
    **FAILURES,
    "TLC": (160, 20, 30),
    "LK": (20, 130, 120),
    "HC": FAILURES["C"],
}
"""The same with the sub-scores of NAVSIM v2."""

FAILURE_LABELS: dict[str, str] = {
    "NC": "collision",
    "DAC": "off-road",
    "TTC": "time to collision",
    "C": "comfort",
    "EP": "progress",
    "DDC": "direction",
    "TLC": "red light",
    "LK": "lane keeping",
    "HC": "comfort",
}
"""What a reader calls the failure of a sub-score."""

INK: Color = (34, 40, 49)
MUTED_INK: Color = (112, 120, 131)
PAPER: Color = (255, 255, 255)
RULE: Color = (222, 226, 231)
SHADE: Color = (243, 246, 250)


def mix(color: Color, other: Color, share: float) -> Color:
    """``color`` with ``share`` (0 to 1) of ``other`` mixed in.

    >>> mix((0, 0, 0), (200, 100, 50), 0.5)
    (100, 50, 25)
    """
    red, green, blue = (round(a * (1.0 - share) + b * share) for a, b in zip(color, other, strict=True))
    return red, green, blue
