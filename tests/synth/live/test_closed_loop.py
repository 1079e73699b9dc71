"""``beyonddrive closed-loop``: scenarios, run, compare, serve; films; and what it refuses."""

import csv
import http.client
import json
import pickle
import re
import shutil
import socket
import threading
from functools import partial

import numpy as np
import pytest
import yaml
from PIL import Image

from beyonddrive.apis import load_config
from beyonddrive.engine.sweeps.folder import recipe_digest
from beyonddrive.plugins.pdm_closed.planner import PdmClosed
from beyonddrive.registry import MODELS
from beyonddrive.synth.live import batch, episode_files, run_folder, serve_http
from beyonddrive.synth.live.drive import LiveSettings, Stage
from beyonddrive.synth.live.reference import PdmClosedDriver, drive_by_sumo
from beyonddrive.synth.live.scenario import TOWNS
from beyonddrive.tests.synth.live.conftest import Killed, points_of
from beyonddrive.tools import _live_crew, closed_loop
from beyonddrive.tools._live_crew import PlannerSpec, crew_of

QUICK = ["--max-steps", "3", "--num-workers", "0"]


@pytest.fixture(scope="module")
def results(live_folder, tmp_path_factory):
    """The straight-on planner in two easy scenarios, with films, and what SUMO's driver did there."""
    out = tmp_path_factory.mktemp("results")
    words = ["--scenarios", str(live_folder), "--difficulty", "easy", "--image-size", "64x36", *QUICK]
    straight = ["run", "constant_velocity_synth", *words, "--out", str(out / "straight"), "--video"]
    assert closed_loop.main(straight) == 0
    human = ["run", "human_synth", *words, "--out", str(out / "human"), "--video", "hard"]
    assert closed_loop.main(human) == 0
    return out, straight


