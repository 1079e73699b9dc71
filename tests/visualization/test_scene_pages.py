"""Pages of scenes end to end: scored, drawn, written and listed; what cannot be drawn is named."""

import json
import shutil

import cv2
import numpy as np
import pytest
import shapely

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.datasets.stores.negative_pool import NegativePool, PoolDescription, hash_tokens, open_writer
from beyonddrive.evaluation.pdm import build_metric_cache, score
from beyonddrive.structures.boxes import ego_corners
from beyonddrive.tools import visualize as tool
from beyonddrive.visualization import page_jobs, palette
from beyonddrive.visualization.failures import judge
from beyonddrive.visualization.page_jobs import draw_scenes, file_name
from beyonddrive.visualization.report_inputs import read_picture_index
from beyonddrive.visualization.scene_choice import PlansError, choose_tokens, worst_scenes
from beyonddrive.visualization.scene_pages import SURROUND, PageSettings, ScenePages

TOKEN = "1fe355d5f82ad146"
SMALL = PageSettings(height=400)


@pytest.fixture(scope="module")
def scored(golden_root, free_scene, golden_rows):
    """Verdicts of the golden plans of the free scene, with their scores and names."""
    cache = build_metric_cache(free_scene, golden_root.map(free_scene.map_location))
    plans, values, names = golden_rows
    return judge(score(cache, plans), cache), values, names


@pytest.fixture
def root(world_folder):
    return NavsimRoot(world_folder)


@pytest.fixture
def scene(root):
    return next(root.scenes("mini"))


@pytest.fixture
def pool(tmp_path, golden_rows):
    plans, scores, _ = golden_rows
    description = PoolDescription(
        split="mini",
        generator={"name": "test"},
        strategy={"type": "test"},
        seed=0,
        progress="pair",
        num_scenes=1,
        tokens_hash=hash_tokens([TOKEN]),
        shard_size=1,
    )
    record = {
        "plans": plans[::8].astype(np.float32),
        "scores": scores[::8].astype(np.float32),
        "expert": plans[0].astype(np.float32),
        "times": np.full(scores[::8].shape, np.inf, np.float32),
    }
    open_writer(tmp_path / "pool", description, "test").write("0", {TOKEN: record})
    return NegativePool(tmp_path / "pool")


def write_plans(path, **plans):
    np.savez(path, **plans)
    return path


def test_verdicts_agree_with_the_score(scored):
    verdicts, values, _ = scored
    for verdict, row in zip(verdicts, values, strict=True):
        nc, dac, ep, ttc, comfort, ddc, _ = row
        wanted = {"NC": nc, "DAC": dac, "EP": ep, "TTC": ttc, "C": comfort, "DDC": ddc}
        assert set(verdict.failed) == {name for name, value in wanted.items() if value < 0.6}
        # Whatever breaks at one moment has that moment, within the four seconds of a plan.
        assert (verdict.mark is not None) == (verdict.first in ("NC", "DAC", "TTC", "DDC"))
        if verdict.mark is not None:
            assert verdict.mark.column == verdict.first and 0.0 <= verdict.moment <= 4.0


def test_every_kind_of_failure_is_seen_and_worded(scored):
    verdicts, _, names = scored
    said = " | ".join(str(verdict) for verdict in verdicts)
    for words in (
        "hits a vehicle at",
        "leaves the road at",
        "gets too close to a",
        "drives uncomfortably at",
    ):
        assert words in said
    assert " more bounds)" in said
    assert str(verdicts[names.index("human")]) == "passes"
    assert verdicts[names.index("human")].color == palette.PASS


