"""A straight road with two lanes and a junction, and frames of a car on it."""

from pathlib import Path

import numpy as np
import pytest
import shapely

from beyonddrive.datasets.maps.nuplan_map import MapLayer, NuPlanMap
from beyonddrive.synth.rig import rig

ORIGIN = np.array([331_000.0, 4_690_500.0])


def _layer(name, ids, geometries, **columns):
    moved = shapely.transform(np.array(geometries, dtype=object), lambda xy: xy + ORIGIN)
    ids = np.array(ids, dtype=np.int64)
    rows = {int(id): row for row, id in enumerate(ids)}
    return MapLayer(name, ids, moved, {k: np.array(v) for k, v in columns.items()}, name, rows)


def _street_layers():
    east, west = shapely.box(-100, -3.5, 30, 0), shapely.box(-100, 0, 30, 3.5)
    junction = shapely.box(30, -3.5, 50, 3.5)
    return {
        "lanes_polygons": _layer("lanes_polygons", [1, 2], [east, west], lane_group_fid=[11, 12]),
        "baseline_paths": _layer(
            "baseline_paths",
            [21, 22, 23],
            [
                shapely.LineString([(-100, -1.75), (30, -1.75)]),
                shapely.LineString([(30, 1.75), (-100, 1.75)]),
                shapely.LineString([(30, -1.75), (40, -1.75), (50, -1.75)]),
            ],
            lane_fid=[1, 2, -1],
            lane_connector_fid=[-1, -1, 3],
        ),
        "lane_connectors": _layer(
            "lane_connectors", [3], [shapely.LineString([(30, -1.75), (50, -1.75)])], exit_lane_fid=[1]
        ),
        "intersections": _layer("intersections", [31], [junction]),
        "crosswalks": _layer("crosswalks", [41], [shapely.box(32, -3.5, 35.5, 3.5)]),
        "carpark_areas": _layer("carpark_areas", [51], [shapely.box(-60, -9, -20, -3.5)]),
        "stop_polygons": _layer(
            "stop_polygons", [61], [shapely.box(28.8, -3.5, 30, 0)], stop_polygon_type_fid=[2]
        ),
    }


@pytest.fixture(scope="session")
def make_map():
    """Make a map of the street with all layers, or only the named ones."""

    def make(*names):
        layers = _street_layers()
        nuplan_map = NuPlanMap("us-ma-boston", Path("street.gpkg"))
        nuplan_map._layers = {name: layers[name] for name in names or layers}
        nuplan_map.__dict__["layer_names"] = tuple(nuplan_map._layers)
        return nuplan_map

    return make


@pytest.fixture(scope="session")
def street(make_map):
    """The map of the street with all layers."""
    return make_map()


@pytest.fixture(scope="session")
def make_frames():
    """Make frames at (x, -1.75) heading east; a box is (x, y, l, w, h, heading, name, token, speed)."""

    def make(boxes=(), x=0.0, count=1, lights=(), image_size=(480, 270), yaw=0.0):
        frames = []
        for i in range(count):
            token = f"{i:016x}"
            frames.append(
                {
                    "token": token,
                    "timestamp": 500_000 * i,
                    "log_name": "log",
                    "traffic_lights": list(lights),
                    "ego2global_translation": np.array([ORIGIN[0] + x, ORIGIN[1] - 1.75, 0.0]),
                    "ego2global_rotation": np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]),
                    "lidar_path": f"log/MergedPointCloud/{token}.pcd",
                    "cams": {
                        name: {"data_path": f"log/{name}/{token}.jpg", **pose}
                        for name, pose in rig(image_size).items()
                    },
                    "anns": {
                        "gt_boxes": np.array([[b[0], b[1], b[4] / 2, *b[2:6]] for b in boxes]).reshape(-1, 7),
                        "gt_names": np.array([b[6] for b in boxes], dtype="<U16"),
                        "gt_velocity_3d": np.array([[b[8], 0.0, 0.0] for b in boxes]).reshape(-1, 3),
                        "track_tokens": [b[7] for b in boxes],
                    },
                }
            )
        return frames

    return make
