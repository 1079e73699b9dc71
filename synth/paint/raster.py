"""Painting polygons: clip, project and blend by exact pixel coverage, in one compiled loop."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from beyonddrive.engine.jit import kernel

NEAR = 0.15
"""Nothing nearer to the camera than this is painted [m]."""
_DISC_CORNERS = 14


@kernel
def _clip(points, count, axis, limit, sign, out):  # type: ignore[no-untyped-def]
    """Keep the part of a camera-frame ring with sign * (p[axis] - limit * z) >= 0; limit alone for axis 2."""
    kept = 0
    last = points[count - 1]
    last_side = last[2] - limit if axis == 2 else sign * (last[axis] - limit * last[2])
    for i in range(count):
        here = points[i]
        side = here[2] - limit if axis == 2 else sign * (here[axis] - limit * here[2])
        if (side >= 0.0) != (last_side >= 0.0):
            share = last_side / (last_side - side)
            for k in range(3):
                out[kept, k] = last[k] + share * (here[k] - last[k])
            kept += 1
        if side >= 0.0:
            for k in range(3):
                out[kept, k] = here[k]
            kept += 1
        last = here
        last_side = side
    return kept


@kernel
def _add_edge(cover, first, final, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """Add to ``cover`` the signed area right of an edge, cell by cell; a running sum along x gives coverage.

    An edge that crosses a cell with height h at a mean x-fraction m fills 1 - m of the rest of its own cell
    and all of the cells to its right, hence h (1 - m) here and h m one cell further.
    """
    if y0 == y1:
        return
    sign = 1.0
    if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
        sign = -1.0
    width = cover.shape[1] - 2
    slope = (x1 - x0) / (y1 - y0)
    for row in range(int(y0), min(math.ceil(y1), cover.shape[0])):
        top, bottom = max(y0, float(row)), min(y1, row + 1.0)
        height = bottom - top
        if height <= 0.0:
            continue
        a = min(max(x0 + slope * (top - y0), 0.0), float(width))
        b = min(max(x0 + slope * (bottom - y0), 0.0), float(width))
        left, right = min(a, b), max(a, b)
        cell = int(left)
        last = int(right)
        first[row] = min(first[row], cell)
        final[row] = max(final[row], last + 1)
        if last == cell:
            amount = sign * height
            mean = 0.5 * (left + right) - cell
            cover[row, cell] += amount * (1.0 - mean)
            cover[row, cell + 1] += amount * mean
            continue
        per_x = sign * height / (right - left)
        start = left
        while cell <= last:
            end = min(right, cell + 1.0)
            amount = per_x * (end - start)
            mean = 0.5 * (start + end) - cell
            cover[row, cell] += amount * (1.0 - mean)
            cover[row, cell + 1] += amount * mean
            start = end
            cell += 1


@kernel
def _blend(image, cover, first, final, row0, row1, red, green, blue, alpha, boost):  # type: ignore[no-untyped-def]
    """Blend a colour over the rows by the collected coverage, and clear the collection."""
    width = image.shape[1]
    r8, g8, b8 = np.uint8(red + 0.5), np.uint8(green + 0.5), np.uint8(blue + 0.5)
    for row in range(row0, row1):
        total = 0.0
        for column in range(first[row], min(final[row] + 1, width + 2)):
            total += cover[row, column]
            cover[row, column] = 0.0
            if column >= width:
                continue
            share = min(abs(total) * boost, 1.0) * alpha
            if share > 0.996:
                image[row, column, 0] = r8
                image[row, column, 1] = g8
                image[row, column, 2] = b8
            elif share > 0.004:
                pixel = image[row, column]
                pixel[0] = np.uint8(pixel[0] + share * (red - pixel[0]) + 0.5)
                pixel[1] = np.uint8(pixel[1] + share * (green - pixel[1]) + 0.5)
                pixel[2] = np.uint8(pixel[2] + share * (blue - pixel[2]) + 0.5)
        first[row] = width + 2
        final[row] = -1


@kernel
def haze_share(distance, reach):  # type: ignore[no-untyped-def]
    """Share of the haze colour in what is seen at a distance [m]; half of its limit at ``reach``."""
    ratio = distance / reach
    return 0.85 * ratio * ratio / (1.0 + ratio * ratio)


@kernel
def paint_polygons(  # type: ignore[no-untyped-def]
    image, cover, first, final, work, order, points, contours, polygons, colors, kinds, alphas, radii,
    rotation, translation, intrinsic, sun, haze, haze_reach, boost,
):  # fmt: skip
    """Paint the polygons ``order`` of a soup, one over the other.

    ``image`` is uint8 (H, W, 3); ``rotation`` and ``translation`` are the camera's pose in the frame of the
    points; ``sun`` is the vector towards the sun times its strength; ``cover``, ``first``, ``final``
    and ``work`` are the scratch arrays of ``scratch``.
    """
    height, width = image.shape[0], image.shape[1]
    fx, fy, cx, cy = intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]
    left, right = -cx / fx, (width - cx) / fx
    above, below = -cy / fy, (height - cy) / fy
    ring, other = work[0], work[1]
    for p in order:
        kind = kinds[p]
        # Normal by Newell's sum over the outer contour; one point (a disc) leaves it zero.
        light = 1.0
        start, stop = contours[polygons[p]], contours[polygons[p] + 1]
        if kind != 0 and radii[p] <= 0.0:
            nx = ny = nz = 0.0
            for i in range(start, stop):
                j = i + 1 if i + 1 < stop else start
                nx += (points[i, 1] - points[j, 1]) * (points[i, 2] + points[j, 2])
                ny += (points[i, 2] - points[j, 2]) * (points[i, 0] + points[j, 0])
                nz += (points[i, 0] - points[j, 0]) * (points[i, 1] + points[j, 1])
            facing = (
                nx * (translation[0] - points[start, 0])
                + ny * (translation[1] - points[start, 1])
                + nz * (translation[2] - points[start, 2])
            )
            if facing <= 0.0:
                if kind != 3:
                    continue
                nx, ny, nz = -nx, -ny, -nz
            length = math.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
            if kind != 2:
                direct = (nx * sun[0] + ny * sun[1] + nz * sun[2]) / length
                light = 0.62 + 0.14 * nz / length + max(direct, 0.0)
        row0, row1 = height, 0
        nearest = 1e9
        for c in range(polygons[p], polygons[p + 1]):
            start, stop = contours[c], contours[c + 1]
            count = stop - start
            for i in range(count):
                dx = points[start + i, 0] - translation[0]
                dy = points[start + i, 1] - translation[1]
                dz = points[start + i, 2] - translation[2]
                for k in range(3):
                    ring[i, k] = rotation[0, k] * dx + rotation[1, k] * dy + rotation[2, k] * dz
            if radii[p] > 0.0:
                if ring[0, 2] < 2.0 * NEAR:
                    continue
                x, y, z = ring[0, 0], ring[0, 1], ring[0, 2]
                for i in range(_DISC_CORNERS):
                    angle = 2.0 * math.pi * i / _DISC_CORNERS
                    ring[i, 0] = x + radii[p] * math.cos(angle)
                    ring[i, 1] = y + radii[p] * math.sin(angle)
                    ring[i, 2] = z
                count = _DISC_CORNERS
            count = _clip(ring, count, 2, NEAR, 1.0, other)
            if count > 2:
                count = _clip(other, count, 0, left, 1.0, ring)
            if count > 2:
                count = _clip(ring, count, 0, right, -1.0, other)
            if count > 2:
                count = _clip(other, count, 1, above, 1.0, ring)
            if count > 2:
                count = _clip(ring, count, 1, below, -1.0, other)
            if count < 3:
                continue
            for i in range(count):
                z = other[i, 2]
                nearest = min(nearest, z)
                other[i, 0] = min(max(fx * other[i, 0] / z + cx, 0.0), float(width))
                other[i, 1] = min(max(fy * other[i, 1] / z + cy, 0.0), float(height))
                row0 = min(row0, int(other[i, 1]))
                row1 = max(row1, math.ceil(other[i, 1]))
            for i in range(count):
                j = i + 1 if i + 1 < count else 0
                _add_edge(cover, first, final, other[i, 0], other[i, 1], other[j, 0], other[j, 1])
        row1 = min(row1, height)
        if row0 >= row1:
            continue
        red, green, blue = colors[p, 0] * light, colors[p, 1] * light, colors[p, 2] * light
        if kind != 0:
            share = haze_share(nearest, haze_reach)
            if kind == 2:
                share *= 0.3
            red += share * (haze[0] - red)
            green += share * (haze[1] - green)
            blue += share * (haze[2] - blue)
        _blend(
            image, cover, first, final, row0, row1,
            min(red, 255.0), min(green, 255.0), min(blue, 255.0), alphas[p], boost,
        )  # fmt: skip


def scratch(
    image_size: tuple[int, int], longest: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Scratch arrays of ``paint_polygons`` for (width, height) images and contours of ``longest`` points."""
    width, height = image_size
    # A ring with k of n points beyond a plane crosses it at most 2 min(k, n - k) times, so a clip makes it
    # at most 1.5 times as long; five clips, at most 7.6 times.
    return (
        np.zeros((height, width + 2)),
        np.full(height, width + 2, dtype=np.int64),
        np.full(height, -1, dtype=np.int64),
        np.zeros((2, 8 * longest + 64, 3)),
    )


