"""Camera images of the generated world: a street painted from a map, boxes and traffic lights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.maps.nuplan_map import NuPlanMap
from beyonddrive.datasets.navsim.scene import ego_yaw
from beyonddrive.structures.se2 import to_global
from beyonddrive.synth.paint import people, raster
from beyonddrive.synth.paint.ground import VERGE
from beyonddrive.synth.paint.light import daylight
from beyonddrive.synth.paint.order import paint_order
from beyonddrive.synth.paint.polygon_soup import PolygonSoup, merge
from beyonddrive.synth.paint.scenery import Scenery, prepare_scenery
from beyonddrive.synth.paint.shadows import contact_shadows, sun_shadows
from beyonddrive.synth.paint.vehicles import vehicle_soup
from beyonddrive.synth.rig import CameraPose

GROUND_REACH = 125.0
"""Surfaces beyond this are not drawn [m]; haze and houses hide the end."""
PAINT_REACH = 85.0
"""Lines, stripes and shadows beyond this are too thin to be seen [m]."""
SOLID_REACH = 140.0
"""Houses, trees and objects beyond this are not drawn [m]."""
_BRAKING = -0.7
"""Acceleration below which brake lamps shine [m/s2]."""
_STANDING = 0.25
"""Speed below which a vehicle stands [m/s]."""


def ego_pose(frame: Mapping[str, Any]) -> NDArray[np.float64]:
    """Global x [m], y [m], heading [rad] of the rear axle of a frame (NAVSIM_FORMAT, section 2)."""
    rotation = np.asarray(frame["ego2global_rotation"], dtype=np.float64)
    x, y = np.asarray(frame["ego2global_translation"], dtype=np.float64)[:2]
    return np.array([x, y, float(ego_yaw(rotation))])


def brake_lamps(frames: Sequence[Mapping[str, Any]]) -> list[frozenset[str]]:
    """Track tokens of the vehicles whose brake lamps shine, for each frame of a log.

    A vehicle brakes if it has lost speed since the frame before, or if it stands but moves at some other
    time (else it is parked).
    """
    speeds = [
        dict(
            zip(
                frame["anns"]["track_tokens"],
                np.linalg.norm(
                    np.asarray(frame["anns"]["gt_velocity_3d"]).reshape(-1, 3)[:, :2], axis=1
                ).tolist(),
                strict=True,
            )
        )
        for frame in frames
    ]
    driven = {token for frame in speeds for token, speed in frame.items() if speed > 4 * _STANDING}
    shining = []
    for i, now in enumerate(speeds):
        before = speeds[i - 1] if i else {}
        seconds = 1e-6 * (frames[i]["timestamp"] - frames[i - 1]["timestamp"]) if i else 1.0
        shining.append(
            frozenset(
                str(token)
                for token, speed in now.items()
                if (token in driven and speed < _STANDING)
                or (token in before and speed - before[token] < _BRAKING * max(seconds, 1e-3))
            )
        )
    return shining


@dataclass(frozen=True)
class _FrameSolids:
    """What stands around the ego in one frame, painter's frame: solids, and shadows on the ground."""

    pose: NDArray[np.float64]
    solids: PolygonSoup
    ground: NDArray[np.int64]
    shadows: PolygonSoup