def test_a_run_leaves_a_line_per_episode_and_their_means(results):
    out, _ = results
    with (out / "straight" / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"][-7:] for row in rows] == ["easy_00", "easy_01"]
    assert {row["steps"] for row in rows} == {"3"} and {row["fallbacks"] for row in rows} == {"0"}
    figures = json.loads((out / "straight" / "summary.json").read_text())
    mean = sum(float(row["hdscore"]) for row in rows) / 2
    assert figures["groups"]["all"]["hdscore"]["mean"] == pytest.approx(mean)
    assert figures["recipe"] == recipe_digest(load_config("constant_velocity_synth"))
    assert figures["checkpoint_file"] is None
    settings = json.loads((out / "straight" / "settings.json").read_text())
    assert settings["recipe"] == figures["recipe"] and settings["scenarios"] == 2 and settings["sumo"]
    assert settings["config"] == "constant_velocity_synth" and settings["image_size"] == [64, 36]
    assert settings["traffic_version"] == run_folder.TRAFFIC_VERSION


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"settings": 3}'])
@pytest.mark.parametrize("name", ["scenarios.json", ".scenarios.json"])
def test_a_list_that_is_damaged_is_named(tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert closed_loop.main(["scenarios", "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path / name}: does not say what the scenarios there were made with" in told


def test_one_run_at_a_time_drives_into_a_folder(results, live_folder, capsys):
    folder = results[0] / "straight"
    scenarios = ["--scenarios", str(live_folder), "--out", str(folder)]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with run_folder.alone_in(folder):
        assert closed_loop.main(["run", "constant_velocity_synth", *scenarios, "--max-steps", "3"]) == 1
        assert closed_loop.main(["serve", "--protocol", "http", *scenarios]) == 1
        told = capsys.readouterr().err
        assert told.count(f"{folder}: another run is at work in it; wait until it has ended") == 2
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_one_process_at_a_time_writes_scenarios_into_a_folder(tmp_path, capsys):
    out = tmp_path / "scenarios"
    with run_folder.alone_in(out):
        assert closed_loop.main(["scenarios", "--out", str(out)]) == 1
    assert f"{out}: another run is at work in it; wait until it has ended" in capsys.readouterr().err
    (out / "mine.txt").write_text("notes")
    assert closed_loop.main(["scenarios", "--out", str(out)]) == 1
    assert "is not empty and holds no scenarios" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_films_have_a_picture_per_step(results):
    films = sorted((results[0] / "straight").rglob("video.webp"))
    assert len(films) == 2 and not list((results[0] / "human").rglob("video.webp"))
    with Image.open(films[0]) as film:
        first = film.convert("RGB").tobytes()
        assert film.n_frames == 3 and film.info["duration"] == 250
        film.seek(2)
        assert film.convert("RGB").tobytes() != first
        # The front camera and the bird's-eye view beside each other, and lines below.
        assert film.size == (640 + 360, 360 + 46)


def test_a_video_that_was_not_asked_for_before_is_made(results, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    for name in ("settings.json", "seed_0"):
        source = results[0] / "straight" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / "out" / name)
    wanted = {path.parent.name: path.read_bytes() for path in (tmp_path / "out").rglob(episode_files.VIDEO)}
    for path in (tmp_path / "out").rglob(episode_files.VIDEO):
        path.unlink()
    words = [*results[1][: results[1].index("--out")], "--out", str(tmp_path / "out"), "--video"]
    assert closed_loop.main(words) == 0
    assert wanted == {
        path.parent.name: path.read_bytes() for path in (tmp_path / "out").rglob(episode_files.VIDEO)
    }
    # An episode that the same seed does not give again keeps its figures, and is named.
    first = min((tmp_path / "out").rglob(episode_files.EPISODE))
    first.write_text(json.dumps({**json.loads(first.read_text()), "record": "another"}))
    first.with_name(episode_files.VIDEO).unlink()
    capsys.readouterr()
    assert closed_loop.main(words) == 1
    assert "easy_00.yaml: no video: driven again it went otherwise than before" in capsys.readouterr().err
    assert (tmp_path / "out" / "summary.json").exists() and not first.with_name(episode_files.VIDEO).exists()


def test_a_second_run_reads_what_is_done_and_refuses_other_settings(results, capsys):
    out, words = results
    before = {path: path.stat().st_mtime_ns for path in out.rglob(episode_files.EPISODE)}
    assert closed_loop.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob(episode_files.EPISODE)} == before
    assert closed_loop.main([*words, "--preset", "main"]) == 1
    assert "made with another hugsim; take another --out" in capsys.readouterr().err


def test_one_failure_leaves_no_figures_of_the_others_until_it_is_made_again(
    live_folder, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    words = ["run", "constant_velocity_synth", "--scenarios", str(live_folder), "--difficulty", "easy"]
    words += ["--image-size", "32x18", "--out", str(out), *QUICK]
    observe = Stage.frame

    def fails(stage, seen, session):
        if session.endswith("easy_01") and seen.time > 0.3:
            raise RuntimeError("no light")
        return observe(stage, seen, session)

    out.mkdir()
    run_folder.claim(out, {"config": "another"})  # (a run that has driven nothing)
    (out / "summary.json").touch()  # (as of a run with fewer seeds)
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "frame", fails)
        assert closed_loop.main(words) == 1
    told = capsys.readouterr().err
    (kept,) = out.rglob(episode_files.FAILED_RECORD)
    assert f"easy_01.yaml: no episode: RuntimeError: no light; its record up to there is {kept}" in told
    assert f"{out}: 1 of 2 episodes failed: no figures were written" in told
    assert "the 1 others are kept, and the same command makes those that failed again" in told
    assert not list(out.glob("summary.json")) and not list(out.glob("episodes.csv"))
    # HUGSIM's scorer finds the finished one alone.
    assert [path.parent.name[-7:] for path in out.rglob("data.pkl")] == ["easy_00"]
    assert closed_loop.main(words) == 0
    assert json.loads((out / "summary.json").read_text())["groups"]["all"]["scenarios"] == 2
    assert not list(out.rglob("failed.*"))


def test_a_killed_worker_costs_what_was_not_done_and_no_more(live_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    words = ["run", "constant_velocity_synth", "--scenarios", str(live_folder), "--out", str(out)]
    words += ["--difficulty", "easy", "medium", "--image-size", "32x18", "--max-steps", "2"]
    jobs = batch.jobs_of(live_folder, out, LiveSettings(), (0,), ("easy", "medium"))
    first, second, third = (job.folder / episode_files.EPISODE for job in jobs)
    with monkeypatch.context() as patch:
        crew = batch.Crew(partial(Killed, first), points_of)
        patch.setattr(_live_crew, "crew_of", lambda spec, controller: crew)
        assert closed_loop.main([*words, "--num-workers", "2"]) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("closed-loop: ")]
    for line, job in zip(told, jobs[1:], strict=False):
        assert f"{job.scenario.name}: no episode: not driven to its end: a worker process was killed" in line
    assert len(told) == 3 and "2 of 3 episodes failed: no figures were written" in told[2]
    assert first.exists() and not second.exists() and not third.exists()
    assert not (out / "summary.json").exists() and not (out / "episodes.csv").exists()
    # Nothing half-written is left of what was lost.
    assert not [path for job in jobs[1:] for path in job.folder.rglob("*")]
    kept = {path: path.stat().st_mtime_ns for path in first.parent.iterdir()}
    assert closed_loop.main([*words, "--num-workers", "0"]) == 0
    assert {path: path.stat().st_mtime_ns for path in first.parent.iterdir()} == kept
    assert second.exists() and third.exists()
    assert json.loads((out / "summary.json").read_text())["scenarios"] == 3


def test_switches_act_and_are_named_with_the_figures(results, tmp_path, capsys):
    out, words = results
    usual = json.loads((out / "straight" / "summary.json").read_text())
    assert usual["preset"] == "pr57 with resets=1" and usual["hugsim"]["controller"] == "pr57"
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", usual["date"])
    run = [*words[: words.index("--out")], "--out", str(tmp_path / "run")]
    switches = ["--switch", "comfort_lon_max=0.001", "--switch", "controller=resampled"]
    capsys.readouterr()
    assert closed_loop.main([*run, *switches]) == 0
    name = "pr57 with controller=resampled, comfort_lon_max=0.001, resets=1"
    assert f"HUGSIM's switches: preset {name}\n" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["preset"] == name and found["hugsim"]["controller"] == "resampled"
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["hugsim"] == found["hugsim"]
    assert closed_loop.main(["compare", "--row", f"straight={tmp_path}/run"]) == 0
    assert "HUGSIM's switches: controller=resampled, comfort_lon_max=0.001" in capsys.readouterr().out
    # What is driven one way is not gone on with another way.
    assert closed_loop.main([*run, *switches, "--switch", "plan_anchor=pre_step"]) == 1
    assert "made with another hugsim" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [["run", "constant_velocity_synth"], ["serve", "--protocol", "http"]])
@pytest.mark.parametrize(
    "switch, said",
    [
        ("tracker=main", "tracker: no such switch; there are controller, comfort_lon_max, "),
        ("controller=mpc", "controller: must be one of first_release, main, pr57, resampled, got 'mpc'"),
        ("plan_timestep=soon", "plan_timestep: must be a positive number, got 'soon'"),
        ("comfort_lon_max=inf", "comfort_lon_max: must be a positive number, got inf"),
        ("resets=3", "resets: must be one of 1, 2, got '3'"),
        ("scorer_box", "scorer_box: a switch is NAME=VALUE; there are controller"),
    ],
)
def test_switches_that_are_none_are_one_line(verb, switch, said, live_folder, tmp_path, capsys):
    words = [*verb, "--scenarios", str(live_folder), "--out", str(tmp_path / "out"), "--switch", switch]
    assert closed_loop.main(words) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_switch_comes_before_what_a_protocol_has():
    words = ["serve", "--scenarios", "scenarios", "--out", "out", "--protocol", "pipes"]
    for given, resets in (([], 2), (["--switch", "resets=1"], 1)):
        args = closed_loop.parse_args([*words, *given])
        assert closed_loop.settings_of(args, False, resets=2).hugsim.resets == resets


def test_rows_beside_each_other(results, tmp_path, capsys):
    out, _ = results
    words = ["compare", "--row", f"straight={out}/straight", "--row", f"SUMO={out}/human"]
    assert closed_loop.main([*words, "--out", str(tmp_path)]) == 0
    assert "less straight" in capsys.readouterr().out
    text = (tmp_path / "comparison.json").read_text()
    table = json.loads(text, parse_constant=pytest.fail)["groups"]["easy"]["rows"]
    apart = table["SUMO"]["hdscore"]["mean"] - table["straight"]["hdscore"]["mean"]
    assert table["SUMO"]["difference"]["hdscore"]["mean"] == pytest.approx(apart)
    assert len((tmp_path / "pairs.csv").read_text().splitlines()) == 3
    assert closed_loop.main(["compare", "--row", "straight"]) == 1
    assert "expected NAME=RESULTS" in capsys.readouterr().err
    assert closed_loop.main([*words, "--row", f"SUMO={out}/straight"]) == 1
    assert "two rows have one name" in capsys.readouterr().err


def test_who_replays_a_log_is_driven_for_by_what_it_is_whatever_its_name(tmp_path, monkeypatch):
    class SlowPdmClosed(PdmClosed):
        pass

    monkeypatch.setitem(MODELS.module_dict, "SlowPdmClosed", SlowPdmClosed)
    renamed = tmp_path / "renamed.py"
    renamed.write_text(
        "_base_ = 'beyonddrive::pdm_closed/pdm_closed_synth.py'\nmodel = dict(type='SlowPdmClosed')"
    )
    assert crew_of(PlannerSpec(str(renamed), None), "pr57").make_driver is PdmClosedDriver
    assert crew_of(PlannerSpec("human_synth", None), "pr57").drives is drive_by_sumo
    spec = PlannerSpec("constant_velocity_synth", None)
    crew = crew_of(spec, "main")
    assert crew.make_driver is spec
    assert crew.answer(np.zeros((8, 3)))[0].tolist() == [1e-3, 0.0]  # (as that controller stands)


@pytest.mark.parametrize("config", ["pdm_closed_synth", "human_synth"])
def test_weights_for_who_has_none_are_refused(config, live_folder, tmp_path, capsys):
    weights = tmp_path / "some.pth"
    weights.write_bytes(b"weights")
    words = ["--scenarios", str(live_folder), "--out", str(tmp_path / "out"), *QUICK]
    assert closed_loop.main(["run", config, str(weights), *words]) == 1
    assert "some.pth: " in (error := capsys.readouterr().err) and "no weights" in error
    assert closed_loop.main(["run", config, *words, "--exported"]) == 1
    assert "--exported: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_scenarios_are_made_once_and_go_on_after_a_kill(tmp_path, capsys):
    out = tmp_path / "made"
    words = ["scenarios", "--out", str(out), "--per-kind", "1", "--towns", "1", "--num-workers", "0"]
    assert closed_loop.main(words) == 0
    assert "1 easy, 1 medium, 1 hard, 1 extreme scenarios in 1 towns" in capsys.readouterr().out
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert len([path for path in files if path.suffix == ".yaml"]) == 4
    # As a kill leaves it that comes before the last scenario.
    (out / "scenarios.json").rename(out / ".scenarios.json")
    (last,) = out.glob("extreme/*.yaml")
    content = last.read_bytes()
    last.unlink()
    assert closed_loop.main(words) == 0
    assert last.read_bytes() == content
    kept = [path for path in files if path.stat().st_mtime_ns == files[path]]
    assert len([path for path in kept if path.suffix == ".yaml"]) == 3
    assert closed_loop.main([*words, "--seed", "4"]) == 1
    assert "the scenarios there have another seed" in capsys.readouterr().err
    assert closed_loop.main([*words, "--per-kind", "0"]) == 1
    assert "expected one scenario per town or more" in capsys.readouterr().err


def test_bad_input_is_one_line_and_leaves_nothing(live_folder, tmp_path, capsys):
    (known,) = [path for path in live_folder.glob("hard/*.yaml") if path.stem.endswith("hard_01")]
    for change, said in (
        (lambda c: c.update(weather="rain"), "does not know the key 'weather'"),
        (
            lambda c: c["events"][0].update(kind="meteor"),
            "kind must be one of lead, jaywalk, cut_in, late_turn",
        ),
        (lambda c: c.update(vehicles_per_km="many"), "vehicles_per_km: expected a number"),
    ):
        content = yaml.safe_load(known.read_text())
        change(content)
        folder = tmp_path / "scenarios"
        folder.mkdir(exist_ok=True)
        (folder / "odd.yaml").write_text(yaml.safe_dump(content))
        words = ["run", "constant_velocity_synth", "--scenarios", str(folder), "--out", str(tmp_path / "out")]
        assert closed_loop.main([*words, *QUICK]) == 1
        told = capsys.readouterr().err
        assert f"{folder}/odd.yaml" in told and said in told and "Traceback" not in told
        assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        closed_loop.main([*words, "--difficulty", "impossible"])
    assert "invalid choice: 'impossible'" in capsys.readouterr().err
    assert closed_loop.main(["run", "ltf_tiny_1xb16-12e_synth", "--scenarios", str(live_folder),
                             "--out", str(tmp_path / "out"), *QUICK]) == 1  # fmt: skip
    assert "has weights: give its checkpoint" in capsys.readouterr().err


def test_the_server_ends_with_the_last_scenario_and_sums_up(live_folder, tmp_path, monkeypatch, capsys):
    hugsim_client = pytest.importorskip("hugsim_client", reason="the extra 'hugsim' is not installed")
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    monkeypatch.setenv("IN_HF_SPACE", "false")
    made, threads = serve_http.http_server, {}

    def drive(port):
        client = hugsim_client.HugsimClient(f"http://127.0.0.1:{port}", "")
        client.reset_env()
        while not client.execute_action(np.column_stack([np.zeros(8), np.arange(1.0, 9.0)])).done:
            pass

    def serve(simulator, host, port):
        server = made(simulator, host, port)
        free = server.server_address[1]
        threads[free] = threading.Thread(target=drive, args=(free,), daemon=True)
        threads[free].start()
        return server

    monkeypatch.setattr(serve_http, "http_server", serve)
    words = ["serve", "--protocol", "http", "--scenarios", str(live_folder), "--difficulty", "medium"]
    words += ["--out", str(tmp_path / "out"), "--port", "0", "--once", "--max-steps", "2"]
    assert closed_loop.main(words) == 0
    [(port, thread)] = threads.items()
    thread.join(30)
    assert f"http://127.0.0.1:{port}: 1 scenarios" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["steps"] == 2
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["pivot"] == "camera" and settings["hugsim"]["resets"] == 1


def test_the_server_goes_on_after_a_scenario_without_a_town_and_ends_with_1(
    live_folder, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    folder = tmp_path / "scenarios"
    shutil.copytree(live_folder / "easy", folder)
    (folder / TOWNS).symlink_to(live_folder / TOWNS)
    first, last = sorted(folder.glob("*.yaml"))
    first.write_text(yaml.safe_dump(yaml.safe_load(first.read_text()) | {"town": "atlantis"}))
    made = serve_http.http_server
    done, clients = [], []

    def drive(port):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        plan = {"data": [[0, 1], [0, 2]], "shape": [2, 2], "dtype": "float64"}
        line.request(
            "POST", "/execute_action", json.dumps({"plan_traj": json.dumps(plan), "transaction_id": "a"})
        )
        done.append(pickle.loads(line.getresponse().read())["done"])

    def serve(simulator, host, port):
        server = made(simulator, host, port)
        clients.append(threading.Thread(target=drive, args=(server.server_address[1],), daemon=True))
        clients[0].start()
        return server

    monkeypatch.setattr(serve_http, "http_server", serve)
    words = ["serve", "--protocol", "http", "--scenarios", str(folder), "--out", str(tmp_path / "out")]
    with caplog.at_level("INFO"):
        assert closed_loop.main([*words, "--port", "0", "--once", "--max-steps", "1"]) == 1
    clients[0].join(60)
    assert done == [True] and "there is no such town" in caplog.text
    written = [path.parent.name for path in (tmp_path / "out").rglob(episode_files.EPISODE)]
    assert len(written) == 1 and written[0].endswith(last.stem)


def test_a_server_that_is_told_to_end_writes_the_figures_of_what_is_done(live_folder, tmp_path, monkeypatch):
    """As by Ctrl-C: without --once somebody has to end it."""
    told = {}
    monkeypatch.setattr(closed_loop.signal, "signal", lambda number, handler: told.update({number: handler}))
    made = serve_http.http_server

    def serve(simulator, host, port):
        server = made(simulator, host, port)

        def drive_and_end():
            plan = {"data": [[0, 1], [0, 2]], "shape": [2, 2], "dtype": "float64"}
            body = json.dumps({"plan_traj": json.dumps(plan), "transaction_id": "a"}).encode()
            simulator.ask(simulator.act, body)
            told[closed_loop.signal.SIGTERM](15, None)

        server.handle_request = drive_and_end
        return server

    monkeypatch.setattr(serve_http, "http_server", serve)
    words = ["serve", "--protocol", "http", "--scenarios", str(live_folder), "--difficulty", "medium"]
    assert closed_loop.main([*words, "--out", str(tmp_path), "--port", "0", "--max-steps", "1"]) == 0
    figures = json.loads((tmp_path / "summary.json").read_text())
    assert figures["steps"] == 1
    # (the scorer needs three points)
    assert figures["unscored"] == {"no key frame has a plan of three or more points": 1}


def test_the_server_listens_on_this_machine_alone():
    words = ["serve", "--protocol", "http", "--scenarios", "scenarios", "--out", "out"]
    assert closed_loop.parse_args(words).host == "127.0.0.1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["http", "--planner", "x.sh"], "--planner: goes with --protocol pipes"),
        (["http", "--deadline", "5"], "--deadline: goes with --protocol pipes"),
        (["pipes", "--token-file", "x"], "--token-file: goes with --protocol http"),
        (["pipes", "--host", "0.0.0.0"], "--host: goes with --protocol http"),
        (["pipes", "--device", "1"], "--device: goes with --planner"),
        (["pipes", "--deadline", "nan"], "--deadline: must be positive, got nan"),
        (["pipes", "--deadline", "0"], "--deadline: must be positive, got 0.0"),
        (["http", "--port", "70000"], "--port: must be 0 to 65535, got 70000"),
    ],
)
def test_options_of_the_server_that_do_nothing_are_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        closed_loop.parse_args(["serve", "--scenarios", "s", "--out", "o", "--protocol", *words])
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-steps", "0"], "--max-steps: must be 1 to 400, got 0"),
        (["--max-steps", "500"], "--max-steps: must be 1 to 400, got 500"),
        (["--image-size", "0x9"], "--image-size: must be a pixel or more, got 0x9"),
        (["--seeds", "3:1"], "each once, one or more; got none"),
        (["--seeds", "0,0"], "each once, one or more; got 0, 0"),
    ],
)
def test_numbers_that_make_no_sense_are_one_line(words, said, live_folder, tmp_path, capsys):
    run = ["run", "constant_velocity_synth", "--scenarios", str(live_folder), "--out", str(tmp_path / "out")]
    assert closed_loop.main([*run, *words]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_address_that_cannot_be_had_is_one_line(live_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    words = ["serve", "--protocol", "http", "--scenarios", str(live_folder), "--out"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert closed_loop.main([*words, str(tmp_path / "port"), "--port", port]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1:{port} ([Errno" in said and "in use); choose another port" in said
    assert closed_loop.main([*words, str(tmp_path / "host"), "--host", "nowhere.invalid"]) == 1
    assert "cannot listen at nowhere.invalid:8065" in capsys.readouterr().err


def test_an_empty_token_does_not_open_the_server(live_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(closed_loop.signal, "signal", lambda *_: None)
    (tmp_path / "token").write_text(" \n")
    words = ["serve", "--protocol", "http", "--scenarios", str(live_folder), "--out", str(tmp_path / "out")]
    assert closed_loop.main([*words, "--port", "0", "--token-file", str(tmp_path / "token")]) == 1
    assert "token: holds no token" in capsys.readouterr().err