@kernel
def shade_ground(  # type: ignore[no-untyped-def]
    image, noise, rotation, translation, intrinsic, haze, haze_reach, grain
):
    """Give the ground in the image of a level camera its grain and its haze.

    ``noise`` (K, K) in [-1, 1] tiles the plane at two scales and is fixed to the world, so that the ground
    moves under the car; K is a power of two.
    """
    height, width = image.shape[0], image.shape[1]
    fx, fy, cx, cy = intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]
    last = noise.shape[0] - 1
    for row in range(max(int(cy), 0), height):
        v = (row + 0.5 - cy) / fy
        if v < 1e-4:
            continue
        scale = translation[2] / v
        # Far enough into the positive numbers for int() to round down.
        x = translation[0] + scale * (rotation[0, 2] - rotation[0, 0] * (cx - 0.5) / fx) + 65536.0
        y = translation[1] + scale * (rotation[1, 2] - rotation[1, 0] * (cx - 0.5) / fx) + 65536.0
        step_x, step_y = scale * rotation[0, 0] / fx, scale * rotation[1, 0] / fx
        # The grain of a pixel is finer than the pixel beyond some metres: fade it, or it would flicker.
        coarse_gain = grain * 12.0 / (12.0 + scale)
        fine_gain = grain * 36.0 / (36.0 + scale * scale)
        share = haze_share(scale, haze_reach)
        keep = 1.0 - share
        red, green, blue = share * haze[0] + 0.5, share * haze[1] + 0.5, share * haze[2] + 0.5
        pixels = image[row]
        for column in range(width):
            coarse = noise[int(x * 2.3) & last, int(y * 2.3) & last]
            fine = noise[int(x * 19.0) & last, int(y * 19.0) & last]
            gain = keep * (1.0 + coarse_gain * coarse + fine_gain * fine)
            pixels[column, 0] = np.uint8(min(pixels[column, 0] * gain + red, 255.0))
            pixels[column, 1] = np.uint8(min(pixels[column, 1] * gain + green, 255.0))
            pixels[column, 2] = np.uint8(min(pixels[column, 2] * gain + blue, 255.0))
            x += step_x
            y += step_y


