"""Follow-up scenes: read without importing anything that they name, refused when they hold anything else."""

import multiprocessing
import pickle
import random
import resource
import sys
from itertools import accumulate
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import shapely

from beyonddrive.datasets.navsim.plain_pickle import PlainObject, load_plain_pickle
from beyonddrive.datasets.navsim.scene import SceneError
from beyonddrive.datasets.navsim.synthetic import CLASSES, TOKEN_LENGTH, read_synthetic_scene

FOLDER = Path(__file__).parents[2] / "data" / "golden" / "two_stage" / "data" / "synthetic_scene_pickles"
FILES = sorted(FOLDER.glob("*.pkl"))


@pytest.fixture(scope="module")
def content():
    return load_plain_pickle(FILES[0], CLASSES)


def test_a_scene_knows_what_is_around_after_its_last_frame():
    scene = read_synthetic_scene(FILES[0])
    assert len(scene.token) == TOKEN_LENGTH and scene.token == FILES[0].stem
    assert scene.num_samples >= 12 > len(scene.frames)
    for sample in range(3, 12):
        objects = scene.world_objects(sample)
        assert objects.poses.shape == (len(objects.tokens), 3) and np.isfinite(objects.poses).all()
    # A vehicle of the last frame is the vehicle of the next sample, where it went.
    last, later = (scene.world_objects(len(scene.frames) - 1 + step) for step in (0, 1))
    common = set(last.tokens) & set(later.tokens)
    assert common
    for token in common:
        a, b = (o.poses[o.tokens.index(token), :2] for o in (last, later))
        assert np.hypot(*(b - a)) < 15.0
    with pytest.raises(SceneError, match="extended_detections_tracks"):
        scene.world_objects(scene.num_samples)


def test_unknown_lights_are_not_red():
    lengths = {len(read_synthetic_scene(path).later_lights) for path in FILES}
    assert 0 in lengths
    scene = next(s for s in map(read_synthetic_scene, FILES) if not s.later_lights)
    assert scene.lights(11) == []


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def with_annotations(**changes):
    """The same with other annotations in the current frame."""

    def change(content):
        annotations = content["frames"][3]["annotations"]
        made = {key: edit(annotations[key]) for key, edit in changes.items()}
        content["frames"][3]["annotations"] = {**annotations, **made}

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(frames=c["frames"][:3]), "3 frames"),
        (lambda c: c.pop("scene_metadata"), "lacks the key 'scene_metadata'"),
        (lambda c: c["scene_metadata"].update(initial_token="other"), "initial_token is 'other'"),
        (lambda c: c["frames"][0].pop("annotations"), "lacks the key 'annotations'"),
        (with_annotations(track_tokens=lambda v: v[1:]), "track_tokens has .* entries, but names has"),
        (with_annotations(boxes=lambda v: v.T), r"frame .*: annotations: boxes has the shape \(7, "),
        (with_annotations(velocity_3d=lambda v: v[1:]), "velocity_3d has the shape"),
        (lambda c: c.update(extended_detections_tracks=[{}]), "expected a DetectionsTracks, got dict"),
        (lambda c: c.update(note=Evil()), "refused to load builtins.print"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, change, message, capsys):
    changed = {**content, "frames": [dict(f) for f in content["frames"]]}
    changed |= {"scene_metadata": dict(content["scene_metadata"])}
    changed |= dict.fromkeys(("extended_detections_tracks", "extended_traffic_light_data"))
    change(changed)
    path = tmp_path / "scene.pkl"
    path.write_bytes(pickle.dumps(changed))
    with pytest.raises(SceneError, match=message) as caught:
        read_synthetic_scene(path)
    assert str(path) in str(caught.value) and not capsys.readouterr().out


