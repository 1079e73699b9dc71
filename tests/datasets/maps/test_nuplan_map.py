"""Maps: layers as the golden data know them, projection, nulls, and what is said of broken files."""

import json
import pickle
import shutil
import sqlite3

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely

from beyonddrive.datasets.maps.nuplan_map import NO_ID, MapError, open_map

BOSTON, VEGAS = "us-ma-boston", "us-nv-las-vegas-strip"


@pytest.fixture
def maps_root(golden):
    return golden / "pdms" / "data" / "maps"


def write_map(root, layers, location="toy", crs="EPSG:32619", meta=None):
    """A map of layers {name: (geometries, columns, crs)}; written with fids 1, 2, ..."""
    path = root / location / "1.0" / "map.gpkg"
    path.parent.mkdir(parents=True)
    (root / "nuplan-maps-v1.0.json").write_text(json.dumps({location: {"version": "1.0"}}))
    for name, (geometries, columns, layer_crs) in layers.items():
        pyogrio.raw.write(
            path,
            geometry=shapely.to_wkb(np.array(geometries, dtype=object)),
            field_data=[np.asarray(values) for values in columns.values()],
            fields=list(columns),
            geometry_type=geometries[0].geom_type if geometries else "Polygon",
            crs=layer_crs,
            layer=name,
            driver="GPKG",
            append=path.exists(),
        )
    if meta is None:
        meta = {"projectedCoordSystem": crs}
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (fid INTEGER PRIMARY KEY, key TEXT, value TEXT)")
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta.items())
        connection.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) "
            "VALUES ('meta', 'attributes', 'meta')"
        )
    connection.close()
    return path


SQUARE = shapely.box(330000.0, 4690000.0, 330010.0, 4690010.0)


def test_golden_layers(maps_root):
    boston = open_map(maps_root, BOSTON)
    assert boston.location == BOSTON and boston.crs.to_epsg() == 32619
    lanes = boston.layer("lanes_polygons")
    assert len(lanes) == 20 and (np.diff(lanes.ids) > 0).all()
    assert {g.geom_type for g in lanes.geometries} == {"Polygon"}
    assert lanes.columns["lane_fid"].dtype == np.int64
    np.testing.assert_array_equal(lanes.columns["lane_fid"], lanes.ids)
    assert lanes.row_of(int(lanes.ids[3])) == 3 and int(lanes.ids[3]) in lanes
    assert boston.layer("lanes_polygons") is lanes
    assert lanes.tree is lanes.tree


@pytest.mark.parametrize("location", [BOSTON, VEGAS])
def test_centerlines_of_the_golden_stages_are_made_of_map_vertices(golden, maps_root, location):
    """Boston is stored in degrees and must be projected; Las Vegas is stored in metres."""
    vertices = shapely.get_coordinates(open_map(maps_root, location).layer("baseline_paths").geometries)
    known = {tuple(vertex) for vertex in vertices}
    index = json.loads((golden / "pdms" / "index.json").read_text())
    checked = 0
    for path in sorted((golden / "pdms" / "stages").glob("*.npz")):
        centerline = np.load(path)["centerline"][:, :2]
        nearest = np.abs(vertices[None, :1] - centerline[:1, None]).max()
        if nearest > 1e5:  # another city
            continue
        worst = max(
            0.0 if tuple(vertex) in known else np.linalg.norm(vertices - vertex, axis=1).min()
            for vertex in centerline
        )
        assert worst < 4e-9, path.name
        checked += 1
    assert checked >= 4 and len(index) > 0


def test_degrees_are_longitude_then_latitude(tmp_path):
    forward = pyproj.Transformer.from_crs("EPSG:32619", "EPSG:4326", always_xy=True)
    degrees = shapely.transform(SQUARE, lambda xy: np.column_stack(forward.transform(*xy.T)))
    assert -72 < degrees.centroid.x < -70 and 41 < degrees.centroid.y < 43
    write_map(
        tmp_path, {"far": ([degrees], {"a": [1]}, "EPSG:4326"), "near": ([SQUARE], {"a": [1]}, "EPSG:32619")}
    )
    toy = open_map(tmp_path, "toy")
    np.testing.assert_allclose(
        shapely.get_coordinates(toy.layer("far").geometries), shapely.get_coordinates(SQUARE), atol=1e-6
    )
    np.testing.assert_array_equal(
        shapely.get_coordinates(toy.layer("near").geometries), shapely.get_coordinates(SQUARE)
    )


def test_nulls_are_explicit(tmp_path):
    path = write_map(
        tmp_path,
        {
            "lanes": (
                [SQUARE] * 3,
                {
                    "lane_fid": np.array([5, 6, 7]),
                    "float_fid": np.array([1.0, np.nan, 3.0]),
                    "text_fid": np.array(["10", None, ""], dtype=object),
                    "speed_limit_mps": np.array([1.5, np.nan, 2.5]),
                    "name": np.array(["a", None, "c"], dtype=object),
                },
                "EPSG:32619",
            )
        },
    )
    with sqlite3.connect(path) as connection:
        # Without the R-tree triggers, which need functions that sqlite3 lacks.
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE lanes SET lane_fid = NULL WHERE fid = 2")
    connection.close()
    lanes = open_map(tmp_path, "toy").layer("lanes")
    assert lanes.columns["lane_fid"].tolist() == [5, NO_ID, 7]
    assert lanes.columns["float_fid"].tolist() == [1, NO_ID, 3]
    assert lanes.columns["text_fid"].tolist() == [10, NO_ID, NO_ID]
    assert lanes.columns["text_fid"].dtype == np.int64
    np.testing.assert_array_equal(lanes.columns["speed_limit_mps"], [1.5, np.nan, 2.5])
    assert lanes.columns["name"].tolist() == ["a", None, "c"]