@kernel
def paint_sky(image, panorama, rotation, intrinsic):  # type: ignore[no-untyped-def]
    """Look up the sky of a level camera in ``panorama`` uint8 (rows of tan(elevation) 0..0.7, azimuth, 3)."""
    height, width = image.shape[0], image.shape[1]
    fx, fy, cx, cy = intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2]
    rows, columns = panorama.shape[0], panorama.shape[1]
    for column in range(width):
        u = (column + 0.5 - cx) / fx
        azimuth = math.atan2(rotation[1, 0] * u + rotation[1, 2], rotation[0, 0] * u + rotation[0, 2])
        east = (azimuth / (2.0 * math.pi) + 0.5) * columns - 0.5 + columns
        b0 = int(east) % columns
        b1 = (b0 + 1) % columns
        b_share = east - int(east)
        norm = 1.0 / math.sqrt(1.0 + u * u)
        for row in range(height):
            up = (cy - row - 0.5) / fy * norm / 0.7 * rows - 0.5
            up = min(max(up, 0.0), rows - 1.001)
            a0 = int(up)
            a_share = up - a0
            for k in range(3):
                low = panorama[a0, b0, k] * (1.0 - b_share) + panorama[a0, b1, k] * b_share
                high = panorama[a0 + 1, b0, k] * (1.0 - b_share) + panorama[a0 + 1, b1, k] * b_share
                image[row, column, k] = np.uint8(low + a_share * (high - low) + 0.5)
