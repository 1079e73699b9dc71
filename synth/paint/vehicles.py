"""Cars, vans, trucks and buses as polygon soups in their own frame."""

from __future__ import annotations

from beyonddrive.structures.digests import number_of
from beyonddrive.synth.paint.light import Color
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, SoupBuilder
from beyonddrive.synth.paint.shapes import Faces, add_faces, add_parts, add_wheels, prism, tinted

_PAINTS: tuple[Color, ...] = (
    (214, 216, 219), (238, 239, 240), (44, 46, 50), (92, 96, 102), (146, 150, 155), (152, 30, 34),
    (32, 66, 128), (56, 92, 138), (36, 84, 62), (188, 160, 112), (198, 88, 30), (206, 178, 40),
    (118, 28, 60), (70, 122, 130),
)  # fmt: skip
"""Body colours; the greys are twice as frequent as the rest."""
_FREQUENT = 6
_CARGO: tuple[Color, ...] = ((226, 228, 230), (206, 196, 176), (60, 88, 138), (170, 44, 40), (84, 120, 86))
_BUS: tuple[Color, ...] = ((222, 224, 226), (196, 48, 40), (40, 92, 150), (232, 180, 42))
_GLASS: Color = (46, 57, 68)
_WINDSCREEN: Color = (92, 112, 130)
_DARK: Color = (34, 35, 38)
_HEADLAMP: Color = (252, 250, 232)
_TAIL: Color = (148, 22, 20)
_BRAKE: Color = (255, 44, 34)
_PLATE: Color = (236, 236, 224)


def _lamps(builder: SoupBuilder, body: Faces, braking: bool, low: float, high: float) -> None:
    """Headlamps, tail lamps and plates on the front and rear of a body; heights as shares."""
    add_parts(builder, body["front"], _DARK, (0.3, 0.7, low - 0.05, low + 0.2))
    add_parts(builder, body["front"], _HEADLAMP, (0.04, 0.24, low, high), (0.76, 0.96, low, high), glow=True)
    add_parts(builder, body["rear"], _PLATE, (0.38, 0.62, low - 0.08, low + 0.14))
    color = _BRAKE if braking else _TAIL
    grow = 0.06 if braking else 0.0
    areas = ((0.02, 0.22 + grow, low - grow, high + grow), (0.78 - grow, 0.98, low - grow, high + grow))
    add_parts(builder, body["rear"], color, *areas, glow=braking)


def _car(l: float, w: float, h: float, paint: Color, style: int, braking: bool) -> PolygonSoup:  # noqa: E741
    """A passenger car; ``style`` 0 saloon, 1 hatchback, 2 off-roader, 3 van."""
    half, belt = w / 2, h * (0.56, 0.56, 0.55, 0.5)[style]
    base_x = ((-0.44, 0.2), (-0.485, 0.2), (-0.49, 0.2), (-0.495, 0.36))[style]
    roof_x = ((-0.28, 0.03), (-0.42, 0.04), (-0.45, 0.07), (-0.485, 0.24))[style]
    builder = SoupBuilder()
    body = prism(
        (-l / 2, l / 2), (-half, half), (0.17 * h, belt), (-0.485 * l, 0.475 * l), (-0.96 * half, 0.96 * half)
    )
    add_faces(builder, body, paint)
    for side in ("left", "right"):
        add_parts(builder, body[side], _DARK, (0.0, 1.0, 0.0, 0.12))
        add_parts(builder, body[side], tinted(paint, 0.8), (0.0, 1.0, 0.12, 0.42))
    for end in ("front", "rear"):
        add_parts(builder, body[end], _DARK, (0.0, 1.0, 0.0, 0.22))
    _lamps(builder, body, braking, 0.5, 0.8)
    add_wheels(builder, (0.305 * l, -0.3 * l), half, min(0.35, 0.22 * h))
    cabin = prism(
        (base_x[0] * l, base_x[1] * l),
        (-0.94 * half, 0.94 * half),
        (belt, h),
        (roof_x[0] * l, roof_x[1] * l),
        (-0.76 * half, 0.76 * half),
    )
    add_faces(builder, cabin, paint)
    add_parts(builder, cabin["front"], _WINDSCREEN, (0.06, 0.94, 0.05, 0.9))
    if style != 3 or number_of("panel van", paint) % 2:
        add_parts(builder, cabin["rear"], _GLASS, (0.1, 0.9, 0.12, 0.88))
        panes = [(0.08, 0.46), (0.52, 0.93)]
    else:
        panes = [(0.08, 0.34)]
    for side in ("left", "right"):
        for u0, u1 in panes:
            left_to_right = (u0, u1) if side == "left" else (1.0 - u1, 1.0 - u0)
            add_parts(builder, cabin[side], _GLASS, (*left_to_right, 0.1, 0.86))
    if braking:
        add_parts(builder, cabin["rear"], _BRAKE, (0.36, 0.64, 0.88, 0.99), glow=True)
    builder.close_solid([(-l / 2, -half), (l / 2, -half), (l / 2, half), (-l / 2, half)])
    return builder.build()