def test_damaged_files_never_do_more_than_fail(tmp_path):
    whole, draws = min((path.read_bytes() for path in FILES), key=len), random.Random(0)
    path = tmp_path / "scene.pkl"
    modules, started, refused = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(draws.choice((1, 1, 3, 20))):
            damaged[draws.randrange(len(damaged))] = draws.randrange(256)
        path.write_bytes(damaged[: draws.randrange(1, len(damaged))] if draws.random() < 0.2 else damaged)
        try:
            read_synthetic_scene(path)
        except SceneError as error:
            assert str(path) in str(error)
            refused += 1
    assert 1000 < refused < 2000
    assert not [name for name in set(sys.modules) - modules if name.startswith("nuplan")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 200_000  # kB


AGENT = b"cnuplan.common.actor_state.agent\nAgent\n)R"


@pytest.mark.parametrize(
    "body",
    [
        b"})" + b"\x85" * 200_000 + b"K\x01s",
        b"}" + AGENT + b")" + b"\x85" * 200_000 + b"b" + b"K\x01s",
        AGENT + b"})" + b"\x85" * 200_000 + b"K\x01sb",
        b"(" + AGENT * 20 + b"l" + b"\x85" * 200_000,
    ],
)
def test_depth_never_ends_the_reader(tmp_path, body):
    """In a process of its own: a stack that overflows while nested tuples are hashed ends it."""
    path = tmp_path / "scene.pkl"
    path.write_bytes(b"\x80\x04" + body + b".")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        message = pool.apply_async(_complaint, (path,)).get(timeout=60)
    assert str(path) in message


def _complaint(path):
    with pytest.raises(SceneError) as error:
        read_synthetic_scene(path)
    return str(error.value)


def test_a_class_that_is_not_on_the_list_is_refused_by_its_name(tmp_path):
    path = tmp_path / "scene.pkl"
    path.write_bytes(b"\x80\x04cnuplan.common.actor_state.ego_state\nEgoState\n)R.")
    with pytest.raises(SceneError, match=r"nuplan\.common\.actor_state\.ego_state\.EgoState") as error:
        read_synthetic_scene(path)
    assert str(path) in str(error.value)


def test_a_file_that_is_missing_is_named_with_what_to_do(tmp_path):
    with pytest.raises(SceneError, match=r"a\.pkl: there is no such follow-up scene; get it again, or give"):
        read_synthetic_scene(tmp_path / "a.pkl")


class Rewriter(pickle.Pickler):
    """Writes what was read as the classes that it was of; boxes get an outline."""

    def __init__(self, file, outline):
        super().__init__(file, 5)
        self.outline = outline

    def reducer_override(self, value):
        if not isinstance(value, PlainObject):
            return NotImplemented
        module, _, name = value.name.rpartition(".")
        state = value.state
        if name == "OrientedBox":
            state = {**state, "geometry": self.outline}
        return getattr(sys.modules[module], name), value.args, state


class OutlineOfShapely1:
    """Pickled as a polygon of shapely 1."""

    def __reduce__(self):
        return sys.modules["shapely.geometry.polygon"].Polygon, (), shapely.box(0, 0, 1, 1).wkb


@pytest.mark.parametrize("outline", [shapely.box(0, 0, 1, 1), OutlineOfShapely1()])
def test_boxes_may_keep_their_outline(tmp_path, content, monkeypatch, outline):
    for module, name in CLASSES:
        if module.startswith("nuplan."):
            for part in accumulate(module.split("."), "{}.{}".format):
                monkeypatch.setitem(sys.modules, part, sys.modules.get(part) or ModuleType(part))
            kind = type(name, (), {"__module__": module})
            monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
    path = tmp_path / FILES[0].name
    with path.open("wb") as file:
        Rewriter(file, outline).dump(content)
    assert b"shapely" in path.read_bytes()
    written, read = read_synthetic_scene(FILES[0]), read_synthetic_scene(path)
    assert written.later_objects and len(read.later_objects) == len(written.later_objects)
    for own, other in zip(read.later_objects, written.later_objects, strict=True):
        assert own.tokens == other.tokens and np.array_equal(own.poses, other.poses)
