"""The whole method end to end, at the smallest size that has something to do in every stage."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from beyonddrive import cli
from beyonddrive.engine.config_files import recipes
from beyonddrive.engine.configs import load_config
from beyonddrive.openmmlab import MMDet3DError
from beyonddrive.registry import MODELS
from beyonddrive.tools import demo

pytest.importorskip("sumo", reason="the extra 'synth' is not installed")
ROWS = ("Human", "Constant velocity", "Ego-status MLP", "Generator", "LTF", "LTF + BeyondDrive")


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Names of the tools that the demo ran, in this process: importing torch anew for each takes longest."""
    names = []

    def run(command):
        verb, *args = command[len(demo.COMMAND) :]
        names.append(verb)
        if cli.main([verb, *args]) != 0:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "run", run)
    monkeypatch.setattr(demo, "run_at_once", lambda commands, at_once: [run(command) for command in commands])
    return names


@pytest.mark.slow
def test_the_demo_ends_with_its_table_and_does_nothing_twice(ran, tmp_path, capfd):
    args = ["--size", "smoke", "--num-workers", "0"]
    assert demo.main(args) == 0, capfd.readouterr().err[-3000:]
    assert set(ran) == {
        *("create-data", "cache-features", "cache-metrics", "train", "mine"),
        *("test", "visualize", "closed-loop", "report"),
    }
    table = (tmp_path / "work_dirs/demo/table.md").read_text()
    for row in ROWS:
        figures = re.search(rf"\| {re.escape(row)} \|(.*)", table)
        assert figures, f"no row {row} in\n{table}"
        values = [float(v) for v in re.findall(r"\d+\.\d+", figures.group(1))]
        assert len(values) >= 7 and all(0 <= v <= 100 for v in values)
    page = (tmp_path / "work_dirs/demo/report.html").read_text()
    assert "<img" in page
    for shown in (table, page, capfd.readouterr().out):
        assert "LTF + BeyondDrive minus LTF" in shown and "LTF minus Ego-status MLP" in shown
        assert "a second training may differ by more" in shown and "at this size: LTF minus" in shown
    stages = json.loads((tmp_path / "work_dirs/demo/stages.json").read_text())
    assert len(stages["seconds"]) == 9
    driven = json.loads((tmp_path / "work_dirs/demo/closed_loop/table/comparison.json").read_text())
    assert tuple(driven["groups"]["all"]["rows"]) == ROWS
    films = sorted(path.stem for path in (tmp_path / "work_dirs/demo").glob("*.webp"))
    assert films == sorted(Path(name).name for name in demo.ROWS.values())

    ran.clear()
    capfd.readouterr()
    assert demo.main(args) == 0
    assert capfd.readouterr().out.count(": complete (") == 9
    assert ran == ["report", "closed-loop"]

    assert demo.main([*args, "--seed", "1"]) == 1
    assert "--fresh" in capfd.readouterr().err


def test_a_stage_is_a_command_that_is_shown_and_its_failure_ends_the_demo(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        demo.run(demo.tool("create-data", "synth", "--num-scenes", 2))
    printed = capfd.readouterr()
    assert "$ beyonddrive create-data synth --num-scenes 2" in printed.out
    assert "--num-scenes 2: train, val and test" in printed.err
    broken = demo.Stage("break", lambda: [demo.tool("report", "--row", "no results")])
    monkeypatch.setattr(demo, "stages", lambda *_: [broken])
    assert demo.main([]) == 1
    assert "stage 'break' failed" in capfd.readouterr().err
    assert not demo.DEMO.joinpath("stages.json").exists()


def test_commands_at_once_end_together_and_the_hidden_ones_leave_their_output(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "COMMAND", ("python",))
    shown = [
        sys.executable,
        "-c",
        "import pathlib, time\nwhile not pathlib.Path('b').exists(): time.sleep(0.01)",
    ]
    hidden = [sys.executable, "other.py", "-"]
    Path("other.py").write_text("print('told'); open('b', 'w')")
    demo.run_at_once([shown, hidden], 2)
    (log,) = (tmp_path / "work_dirs" / "demo" / "logs").iterdir()
    assert log.read_text() == "told\n" and log.name in capfd.readouterr().out

    waits = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(subprocess.CalledProcessError):
        demo.run_at_once([[sys.executable, "-c", "raise SystemExit(3)"], waits], 2)


@pytest.mark.parametrize("runs", ["run(waits)", "run_at_once([waits, waits], 2)"])
def test_a_demo_that_is_killed_leaves_no_command_behind(runs, tmp_path):
    script = (
        "import sys\n"
        "from beyonddrive.tools import demo\n"
        "demo.COMMAND = ('python',)\n"
        "waits = [sys.executable, 'wait.py', '-']\n"
        f"demo.{runs}\n"
    )
    (tmp_path / "wait.py").write_text("import time\nprint('started')\ntime.sleep(100)\n")
    (tmp_path / "work_dirs/demo/logs").mkdir(parents=True)
    command = [sys.executable, "-c", script]
    unbuffered = {**os.environ, "PYTHONUNBUFFERED": "1"}
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=unbuffered)
    assert parent.stdout is not None
    while parent.stdout.readline() != "started\n":
        assert parent.poll() is None
    parent.terminate()
    assert parent.wait(timeout=30) == -signal.SIGTERM
    ended = threading.Thread(target=parent.stdout.read, daemon=True)  # (open while a command has it)
    ended.start()
    ended.join(30)
    assert not ended.is_alive()