def test_a_plan_leaves_the_road_where_it_is_off_it(scored, free_scene, golden_root):
    verdicts, _, _ = scored
    nuplan_map = golden_root.map(free_scene.map_location)
    layers = [nuplan_map.layer(name) for name in ("lane_groups_polygons", "intersections", "carpark_areas")]
    road = shapely.union_all([polygon for layer in layers for polygon in layer.geometries])
    checked = 0
    for verdict in verdicts:
        moment = next((failure.time for failure in verdict.explanation.of("DAC")), 0.0)
        if moment == 0.0:
            continue
        if np.abs(verdict.explanation.states[:, :2] - free_scene.ego_pose[:2]).max() > 90.0:
            continue  # the score knows the road up to 100 m
        x, y = ego_corners(verdict.pose_at(moment)).T
        assert not shapely.contains_xy(road, x, y).all()
        x, y = ego_corners(verdict.pose_at(moment - 0.1)).T
        assert shapely.contains_xy(road, x, y).all()
        checked += 1
    assert checked > 3


def test_pages_of_a_planner_with_proposals_and_of_one_without(root, scene, golden_rows, pool):
    plans, _, _ = golden_rows
    pages = ScenePages(root, "mini", pool, SMALL)
    drawn = pages.draw(scene, {"one": plans[1:2], "many": plans[:20]})
    assert list(drawn) == ["human", "one", "many"]
    assert {page.shape for page in drawn.values()} == {(504, 60 + 400 + 427, 3)}
    again = ScenePages(root, "mini", pool, SMALL).draw(scene, {"one": plans[1:2], "many": plans[:20]})
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    without_pool = ScenePages(root, "mini", None, SMALL).draw(scene, {"one": plans[1:2]})
    red = np.array(palette.FAILURES["NC"])
    bar = [
        (np.abs(page.astype(int) - red).max(axis=-1) < 8).sum()
        for page in (drawn["one"], without_pool["one"])
    ]
    assert bar[0] > bar[1] + 100  # the pool's proposals that collide


def test_a_plan_called_human_must_be_the_driver_s(root, scene, golden_rows):
    plans, _, _ = golden_rows
    pages = ScenePages(root, "mini", None, SMALL)
    same = pages.draw(scene, {"human": scene.expert_plan[None]})
    assert list(same) == ["human"] and np.array_equal(same["human"], pages.draw(scene, {})["human"])
    with pytest.raises(PlansError, match="'human' is not what the log's driver did"):
        pages.draw(scene, {"human": plans[1:2]})


def test_a_missing_image_is_an_error_unless_allowed(world_folder, tmp_path, golden_rows):
    for name in ("maps", "navsim_logs"):
        shutil.copytree(world_folder / name, tmp_path / name)
    root = NavsimRoot(tmp_path)
    scene = next(root.scenes("mini"))
    with pytest.raises(SensorError, match="image is missing"):
        ScenePages(root, "mini", None, SMALL).draw(scene, {})
    allowed = PageSettings(allow_missing_sensors=True, height=400)
    assert ScenePages(root, "mini", None, allowed).draw(scene, {})["human"].shape == (504, 1020, 3)
    with pytest.raises(ValueError, match="choose one of"):
        PageSettings(cameras="rear")


def test_scenes_are_chosen_among_those_that_can_be_drawn(root, golden_rows, pool):
    plans, _, _ = golden_rows
    known = {"LTF": {TOKEN: plans[:1], "other": plans[:1]}}
    assert choose_tokens(root, "mini", 5, 0, known, pool) == [TOKEN]
    with pytest.raises(PlansError, match="not one that is known to LTF"):
        choose_tokens(root, "mini", 5, 0, {"LTF": {"other": plans[:1]}})
    short = SceneFilter(num_future_frames=0, frame_interval=1)
    assert len(list(root.refs("mini", short))) > 1
    for count in (5, None):
        assert choose_tokens(root, "mini", count, 0, {}, None, short) == [TOKEN]
    assert root.problems == []
    late = SceneFilter(
        num_future_frames=0, frame_interval=1, tokens=[list(root.refs("mini", short))[-1].token]
    )
    with pytest.raises(PlansError, match="1 scenes, but not one with the 10 frames after now"):
        choose_tokens(root, "mini", None, 0, {}, None, late)


