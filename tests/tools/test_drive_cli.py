"""``beyonddrive drive`` and the script that HUGSIM's launcher calls."""

import configparser
import json
import pickle
import re
import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from beyonddrive.apis import load_config
from beyonddrive.registry import MODELS
from beyonddrive.tests.deploy.drivers.conftest import observation
from beyonddrive.tests.deploy.drivers.test_hugsim_pipes import Simulator
from beyonddrive.tools import drive
from beyonddrive.tools._driver import open_driver

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tmp_path, blind_recipe):
    path = tmp_path / "weights.pth"
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(load_config(blind_recipe).model).state_dict(), "meta": {}}, path)
    return path


def _episode(folder, steps=2):
    folder.mkdir()
    simulator = Simulator(folder)

    def work():
        for step in range(steps):
            simulator.ask(observation(step))
        simulator.tell("Done")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return simulator, thread


@pytest.fixture
def threads():
    """What torch and OpenCV have before and after a test."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield before
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_a_plan_uses_as_many_threads_as_it_is_given(tmp_path, blind_recipe, checkpoint, threads, capsys):
    _, thread = _episode(tmp_path / "out", steps=1)
    words = [str(blind_recipe), str(checkpoint), "--protocol", "hugsim-pipes"]
    words += ["--output-dir", str(tmp_path / "out"), "--first-wait", "10"]
    assert drive.main([*words, "--threads", "3"]) == 0
    thread.join(10)
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (3, 3)
    with pytest.raises(SystemExit):
        drive.parse_args([*words, "--threads", "0"])
    assert "--threads: must be positive, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [[], ["--exported"], ["--as-released"]], ids=["plain", "fast", "released"]
)
def test_a_planner_drives_an_episode(tmp_path, blind_recipe, checkpoint, capsys, options):
    simulator, thread = _episode(tmp_path / "out")
    words = [str(blind_recipe), str(checkpoint), "--protocol", "hugsim-pipes"]
    assert drive.main([*words, "--output-dir", str(tmp_path / "out"), "--first-wait", "10", *options]) == 0
    thread.join(10)
    released = options == ["--as-released"]
    assert [answer.dtype for answer in simulator.answers] == [np.float32 if released else np.float64] * 2
    assert "2 plans in 1 session(s)" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/driver.json").read_text())
    assert report["planner"] == "EgoStatusMLP" and report["fallbacks"] == 0
    assert report["conventions"]["commands"] == (
        "always_forward" if options == ["--as-released"] else "faithful"
    )


def test_the_launchers_script_drives_in_the_folder_it_is_given(
    tmp_path, blind_recipe, checkpoint, monkeypatch
):
    """As ``zsh script <cuda id> <output dir>``, from another folder."""
    script = tmp_path / "drive hugsim.sh"
    monkeypatch.chdir(tmp_path)
    words = [blind_recipe.name, checkpoint.name, "--protocol", "hugsim-pipes", "--wait", "60"]
    assert drive.main([*words, "--write-script", str(script)]) == 0
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    simulator, thread = _episode(elsewhere / "scene_easy_00", 1)
    shell = shutil.which("zsh") or "sh"
    done = subprocess.run(
        [shell, str(script), "0", "scene_easy_00"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    thread.join(10)
    assert done.returncode == 0, done.stderr
    assert simulator.answers[0].shape == (8, 2)
    assert "1 plans in 1 session(s)" in done.stdout


def test_a_script_for_a_gpu_takes_the_launchers_id(tmp_path, blind_recipe, checkpoint):
    script = tmp_path / "s.sh"
    words = [str(blind_recipe), str(checkpoint), "--protocol=hugsim-pipes", "--device", "cuda"]
    assert drive.main([*words, f"--write-script={script}", "--seed", "3"]) == 0
    text = script.read_text()
    assert '--device "cuda:$1" --seed 3 --output-dir "$output"' in text and "--write-script" not in text


def test_no_script_is_written_for_a_checkpoint_that_is_not_there(tmp_path, blind_recipe, capsys):
    script = tmp_path / "s.sh"
    words = [str(blind_recipe), str(tmp_path / "epoch_99.pth"), "--protocol", "hugsim-pipes"]
    assert drive.main([*words, "--write-script", str(script)]) == 1
    assert "epoch_99.pth: no such checkpoint" in capsys.readouterr().err and not script.exists()


def test_graph_files_drive_like_their_planner(tmp_path, blind_recipe, checkpoint):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from beyonddrive.deploy.drivers.self_test import made_up_frame
    from beyonddrive.tools import export

    plans = []
    for name in (None, "planner.onnx", "planner.pt2"):
        if name is not None:
            assert export.main([str(blind_recipe), str(checkpoint), str(tmp_path / name)]) == 0
        driver = open_driver(blind_recipe, checkpoint if name is None else tmp_path / name)
        driver.reset("s")
        plans.append(driver.plan(made_up_frame(driver.inputs.rig, "s")))
    assert [plan.source for plan in plans] == ["planner"] * 3
    assert max(np.abs(plan.poses - plans[0].poses).max() for plan in plans) < 1e-4


def test_options_that_a_graph_file_does_not_follow_are_named(tmp_path, blind_recipe, checkpoint, capsys):
    """Its plans are those of the model that was exported, whatever the config says now."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from beyonddrive.apis import init_planner
    from beyonddrive.deploy import PlannerGraph, write_graph
    from beyonddrive.tools import export

    turned = {"model.calibration.turn": 0.5, "model.calibration.stretch": 1.0}
    for name in ("planner.onnx", "planner.pt2"):
        path = tmp_path / name
        assert export.main([str(blind_recipe), str(checkpoint), str(path)]) == 0
        open_driver(blind_recipe, path)
        assert "as it was exported" not in capsys.readouterr().err
        open_driver(blind_recipe, path, options=turned)
        said = capsys.readouterr().err
        assert f"drive: {path}: plans as it was exported, by a model with calibration" in said
        assert "(not 0.5)" in said and "export it anew" in said
    untold = tmp_path / "before.pt2"
    write_graph(PlannerGraph(init_planner(blind_recipe, checkpoint)), untold, 1)
    open_driver(blind_recipe, untold)
    assert "as it was exported" not in capsys.readouterr().err
    open_driver(blind_recipe, untold, options=turned)
    said = "whatever model.calibration.turn, model.calibration.stretch says, and does not tell how"
    assert f"drive: {untold}: plans as it was exported, {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--protocol", "hugsim-pipes"], "needs --output-dir, or --write-script"),
        (["--protocol", "alpasim", "--output-dir", "x"], "--output-dir: goes with --protocol hugsim-pipes"),
        (["--protocol", "hugsim-pipes", "--output-dir", "x", "--follow-plan"], "goes with --variant garage"),
        (["--protocol", "alpasim", "--as-released"], "goes with --protocol hugsim-pipes or hugsim-http"),
        (["--protocol", "hugsim-http", "--lidar", "depth"], "--lidar: goes with --protocol hugsim-pipes"),
        (["--protocol", "hugsim-http", "--give-up", "3"], "--give-up: goes with --protocol hugsim-pipes"),
        (
            ["--protocol", "alpasim", "--first-wait", "3"],
            "--first-wait: goes with --protocol hugsim-pipes or",
        ),
        (["--protocol", "alpasim", "--port", "70000"], "--port: must be 0 to 65535, got 70000"),
        (["--protocol", "alpasim", "--port", "-1"], "--port: must be 0 to 65535, got -1"),
        (["--protocol", "alpasim", "--max-workers", "0"], "--max-workers: must be positive, got 0"),
        (["--protocol", "hugsim-http", "--bind", "0.0.0.0"], "--bind: goes with --protocol alpasim"),
        (["--protocol", "alpasim", "--token-file", "x"], "--token-file: goes with --protocol hugsim-http"),
        (
            ["--protocol", "hugsim-http", "--as-released", "--rig", "synth"],
            "--rig: goes with drivers that are",
        ),
        (
            ["--protocol", "hugsim-pipes", "--write-script", "x", "--report-dir", "y"],
            "--report-dir: every episode of a script would write to it",
        ),
        (["--protocol", "hugsim-pipes", "--write-s", "x"], "unrecognized arguments: --write-s"),
        (["--protocol", "hugsim-pipes", "--write-script", "x", "--dev", "cuda"], "arguments: --dev"),
        (["--protocol", "carrier-pigeon"], "invalid choice"),
    ],
)
def test_command_lines_that_make_no_sense(words, said, capsys):
    with pytest.raises(SystemExit):
        drive.main(["config.py", "weights.pth", *words])
    assert said in capsys.readouterr().err