def test_a_demo_that_cannot_be_deleted_is_not_taken_for_a_fresh_one(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "stages.json").write_text("{}")
    demo.DEMO.parent.mkdir()
    demo.DEMO.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(demo, "stages", lambda *_: pytest.fail("went on"))
    assert demo.main(["--fresh"]) == 1
    assert "symbolic link" in capfd.readouterr().err


def test_no_more_commands_run_at_once_than_are_told_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "COMMAND", ("python",))
    counts = (
        "import pathlib, sys, time\n"
        "here = pathlib.Path(sys.argv[1] + '.runs'); here.touch(); end = time.monotonic() + 60\n"
        "count = lambda kind: len(list(pathlib.Path('.').glob('*.' + kind)))\n"
        "runs = lambda: count('runs')\n"
        # (a start may take long; once two have met, nobody has to wait any more)
        "while runs() < 2 and not count('saw') and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "pathlib.Path(sys.argv[1] + '.saw').write_text(str(runs()))\n"
        "here.unlink()\n"
    )
    Path("counts.py").write_text(counts)
    demo.run_at_once([[sys.executable, "counts.py", str(number)] for number in range(5)], 2)
    saw = [int(path.read_text()) for path in Path().glob("*.saw")]
    assert len(saw) == 5 and max(saw) == 2


def test_the_error_of_a_hidden_command_names_the_file_with_its_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails = demo.tool_of("closed-loop run", "no/such_config")
    works = [sys.executable, "-c", "pass"]
    with pytest.raises(demo.DemoError, match=r"closed-loop-run-such_config\.txt has what it wrote"):
        demo.run_stage(demo.Stage("drive", lambda: [works, fails], at_once=2))
    told = (demo.DEMO / "logs" / "closed-loop-run-such_config.txt").read_text()
    assert "the following arguments are required: --scenarios, --out" in told


@pytest.mark.parametrize("rows", [demo.ROWS, demo.ROWS | demo.MORE_ROWS])
def test_every_planner_with_negatives_is_compared_with_the_same_without(rows):
    options = demo.report({}, rows)
    compared = {text.removeprefix("--difference=") for text in options if text.startswith("--difference=")}
    repelled = [row for row, name in rows.items() if "-beyonddrive_" in name]
    assert repelled and compared == {f"{row}={row.removesuffix(' + BeyondDrive')}" for row in repelled}
    for pair in compared:
        row, _, baseline = pair.partition("=")
        assert rows[row].replace("-beyonddrive_", "_") == rows[baseline]
    assert "--sight=LTF=Ego-status MLP" in options


def is_in_the_demo(config):
    """Whether the demo can compare a config's planner: it needs no extra nor the truth, and mines nothing."""
    try:
        MODELS.build(config.model)
    except MMDet3DError:
        return False
    return config.model.type != "PdmClosed" and "online_negatives" not in config.default_hooks


def test_all_planners_are_those_with_a_tiny_config(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmdet3d.models", None)  # the demo's environment has no mmdet3d
    tiny = [name for name in recipes("beyonddrive") if name.endswith("_synth.py")]
    wanted = {Path(name).stem for name in tiny if is_in_the_demo(load_config(name))}
    rows = {Path(name).name for name in (demo.ROWS | demo.MORE_ROWS).values()}
    assert rows == wanted
    stages = demo.stages_of_all_planners(demo.SIZES["smoke"], 0, 1)
    trained = {Path(c[4]).stem for s in stages if s.name.startswith("train") for c in s.commands()}
    assert trained == rows - {"human_synth", "constant_velocity_synth"}
    assert len({stage.name for stage in stages}) == len(stages)