def _truck(l: float, w: float, h: float, paint: Color, cargo: Color, braking: bool) -> PolygonSoup:  # noqa: E741
    """A lorry: a cab and a load box, two solids, so that either may hide the other."""
    half = w / 2
    cab_length = min(2.3, 0.3 * l)
    split = l / 2 - cab_length
    builder = SoupBuilder()
    load = prism((-l / 2, split - 0.2), (-half, half), (0.28 * h, h))
    chassis = prism((-l / 2, split - 0.2), (-0.9 * half, 0.9 * half), (0.14 * h, 0.28 * h))
    add_faces(builder, chassis, _DARK)
    add_wheels(builder, tuple(x for x in (-l / 2 + 1.1, -l / 2 + 2.3) if x < split - 0.6), 0.95 * half, 0.48)
    add_faces(builder, load, cargo)
    add_parts(builder, load["rear"], tinted(cargo, 0.7), (0.485, 0.515, 0.02, 0.98), (0.0, 1.0, 0.0, 0.05))
    for side in ("left", "right"):
        add_parts(builder, load[side], tinted(cargo, 0.82), (0.0, 1.0, 0.0, 0.06))
    low = chassis["rear"]
    add_parts(
        builder,
        low,
        _BRAKE if braking else _TAIL,
        (0.02, 0.2, 0.35, 0.95),
        (0.8, 0.98, 0.35, 0.95),
        glow=braking,
    )
    builder.close_solid([(-l / 2, -half), (split - 0.2, -half), (split - 0.2, half), (-l / 2, half)])
    top = min(h, 2.9)
    cab = prism(
        (split, l / 2), (-half, half), (0.14 * h, top), (split, l / 2 - 0.18), (-0.95 * half, 0.95 * half)
    )
    add_faces(builder, cab, paint)
    add_parts(builder, cab["front"], _WINDSCREEN, (0.06, 0.94, 0.52, 0.9))
    add_parts(builder, cab["front"], _DARK, (0.2, 0.8, 0.14, 0.44))
    add_parts(builder, cab["front"], _HEADLAMP, (0.03, 0.17, 0.1, 0.24), (0.83, 0.97, 0.1, 0.24), glow=True)
    add_parts(builder, cab["left"], _GLASS, (0.12, 0.6, 0.52, 0.86))
    add_parts(builder, cab["right"], _GLASS, (0.4, 0.88, 0.52, 0.86))
    add_wheels(builder, (l / 2 - 0.55 * cab_length,), half, 0.48)
    builder.close_solid([(split, -half), (l / 2, -half), (l / 2, half), (split, half)])
    return builder.build()


def _bus(l: float, w: float, h: float, paint: Color, braking: bool) -> PolygonSoup:  # noqa: E741
    half = w / 2
    builder = SoupBuilder()
    body = prism((-l / 2, l / 2), (-half, half), (0.12 * h, h))
    add_faces(builder, body, paint)
    count = max(int(l / 1.7), 3)
    for side in ("left", "right"):
        add_parts(builder, body[side], _DARK, (0.0, 1.0, 0.0, 0.05))
        panes = [(i / count + 0.006, (i + 1) / count - 0.006, 0.44, 0.86) for i in range(count)]
        add_parts(builder, body[side], _GLASS, *panes)
    add_parts(builder, body["front"], _WINDSCREEN, (0.04, 0.96, 0.34, 0.84))
    add_parts(builder, body["front"], (20, 20, 20), (0.1, 0.9, 0.87, 0.97))
    add_parts(builder, body["front"], (250, 170, 40), (0.25, 0.7, 0.89, 0.95), glow=True)
    add_parts(builder, body["front"], _HEADLAMP, (0.04, 0.2, 0.1, 0.19), (0.8, 0.96, 0.1, 0.19), glow=True)
    add_parts(builder, body["rear"], _GLASS, (0.12, 0.88, 0.55, 0.84))
    add_parts(builder, body["rear"], _DARK, (0.1, 0.9, 0.06, 0.4))
    tail = _BRAKE if braking else _TAIL
    add_parts(builder, body["rear"], tail, (0.02, 0.09, 0.1, 0.36), (0.91, 0.98, 0.1, 0.36), glow=braking)
    add_wheels(builder, (l / 2 - 2.4, -l / 2 + 2.9), half, 0.48)
    builder.close_solid([(-l / 2, -half), (l / 2, -half), (l / 2, half), (-l / 2, half)])
    return builder.build()


def vehicle_soup(token: str, length: float, width: float, height: float, braking: bool) -> PolygonSoup:
    """A vehicle that fills its box: base centre at the origin, x forward, z up, metres.

    Args:
        token: Track token; body and colour follow from it.
        length: Length of the box [m], like ``width`` and ``height``.
        width: Width of the box.
        height: Height of the box.
        braking: Whether the brake lamps shine.
    """
    number = number_of("vehicle", token)
    index = number % (len(_PAINTS) + _FREQUENT)
    paint = _PAINTS[index % len(_PAINTS)]
    choice = number >> 8
    if length >= 8.5 and choice % 3 == 0:
        return _bus(length, width, height, _BUS[(choice >> 4) % len(_BUS)], braking)
    if length >= 6.3 and height >= 2.2:
        return _truck(length, width, height, paint, _CARGO[(choice >> 4) % len(_CARGO)], braking)
    if height >= 1.95:
        style = 3
    elif height >= 1.68:
        style = 2
    else:
        style = choice % 3
    return _car(length, width, height, paint, style, braking)