def test_options_that_would_do_nothing_are_refused(capsys):
    words = ["--data-root=r", "--split=s", "--out=o"]
    for more, said in (
        (["--tokens", "a", "--scene-filter=f.yaml"], "--scene-filter: goes with scenes that are chosen"),
        (["--tokens", "a", "--seed=1"], "--seed: goes with --num"),
        (["--all", "--seed=1"], "--seed: goes with --num"),
        (["--worst=1", "--plans", "a=b.npz", "--seed=1"], "--seed: goes with --num"),
    ):
        with pytest.raises(SystemExit):
            tool.parse_args([*words, *more])
        assert said in capsys.readouterr().err
    assert tool.parse_args([*words, "--num=2", "--seed=1", "--scene-filter=f.yaml"]).seed == 1


def test_the_tool_draws_what_it_can_and_names_the_rest(world_folder, tmp_path, golden_rows, capsys):
    plans, _, _ = golden_rows
    path = write_plans(tmp_path / "plans.npz", **{TOKEN: plans[1]})
    out = tmp_path / "out"
    base = ["--data-root", str(world_folder), "--split", "mini", "--out", str(out)]
    arguments = [*base, "--plans", f"LTF + BeyondDrive={path}"]
    assert tool.main([*arguments, "--num", "3", "--cameras", "arc"]) == 0
    shown = read_picture_index(out)
    assert [(picture.token, picture.planner) for picture in shown] == [
        (TOKEN, "human"),
        (TOKEN, "LTF + BeyondDrive"),
    ]
    assert shown[1].path.name == f"{TOKEN}_{file_name('LTF + BeyondDrive')}.png"
    assert cv2.imread(str(shown[1].path)).shape == (1004, 60 + 900 + 1440, 3)
    capsys.readouterr()
    assert tool.main([*arguments, "--tokens", TOKEN, "0123456789abcdef"]) == 1
    said = capsys.readouterr()
    assert "2 pictures" in said.out and "scene 0123456789abcdef" in said.err
    other = write_plans(tmp_path / "other.npz", fedcba9876543210=plans[1])
    assert tool.main([*arguments, f"other={other}", "--tokens", TOKEN]) == 1
    said = capsys.readouterr()
    assert "2 pictures" in said.out and f"scene {TOKEN}: other has no plan of it" in said.err
    short = write_plans(tmp_path / "short.npz", **{TOKEN: plans[1], "another": plans[1][:5]})
    assert tool.main([*base, "--plans", f"LTF={short}"]) == 1  # before anything is drawn
    assert "short.npz: another: plans must have shape" in capsys.readouterr().err
    assert tool.main([*base, "--pool", str(tmp_path / "nothing")]) == 1
    assert "nothing" in capsys.readouterr().err


def test_all_cameras_are_drawn_where_they_look_and_one_may_lack_its_image(root, scene, world_folder):
    plan = scene.expert_plan[None].copy()
    pages = ScenePages(root, "mini", None, PageSettings("all", height=300))
    page = pages.draw(scene, {"one": plan})["one"]
    assert page.shape == (400 + 104, 60 + 300 + 480, 3)
    cells = page[84 : 84 + 3 * 88 + 12, 340:820].astype(int)

    def blue(row, column):
        cell = cells[row * 94 : row * 94 + 88, column * 162 : column * 162 + 156]
        return (cell[..., 2] - cell[..., 0] > 60).sum()

    assert blue(0, 1) > 100  # the plan lies ahead, in the front camera
    assert blue(2, 0) == blue(2, 1) == blue(2, 2) == 0
    image = world_folder / "sensor_blobs" / "mini" / scene.now["cams"]["CAM_B0"]["data_path"]
    hidden = image.rename(image.with_suffix(".hidden"))
    try:
        with pytest.raises(SensorError, match="image is missing"):
            pages.draw(scene, {})
        allowed = ScenePages(root, "mini", None, PageSettings("all", True, height=300))
        shown = allowed.draw(scene, {"one": plan})["one"]
        assert shown.shape == page.shape
        differs = (shown != page).any(axis=-1)[84:, 340:820]
        assert differs[2 * 94 : 2 * 94 + 88, 162 : 162 + 156].mean() > 0.9  # rear: no image
        differs[2 * 94 : 2 * 94 + 88, 162 : 162 + 156] = False
        assert not differs.any()
    finally:
        hidden.rename(image)