def test_only_this_machine_is_served_unless_it_is_told_otherwise():
    words = ["config.py", "weights.pth", "--protocol", "alpasim"]
    assert drive.parse_args(words).bind == "127.0.0.1"
    assert drive.parse_args([*words, "--bind", "0.0.0.0"]).bind == "0.0.0.0"


def test_the_recipe_of_a_container_serves_where_the_challenge_says():
    """The entry point as a shell reads it, on the image that we build."""
    page = (ROOT / "docs" / "drivers.md").read_text()
    recipe = next(block for block in page.split("```")[1::2] if "FROM " in block)
    given = {"ALPASIM_DRIVER_HOST": "0.0.0.0", "ALPASIM_DRIVER_PORT": "7001"}
    shown = (
        recipe.partition("ENTRYPOINT exec ")[2]
        .replace("\\\n", " ")
        .replace("beyonddrive", "printf '%s\\n'", 1)
    )
    words = subprocess.run(["sh", "-c", shown], env=given, capture_output=True, text=True, check=True)
    verb, *rest = words.stdout.splitlines()
    args = drive.parse_args(rest)
    assert (verb, args.protocol, args.bind, args.port) == ("drive", "alpasim", "0.0.0.0", 7001)
    copied = re.search(r"COPY (\S+) (\S+)", recipe)
    image = (ROOT / "docker" / "Dockerfile").read_text()
    assert copied.groups() == (str(args.checkpoint), "/workspace/") and "WORKDIR /workspace\n" in image
    assert "WORKDIR /opt/beyonddrive\n" in image and "'/opt/beyonddrive[alpasim]'" in recipe
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    assert "alpasim" in extras["options.extras_require"]