@pytest.mark.parametrize("value", ["abc", "1.5"])
def test_id_that_is_no_whole_number(tmp_path, value):
    columns = {"x_fid": np.array([value], dtype=object)}
    write_map(tmp_path, {"lanes": ([SQUARE], columns, "EPSG:32619")})
    with pytest.raises(MapError, match=r"map\.gpkg: layer lanes: column x_fid: an id is not a"):
        open_map(tmp_path, "toy").layer("lanes")


def test_missing_layer_object_and_column(maps_root):
    stub = open_map(maps_root, "sg-one-north")
    with pytest.raises(
        MapError, match=r"sg-one-north.*map\.gpkg: there is no layer 'lanes_polygons'.*complete"
    ):
        stub.layer("lanes_polygons")
    layer = stub.layer("lane_connectors")
    with pytest.raises(MapError, match=r"layer lane_connectors: there is no object 99; log and map"):
        layer.row_of(99)
    with pytest.raises(MapError, match="no column 'nonsense'"):
        layer.column("nonsense")


def test_missing_files(tmp_path, maps_root):
    with pytest.raises(MapError, match=r"nuplan-maps-v1\.0\.json: there is no such file"):
        open_map(tmp_path, BOSTON)
    with pytest.raises(MapError, match=r"no version of 'atlantis' in it \(it has \['sg-one-north'"):
        open_map(maps_root, "atlantis")
    versions = tmp_path / "nuplan-maps-v1.0.json"
    versions.write_text(json.dumps({BOSTON: {"version": "9.9"}}))
    with pytest.raises(MapError, match=r"9\.9/map\.gpkg: there is no such map"):
        open_map(tmp_path, BOSTON)
    for text in ("{", "[]", '{"us-ma-boston": {}}', '{"us-ma-boston": "9.9"}'):
        versions.write_text(text)
        with pytest.raises(MapError, match=r"nuplan-maps-v1\.0\.json"):
            open_map(tmp_path, BOSTON)


@pytest.mark.filterwarnings("ignore:GPKG")
@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\x00" + bytes(100)])
def test_file_that_is_no_map(tmp_path, content):
    (tmp_path / "toy" / "1.0").mkdir(parents=True)
    (tmp_path / "toy" / "1.0" / "map.gpkg").write_bytes(content)
    (tmp_path / "nuplan-maps-v1.0.json").write_text('{"toy": {"version": "1.0"}}')
    with pytest.raises(MapError, match=r"toy/1\.0/map\.gpkg"):
        open_map(tmp_path, "toy").layer("lanes")


def test_truncated_map(tmp_path, maps_root):
    content = (maps_root / BOSTON / "9.12.1817" / "map.gpkg").read_bytes()
    (tmp_path / "toy" / "1.0").mkdir(parents=True)
    (tmp_path / "toy" / "1.0" / "map.gpkg").write_bytes(content[: len(content) // 2])
    (tmp_path / "nuplan-maps-v1.0.json").write_text('{"toy": {"version": "1.0"}}')
    with pytest.raises(MapError, match=r"toy/1\.0/map\.gpkg"):
        open_map(tmp_path, "toy").layer("baseline_paths")


@pytest.mark.parametrize(
    ("meta", "complaint"),
    [
        ({}, "projectedCoordSystem"),
        ({"projectedCoordSystem": "EPSG:1"}, "unknown"),
        ({"projectedCoordSystem": "EPSG:4326"}, "not in metres"),
    ],
)
def test_meta_without_a_projection(tmp_path, meta, complaint):
    write_map(tmp_path, {"lanes": ([SQUARE], {"a": [1]}, "EPSG:32619")}, meta=meta)
    with pytest.raises(MapError, match=rf"layer meta: .*{complaint}"):
        open_map(tmp_path, "toy").layer("lanes")


@pytest.mark.filterwarnings("ignore:.crs. was not provided")
def test_object_without_geometry_and_layer_without_projection(tmp_path):
    write_map(
        tmp_path,
        {
            "hollow": ([SQUARE, shapely.Polygon()], {"a": [1, 2]}, "EPSG:32619"),
            "nowhere": ([shapely.box(200.0, 0.0, 201.0, 1.0)], {"a": [1]}, None),
        },
    )
    toy = open_map(tmp_path, "toy")
    with pytest.raises(MapError, match="layer hollow: object 2 has no geometry"):
        toy.layer("hollow")
    with pytest.raises(MapError, match="layer nowhere: its coordinate system"):
        toy.layer("nowhere")


def test_map_is_opened_once_but_a_new_file_is_seen(tmp_path, maps_root):
    shutil.copytree(maps_root, tmp_path / "maps", copy_function=shutil.copyfile)
    first = open_map(tmp_path / "maps", BOSTON)
    assert open_map(tmp_path / "maps", BOSTON) is first
    path = tmp_path / "maps" / BOSTON / "9.12.1817" / "map.gpkg"
    shutil.copyfile(maps_root / VEGAS / "9.15.1915" / "map.gpkg", path)
    second = open_map(tmp_path / "maps", BOSTON)
    assert second is not first and len(second.layer("lanes_polygons")) == 92


def test_map_travels_to_another_process_as_its_path(maps_root):
    boston = open_map(maps_root, BOSTON)
    boston.layer("lanes_polygons")
    content = pickle.dumps(boston)
    assert len(content) < 1000
    assert pickle.loads(content) is boston  # same process: opened once