def test_plans_are_judged_by_epdms_too(root, scene, golden_rows):
    plans, _, names = golden_rows
    cache = build_metric_cache(scene, root.map(scene.map_location))
    verdicts = judge(score(cache, plans, version="v2"), cache)
    assert verdicts[names.index("human")].failed == ()
    failed = {column for verdict in verdicts for column in verdict.failed}
    assert {"LK", "HC", "DAC"} <= failed
    worst = next(verdict for verdict in verdicts if verdict.first == "LK")
    assert worst.color == palette.EXTENDED_FAILURES["LK"] and worst.moment is not None
    assert worst["LK"] == 0.0 and str(worst)
    pages = ScenePages(root, "mini", None, PageSettings(height=400, version="v2"))
    other = ScenePages(root, "mini", None, SMALL)
    some = {"many": plans[:20]}
    assert not np.array_equal(pages.draw(scene, some)["many"], other.draw(scene, some)["many"])


def test_the_worst_are_those_that_lose_most_and_the_score_decides_between_equals():
    columns = ("NC", "DAC", "PDMS")
    rows = {
        "kept": np.array([1.0, 1.0, 0.9]),
        "b": np.array([1.0, 0.0, 0.0]),
        "a": np.array([1.0, 0.0, 0.0]),
        "half": np.array([0.5, 0.5, 0.1]),
        "unknown": np.array([1.0, np.nan, 0.5]),
    }
    assert [s.token for s in worst_scenes(rows, columns, "DAC", 9)] == ["a", "b", "half"]
    assert worst_scenes(rows, columns, "PDMS", 3)[2] == ("half", 0.1, 3)
    with pytest.raises(PlansError, match="--column LK: there is no such column, choose one of NC, DAC, PDMS"):
        worst_scenes(rows, columns, "LK", 1)


def test_the_tool_draws_the_worst_of_a_planner(world_folder, tmp_path, golden_rows, capsys, scored):
    plans, values, _ = golden_rows
    off_road = int(np.flatnonzero(values[:, 1] == 0.0)[0])
    bad = write_plans(tmp_path / "bad.npz", **{TOKEN: plans[off_road]})
    out = tmp_path / "out"
    base = ["--data-root", str(world_folder), "--split", "mini", "--out", str(out)]
    worst = [*base, "--plans", f"bad={bad}", "--worst", "2"]
    assert tool.main([*worst, "--column", "DAC"]) == 0
    assert "only 1 of 1 scenes of bad lose anything in DAC" in capsys.readouterr().err
    shown = read_picture_index(out)
    assert [picture.path.name for picture in shown] == [f"1_{TOKEN}_human.png", f"1_{TOKEN}_bad.png"]
    times = {picture.path: picture.path.stat().st_mtime_ns for picture in shown}
    shown[0].path.unlink()  # as if the job had been killed
    assert tool.main([*worst, "--column", "DAC"]) == 0
    assert shown[0].path.exists()
    times[shown[1].path] = shown[1].path.stat().st_mtime_ns  # pages of a scene are drawn together
    times[shown[0].path] = shown[0].path.stat().st_mtime_ns
    assert tool.main([*worst, "--column", "DAC"]) == 0
    assert times == {path: path.stat().st_mtime_ns for path in times}
    write_plans(bad, **{TOKEN: plans[off_road][::-1].copy()})  # other plans: nothing is kept
    assert tool.main([*worst, "--column", "DAC", "--version", "v1"]) == 0
    assert all(path.stat().st_mtime_ns != time for path, time in times.items())
    assert tool.main([*worst, "--column", "XX"]) == 1
    assert "--column XX: there is no such column" in capsys.readouterr().err
    assert tool.main([*worst, "--of", "good"]) == 1
    assert "--of good: is none of --plans, choose one of bad" in capsys.readouterr().err