def test_a_planner_that_does_not_plan_is_known_before_a_simulator_waits(
    tmp_path, blind_recipe, checkpoint, capsys
):
    content = torch.load(checkpoint)
    for weights in content["state_dict"].values():
        weights.fill_(1e38)  # (which loads, and plans NaN)
    torch.save(content, checkpoint)
    words = ["--protocol", "hugsim-pipes", "--output-dir", str(tmp_path / "out"), "--first-wait", "0.2"]
    assert drive.main([str(blind_recipe), str(checkpoint), *words]) == 1
    assert "self-test: EgoStatusMLP does not plan" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_cannot_drive_is_one_line(tmp_path, blind_recipe, checkpoint, capsys):
    words = ["--protocol", "hugsim-pipes", "--output-dir", str(tmp_path / "out")]
    assert drive.main([str(blind_recipe), *words]) == 1
    assert "EgoStatusMLP has weights: give its checkpoint" in capsys.readouterr().err
    assert drive.main([str(blind_recipe), str(checkpoint), *words, "--rig", "bicycle"]) == 1
    assert "there is no rig 'bicycle'" in capsys.readouterr().err
    assert drive.main([str(blind_recipe), str(tmp_path / "none.onnx"), *words]) == 1
    assert "none.onnx: there is no such file" in capsys.readouterr().err
    for option in (["--exported"], ["--device", "cuda"]):
        assert drive.main([str(blind_recipe), str(tmp_path / "none.onnx"), *words, *option]) == 1
        assert f"as it is on the CPU; leave {' '.join(option)} out" in capsys.readouterr().err
    (tmp_path / "bad.onnx").write_bytes(pickle.dumps(1))
    assert drive.main([str(blind_recipe), str(tmp_path / "bad.onnx"), *words]) == 1
    assert "bad.onnx: onnxruntime cannot read it" in capsys.readouterr().err
    assert drive.main(["human_synth", *words]) == 1
    assert "reads the future" in capsys.readouterr().err


def test_a_token_file_that_holds_none_is_refused(tmp_path, blind_recipe, checkpoint, capsys):
    pytest.importorskip("hugsim_client", reason="the extra 'hugsim' is not installed")
    (tmp_path / "token").write_text("\n")
    words = [str(blind_recipe), str(checkpoint), "--protocol", "hugsim-http"]
    assert drive.main([*words, "--token-file", str(tmp_path / "token")]) == 1
    assert "token: holds no token; leave --token-file out" in capsys.readouterr().err


def test_over_http_a_server_is_waited_for_as_long_as_told(blind_recipe, checkpoint, monkeypatch):
    pytest.importorskip("hugsim_client", reason="the extra 'hugsim' is not installed")
    from beyonddrive.deploy.drivers import hugsim_http
    from beyonddrive.deploy.drivers.run_report import RunReport

    waits = []
    monkeypatch.setattr(
        hugsim_http, "drive_http", lambda http, *_: waits.append(http.first_wait) or RunReport(None, {})
    )
    words = [str(blind_recipe), str(checkpoint), "--protocol", "hugsim-http"]
    assert drive.main(words) == 0 and drive.main([*words, "--first-wait", "7"]) == 0
    assert waits == [0.0, 7.0]