class Painter:
    """Paints the camera images of one log.

    Args:
        nuplan_map: The map of the log; every layer but ``lanes_polygons`` may be missing.
        frames: The frames of the log, in order.
        seed: Chooses daylight together with the name of the log.

    Raises:
        MapError: If the map has no lanes.
    """

    def __init__(self, nuplan_map: NuPlanMap, frames: Sequence[Mapping[str, Any]], seed: int = 0) -> None:
        if not frames:
            raise ValueError("frames is empty: there is nothing to paint")
        self._frames = frames
        self._poses = np.stack([ego_pose(frame) for frame in frames])
        lit = {int(connector) for frame in frames for connector, _ in frame["traffic_lights"]}
        self._light = daylight(seed, frames[0]["log_name"])
        self._set_up(prepare_scenery(nuplan_map, self._poses[:, :2], lit, self._light.sun))
        self._brakes = brake_lamps(frames)

    def _set_up(self, scenery: Scenery) -> None:
        self.scenery = scenery
        self._prepared: tuple[int, _FrameSolids] | None = None
        self._scratch: dict[
            tuple[int, int], tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
        ] = {}
        contours = [self.scenery.ground.contours, self.scenery.solids.contours]
        self._longest = max(int(np.diff(c).max(initial=16)) for c in contours)

    def paint(self, index: int, camera: CameraPose, image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """Image of a camera in frame ``index``.

        Args:
            index: Which frame of the log.
            camera: Pose and intrinsics for ``image_size``, for example of ``rig(image_size)``.
            image_size: Width and height [px].

        Returns:
            uint8 (height, width, 3), RGB.

        Raises:
            ValueError: If the camera is not level: sky and ground are painted row by row.
        """
        width, _ = image_size
        intrinsic = np.asarray(camera["cam_intrinsic"], dtype=np.float64)
        if np.abs(np.asarray(camera["sensor2lidar_rotation"])[2] - (0.0, -1.0, 0.0)).max() > 1e-6:
            raise ValueError(
                "sensor2lidar_rotation: the camera is tilted, but only level cameras can be painted; "
                "use the poses of beyonddrive.synth.rig"
            )
        frame = self._frame_solids(index)
        x, y, yaw = frame.pose
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        rotation = turn @ np.asarray(camera["sensor2lidar_rotation"], dtype=np.float64)
        mount = np.asarray(camera["sensor2lidar_translation"], dtype=np.float64)
        translation = turn @ mount + (x, y, 0.0)

        image = self._background(rotation, intrinsic, image_size)
        cover, first, final, work = self._scratch_for(image_size)
        light = self._light

        def paint(soup: PolygonSoup, order: NDArray[np.int64], boost: float) -> None:
            raster.paint_polygons(
                image, cover, first, final, work, order, soup.points, soup.contours, soup.polygons,
                soup.colors, soup.kinds, soup.alphas, soup.radii, rotation, translation, intrinsic,
                light.sun, light.haze, light.haze_reach, boost,
            )  # fmt: skip

        left, right = -intrinsic[0, 2] / intrinsic[0, 0], (width - intrinsic[0, 2]) / intrinsic[0, 0]
        circles = self.scenery.ground_circles[frame.ground]
        ground = frame.ground[_circles_in_view(circles, rotation, translation, left, right)]
        paint(self.scenery.ground, ground, 1.0)
        paint(frame.shadows, np.arange(len(frame.shadows.polygons) - 1), 1.0)
        raster.shade_ground(
            image, light.noise, rotation, translation, intrinsic, light.haze, light.haze_reach, 0.075
        )
        solids = paint_order(frame.solids.feet, rotation, translation, left, right, SOLID_REACH)
        order = _polygons_of(frame.solids.solids, solids)
        # Faces of a body share edges; a little more than exact coverage lets no background shine through.
        paint(frame.solids, order, 1.35)
        return image

    def obstacles(self, index: int) -> NDArray[np.float64]:
        """Boxes (M, 7) x y z l w h heading, ego frame, of houses, trees and posts around frame ``index``."""
        boxes = self.scenery.boxes
        pose = self._poses[index] - (*self.scenery.origin, 0.0)
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        offset = boxes[:, :2] - pose[:2]
        xy = np.column_stack(
            [cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]]
        )
        near = np.linalg.norm(xy, axis=1) < 120.0
        return np.column_stack([xy, boxes[:, 2:6], boxes[:, 6] - pose[2]])[near]

    def _background(
        self, rotation: NDArray[np.float64], intrinsic: NDArray[np.float64], image_size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """Sky, and verge below the horizon."""
        width, height = image_size
        image = np.empty((height, width, 3), dtype=np.uint8)
        horizon = min(max(int(np.ceil(intrinsic[1, 2])), 0), height)
        if horizon:
            # Clouds are soft: a quarter of the resolution is enough.
            small = (max(width // 4, 1), max(horizon // 4, 1))
            scaled = intrinsic * [[small[0] / width], [small[1] / horizon], [1.0]]
            sky = np.empty((small[1], small[0], 3), dtype=np.uint8)
            raster.paint_sky(sky, self._light.panorama, rotation, scaled)
            image[:horizon] = cv2.resize(sky, (width, horizon), interpolation=cv2.INTER_LINEAR)
        image[horizon:] = np.array(VERGE, dtype=np.uint8)
        return image

    def _scratch_for(
        self, image_size: tuple[int, int]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        if image_size not in self._scratch:
            self._scratch[image_size] = raster.scratch(image_size, self._longest)
        return self._scratch[image_size]

    def _frame_solids(self, index: int) -> _FrameSolids:
        """Objects, scenery and shadows of a frame; kept until another frame is asked for."""
        if self._prepared is not None and self._prepared[0] == index:
            return self._prepared[1]
        scenery = self.scenery
        pose = self._poses[index] - (*scenery.origin, 0.0)
        frame = self._frames[index]
        boxes = np.asarray(frame["anns"]["gt_boxes"], dtype=np.float64).reshape(-1, 7)
        placed = to_global(boxes[:, [0, 1, 6]], pose)
        speeds = np.linalg.norm(np.asarray(frame["anns"]["gt_velocity_3d"]).reshape(-1, 3)[:, :2], axis=1)
        tokens = [str(token) for token in frame["anns"]["track_tokens"]]
        soups = []
        shaded = []
        for i in np.flatnonzero(np.linalg.norm(boxes[:, :2], axis=1) < SOLID_REACH):
            kind = str(frame["anns"]["gt_names"][i])
            if kind == "ego":
                continue
            length, width, height = boxes[i, 3:6]
            x, y, heading = placed[i]
            base = boxes[i, 2] - height / 2
            phase = -1
            if kind == "pedestrian" and speeds[i] > 0.3:
                # One stride of two steps takes about 1.4 m.
                phase = int((x + y) / 1.4 * people.GAIT_PHASES) % people.GAIT_PHASES
            braking = tokens[i] in self._brakes[index]
            model = _model(kind, tokens[i], length, width, height, braking, phase)
            soups.append(model.moved(x, y, base, heading))
            shaded.append(i)
        soups += _lights_on(frame, scenery)
        near = np.linalg.norm(scenery.solid_middles - pose[:2], axis=1) < SOLID_REACH
        soups.append(scenery.solids.take_solids(np.flatnonzero(near)))
        circles = scenery.ground_circles
        reach = np.where(circles[:, 2] < 8.0, PAINT_REACH, GROUND_REACH)
        seen = np.linalg.norm(circles[:, :2] - pose[:2], axis=1) < reach + circles[:, 2]
        standing = np.column_stack([placed[:, :2], boxes[:, 2:6], placed[:, 2]])[shaded]
        shadows = merge(
            [contact_shadows(placed[shaded], boxes[shaded, 3:5]), sun_shadows(standing, self._light.sun)]
        )
        solids = _FrameSolids(pose, merge(soups), np.flatnonzero(seen), shadows)
        self._prepared = (index, solids)
        return solids


def _circles_in_view(
    circles: NDArray[np.float64],
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
    left: float,
    right: float,
) -> NDArray[np.bool_]:
    """Which circles (N, 3) on the ground reach into the view between two tangents."""
    offset = circles[:, :2] - translation[:2]
    depth, side, radius = offset @ rotation[:2, 2], offset @ rotation[:2, 0], circles[:, 2]
    return (
        (depth > -radius)
        & (side - right * depth < radius * np.hypot(1.0, right))
        & (left * depth - side < radius * np.hypot(1.0, left))
    )


def _lights_on(frame: Mapping[str, Any], scenery: Scenery) -> list[PolygonSoup]:
    """The heads of a frame; a connector without a state in this frame has none."""
    red = {int(connector): bool(is_red) for connector, is_red in frame["traffic_lights"]}
    heads = [head for head in scenery.signals.heads if head.connector in red]
    return [head.red if red[head.connector] else head.green for head in heads]


def _polygons_of(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([np.arange(offsets[row], offsets[row + 1]) for row in rows])


# (logs of one town meet the same vehicles)
@lru_cache(maxsize=4096)
def _model(
    kind: str, token: str, length: float, width: float, height: float, braking: bool, phase: int
) -> PolygonSoup:
    if kind == "vehicle":
        return vehicle_soup(token, length, width, height, braking)
    if kind == "pedestrian":
        return people.pedestrian_soup(token, length, width, height, phase)
    if kind == "bicycle":
        return people.bicycle_soup(token, length, width, height)
    if kind == "traffic_cone":
        return people.cone_soup(length, width, height)
    if kind == "barrier":
        return people.barrier_soup(length, width, height)
    if kind == "czone_sign":
        return people.sign_soup(length, width, height)
    return people.generic_soup(token, length, width, height)