def test_the_tool_takes_scores_that_are_there(world_folder, tmp_path, capsys):
    path = tmp_path / "scores.csv"
    columns = "NC,DAC,DDC,TLC,EP,TTC,LK,HC,EC,EPDMS"
    path.write_text(f"token,log,{columns},error\n{TOKEN},x,1,1,1,1,1,1,0,1,,0.7,\n")
    out = tmp_path / "out"
    base = ["--data-root", str(world_folder), "--split", "mini", "--out", str(out), "--results", str(path)]
    assert tool.main([*base, "--worst", "3", "--column", "LK"]) == 0
    assert [picture.path.name for picture in read_picture_index(out)] == [f"1_{TOKEN}_human.png"]
    assert json.loads((out / "index.json").read_text())["made_from"]["settings"]["version"] == "v2"
    for wrong in (["--column", "LK"], ["--num", "0"], ["--worst", "1", "--cache-dir", "c"]):
        with pytest.raises(SystemExit):
            tool.main([*base, *wrong])


def test_planners_whose_pictures_would_have_one_name_are_refused(root, tmp_path, golden_rows):
    plans, _, _ = golden_rows
    for names in (["other", "LTF a", "ltf-A"], ["other", "Human"]):
        given = {name: {TOKEN: plans[:1]} for name in names}
        first = {"ltf-A": "LTF a", "Human": "human"}[names[-1]]
        with pytest.raises(PlansError, match=f"{first} and {names[-1]}: their pictures would have one"):
            draw_scenes(ScenePages(root, "mini", None, SMALL), [TOKEN], given, tmp_path)


def test_a_job_that_is_killed_leaves_no_page_of_other_plans(root, tmp_path, golden_rows, monkeypatch):
    plans, _, _ = golden_rows
    pages = ScenePages(root, "mini", None, SMALL)

    def draw(row, made_from, tokens=(TOKEN,)):
        draw_scenes(pages, tokens, {"one": {TOKEN: plans[row : row + 1]}}, tmp_path, made_from=made_from)
        return (tmp_path / f"{TOKEN}_one.png").read_bytes()

    def kill(*_):
        raise KeyboardInterrupt

    first = draw(0, {"plans": 0})
    with monkeypatch.context() as patched:
        patched.setattr(page_jobs, "save_png", kill)
        with pytest.raises(KeyboardInterrupt):
            draw(20, {"plans": 20})
    assert draw(20, {"plans": 20}) != first
    # A job with these plans and other scenes does not vouch for pages that it has not drawn.
    (tmp_path / f"{TOKEN}_one.png").write_bytes(first)
    (tmp_path / "index.json").unlink()
    (tmp_path / "mine.png").write_bytes(b"of somebody else")
    draw(20, {"plans": 20}, ["other"])
    assert draw(20, {"plans": 20}) != first
    assert (tmp_path / "mine.png").read_bytes() == b"of somebody else"
    # One with the same plans and more scenes keeps what is drawn.
    before = (tmp_path / f"{TOKEN}_one.png").stat().st_mtime_ns
    draw(20, {"plans": 20}, ["other"])
    draw(20, {"plans": 20}, ["other", TOKEN])
    assert (tmp_path / f"{TOKEN}_one.png").stat().st_mtime_ns == before


def test_pages_that_lacked_images_are_drawn_again_when_these_are_there(world_folder, tmp_path):
    for name in ("maps", "navsim_logs"):
        shutil.copytree(world_folder / name, tmp_path / name)
    page = tmp_path / "out" / f"{TOKEN}_human.png"

    def draw(cameras):
        settings = PageSettings(cameras, allow_missing_sensors=True, height=400)
        pages = ScenePages(NavsimRoot(tmp_path), "mini", None, settings)
        draw_scenes(pages, [TOKEN], {}, page.parent, made_from={"cameras": cameras})
        return page.read_bytes(), page.stat().st_mtime_ns

    for cameras in ("front", SURROUND):
        lacking = draw(cameras)
        assert draw(cameras) == lacking
        # (with the times of before)
        shutil.copytree(world_folder / "sensor_blobs", tmp_path / "sensor_blobs")
        whole = draw(cameras)
        assert whole[0] != lacking[0] and draw(cameras) == whole
        shutil.rmtree(tmp_path / "sensor_blobs")
