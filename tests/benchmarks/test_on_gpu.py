"""The script for a machine with a GPU, as far as it runs without one: its parts, their limits, its table."""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from beyonddrive.benchmarks import train_step, waits
from beyonddrive.benchmarks.on_gpu import __main__ as on_gpu
from beyonddrive.benchmarks.on_gpu import goldens, recipes, rows, train_one, trainings

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_gpu.sh"


def test_a_planner_is_compared_with_its_original():
    row = goldens.compare("ego_status_mlp", "cpu")
    assert (row.verdict, row.what) == (rows.PASS, "ego_status_mlp")
    assert row.figures.keys() == {"out/trajectory", "loss/l1"}
    assert {"wote", "diffusiondrive", "navsim_ltf"} <= set(goldens.planners())


def test_a_difference_fails(monkeypatch):
    monkeypatch.setitem(goldens.ALLOWED, "cpu", -1.0)
    row = goldens.compare("ego_status_mlp", "cpu")
    assert row.verdict == rows.FAIL and "beyond" in row.found


def test_a_training_is_watched(tmp_path, blind_recipe, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    options = [f"{key}={value}" for key, value in recipes.WITHOUT_VALIDATION.items()]
    given = [str(blind_recipe), "--losses", str(tmp_path / "l.json"), "--work-dir", str(tmp_path / "w")]
    assert train_one.main([*given, "--cfg-options", *options]) == 0
    seen = json.loads((tmp_path / "l.json").read_text())
    assert list(seen["losses"]) == ["1", "2", "3", "4", "5", "6"]  # 2 epochs of 6 scenes, 2 a step
    assert (seen["device"], seen["backend"], seen["watched"]) == ("cpu", None, 0)
    assert list((tmp_path / "w").rglob("scalars.json"))
    assert not list((tmp_path / "w").rglob("events.out.tfevents*"))  # (a machine may lack tensorboard)


AT_WORK = {
    "autocast": "float16",
    "tf32": True,
    "channels_last": True,
    "fused": True,
    "averaged": True,
    "updates": 6,
    "max_norm": 1.0,
    "checkpointed": ["backbone", "decoder"],
    "compiled": ["decoder"],
}
"""What a training with all settings together has seen at work."""


def seen(losses, device="cuda", **more):
    told = {"backend": "nccl", "watched": 10, "waits": 0, "waits_between": [0, 3, 0], "scale": None, **more}
    return {"losses": losses, "device": device, **told}


def test_waits_for_events_are_told(monkeypatch):
    class Event:
        def synchronize(self):
            return "done"

    monkeypatch.setattr(torch.cuda, "Event", Event)
    found = waits.Waits()
    with waits.counting(found):
        assert Event().synchronize() == "done"
        Event().synchronize()
    Event().synchronize()  # (not counted)
    assert found.count == 2

    recipe = "configs/ltf/ltf_tiny_1xb16-12e_synth.py"
    losses = {str(step): 1.0 for step in range(1, 13)}
    for count, text in ((0, "10 steps without a wait"), (10, "the host waited for an event 1 times")):
        made = {"ltf_tiny-cuda": seen(losses, waits=count), "ltf_tiny-again": seen(losses, "cpu")}
        assert text in trainings.compare(made, "cuda", [recipe], recipe)[0].found


@pytest.mark.filterwarnings("ignore:called a synchronizing")
@pytest.mark.parametrize(("waits_in", "gaps"), [("no step", [0, 0]), ("each", [1, 1]), ("last", [0, 0])])
def test_waits_between_steps_are_counted(waits_in, gaps, monkeypatch):
    """Two epochs of three steps, of which two may wait for anything; what ends an epoch may, too."""
    mode = ["default"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda to: mode.__setitem__(0, to))
    modes = []
    model = torch.nn.Linear(1, 1)
    model.train_step = lambda batch: modes.append(mode[0]) or {"loss": torch.ones(())}
    runner = SimpleNamespace(model=model, train_dataloader=range(3), iter=0)
    hook = train_one.WatchedStepsHook("losses.json")
    hook.before_train(runner)
    for step in range(6):
        outputs = model.train_step(None)
        hook.after_train_iter(runner, step % 3, outputs=outputs)
        if waits_in == "each" or (waits_in == "last" and step % 3 == 2):
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)
    assert modes == ["default"] * 2 + ["error"] * 4
    assert (hook._gaps, mode[0]) == (gaps, "default")


def test_trainings_pass_only_if_every_step_is_there_and_close():
    recipe = "configs/ltf/ltf_tiny_1xb16-12e_synth.py"
    good = {str(step): 1.0 + step for step in range(1, 13)}
    far = {**good, "12": 13.5}
    found = {
        "ltf_tiny-cuda": seen(good),
        "ltf_tiny-again": seen(good, "cpu"),
        "ltf_tiny-mixed": seen(far, scale=65536.0),
        "ltf_tiny-resumed": seen({step: good[step] for step in map(str, range(7, 13))}),
        "ltf_tiny-together": seen(far, settings=AT_WORK, scale=65536.0),
        "ltf_tiny-accumulated": seen(good, "cpu"),
    }

    def verdicts(**changes):
        named = {name.replace("_", "-"): value for name, value in changes.items()}
        made = {name: named.get(name.rpartition("-")[2], value) for name, value in found.items()}
        return [row.verdict for row in trainings.compare(made, "cuda", [recipe], recipe)]

    assert verdicts() == ["pass", "pass", "pass", "pass"]
    assert verdicts(again=seen(far, "cpu"))[0] == "FAIL"
    assert verdicts(cuda=seen(good, "cpu"))[0] == "FAIL"  # it did not run on the GPU
    assert verdicts(resumed=seen({"12": 13.0}))[2] == "FAIL"
    assert verdicts(resumed="RuntimeError: lost")[2] == "FAIL"
    assert verdicts(again=seen({"99": 1.0}, "cpu"))[0] == "FAIL"
    assert verdicts(accumulated=seen({**good, "12": 14.5}, "cpu"))[3] == "FAIL"
    assert verdicts(cuda=seen(good, waits_between=[1, 4, 2]))[0] == "FAIL"  # a hook waits each time
    for step in good:
        lost = {**good, step: float("nan")}
        assert math.isnan(trainings.largest(seen(lost), seen(good, "cpu")))
    for key, value in AT_WORK.items():  # (whatever the losses are, a setting that was not at work fails)
        missing = {True: False, 6: 12}.get(value) if not isinstance(value, list) else []
        assert verdicts(together=seen(far, settings={**AT_WORK, key: missing}))[3] == "FAIL", key
    del found["ltf_tiny-together"]
    del found["ltf_tiny-again"], found["ltf_tiny-resumed"]  # (they run yet)
    assert verdicts() == ["pass"]


def test_every_planner_has_a_recipe_and_each_is_told_what_differs():
    found = {Path(recipe).parent.name for recipe in recipes.tiny_recipes(with_mmdet3d=True)}
    assert found == {
        "diffusiondrive", "ego_mlp", "flow_policy", "hydra_mdp", "ltf", "meanfuser", "transfuser", "wote"
    }  # fmt: skip


def test_what_a_part_found_is_kept_if_it_is_killed(tmp_path):
    code = (
        "import time, pathlib; from beyonddrive.benchmarks.on_gpu import rows;"
        "rows.append(pathlib.Path({!r}), rows.Row('golden', 'ltf', 'pass', 'ok')); time.sleep({})"
    )
    file = tmp_path / "rows.jsonl"
    row = on_gpu.run(on_gpu.Part("golden", 20.0, ["-c", code.format(str(file), 0)]), tmp_path)
    assert row is None and [found.what for found in rows.read(file)] == ["ltf"]
    row = on_gpu.run(on_gpu.Part("golden", 6.0, ["-c", code.format(str(file), 60)]), tmp_path)
    assert row.verdict == "FAIL" and "limit of 6 s" in row.found and len(rows.read(file)) == 2
    row = on_gpu.run(on_gpu.Part("golden", 20.0, ["-c", "raise SystemExit(3)"]), tmp_path)
    assert "exit code 3" in row.found
    # 1 is said by a part that found a failure, and by Python after an exception that nothing caught.
    row = on_gpu.run(on_gpu.Part("golden", 20.0, ["-c", "raise RuntimeError('no driver')"]), tmp_path)
    assert row.verdict == "FAIL" and "exit code 1" in row.found
    rows.append(file, rows.Row("golden", "ltf", "FAIL", "1e-3"))
    assert on_gpu.run(on_gpu.Part("golden", 20.0, ["-c", "raise SystemExit(1)"]), tmp_path) is None
    assert on_gpu.run(on_gpu.Part("export", 20.0, ["-c", "raise SystemExit(1)"]), tmp_path) is not None
    with file.open("a") as lines:
        lines.write('{"part": "gold')  # (cut short by a kill)
    assert len(rows.read(file)) == 3


NESTED = """
import signal, subprocess, sys, time
program = "import signal, time; signal.signal(signal.SIGTERM, {0}); print(1, flush=True); time.sleep(60)"
worker = subprocess.Popen([sys.executable, "-c", program], start_new_session=True, stdout=subprocess.PIPE)
worker.stdout.readline()
open({1!r}, "w").write(str(worker.pid))
time.sleep({2})
"""
"""A part that starts a process in a session of its own, as torchrun does."""


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="finds processes as Linux lists them")
@pytest.mark.parametrize(
    ("answer", "seconds"), [("signal.SIG_DFL", 60), ("signal.SIG_IGN", 60), ("signal.SIG_DFL", 0)]
)
def test_workers_in_sessions_of_their_own_end_with_the_part(answer, seconds, tmp_path, monkeypatch):
    """At its limit, also if they do not heed SIGTERM, and after its end."""
    monkeypatch.setattr(on_gpu, "PATIENCE", 1.0)
    file = tmp_path / "pid"
    # (within this two processes have to start)
    on_gpu.run(on_gpu.Part("training", 8.0, ["-c", NESTED.format(answer, str(file), seconds)]), tmp_path)
    state, until = Path(f"/proc/{int(file.read_text())}/stat"), time.monotonic() + 10.0
    while _state_in(state) not in (None, "Z"):  # (one that is killed has no mark before it is dead)
        assert time.monotonic() < until
        time.sleep(0.01)


def _state_in(stat):
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_the_table_is_written_with_what_it_was_made_with(tmp_path, capfd, monkeypatch):
    def parts(args, out):
        found = rows.Row("golden", "ltf", "FAIL", "1 | 2")
        file = out / "rows.jsonl"
        code = "import pathlib; from beyonddrive.benchmarks.on_gpu import rows;"
        code += f"rows.append(pathlib.Path('{file}'), rows.{found!r})"
        return [on_gpu.Part("golden", 60.0, ["-c", code])]

    monkeypatch.setattr(on_gpu, "parts_of", parts)
    given = ["--device", "cpu", "--data", "d", "--work", "w", "--out", str(tmp_path), "--git", "abc123"]
    assert on_gpu.main(given) == 1
    table = (tmp_path / "on_gpu.md").read_text()
    assert "commit: abc123" in table and "| golden | ltf | FAIL | 1 / 2 |" in table
    assert json.loads((tmp_path / "on_gpu.json").read_text())["git"] == "abc123"
    assert table in capfd.readouterr().out


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"commit": "abc", "changed": False}, "abc"),
        ({"commit": "abc", "changed": True}, "abc, with changes"),
        (None, "unknown: give it by --git"),
    ],
)
def test_the_commit_is_told(state, told, monkeypatch):
    monkeypatch.setattr(on_gpu, "git_state", lambda: state)
    args = on_gpu.parse_args(["--device", "cpu", "--data", "d", "--work", "w", "--out", "o"])
    assert on_gpu.facts(args)["git"] == told


def test_the_parts_name_modules_that_are_there():
    given = ["--device", "cpu", "--data", "d", "--work", "w", "--out", "o"]
    for part in on_gpu.parts_of(on_gpu.parse_args(given), Path("o")):
        path = SCRIPT.parents[1] / Path(*part.command[1].split(".")[1:]).with_suffix(".py")
        assert path.is_file(), part


def test_the_shell_script_parses_and_refuses_a_machine_without_a_gpu(tmp_path):
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    with pytest.raises(SystemExit):
        on_gpu.parse_args(["--data", "d", "--work", "w", "--out", "o"])


def stub(folder, pip=0, parts=0):
    """An interpreter that notes how it is called, and ends with these exit codes."""
    path = folder / "python"
    path.write_text(f"""#!/bin/sh
printf '%s\\n' "$@" > "{folder}/call-$2"
case $2 in
  pip) exit {pip} ;;
  *) pwd > "{folder}/place"; echo "$PYTHONPATH" > "{folder}/path"
     cat "${{PYTHONPATH%%:*}}/beyonddrive/version.py" > "{folder}/version"; exit {parts} ;;
esac
""")
    path.chmod(0o755)
    return path


def test_the_shell_script_hands_everything_over_and_leaves_nothing(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "a.whl").touch()
    given = ["--data", "cache", "--wheels", "wheels", "--parts", "golden", "--device", "cpu", "--out", "o p"]
    environment = {**os.environ, "PYTHON": str(stub(tmp_path, parts=1)), "TMPDIR": str(tmp_path)}
    done = subprocess.run([SCRIPT, *given], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")  # (that of the parts)
    words = (tmp_path / "call-beyonddrive.benchmarks.on_gpu").read_text().splitlines()
    place = Path((tmp_path / "place").read_text().strip())
    assert words == [
        "-m", "beyonddrive.benchmarks.on_gpu", "--work", f"{place}/work",
        "--command", f"benchmarks/on_gpu.sh {' '.join(given)}", "--data", f"{tmp_path}/cache",
        "--parts", "golden", "--device", "cpu", "--out", f"{tmp_path}/o p",
    ]  # fmt: skip
    assert on_gpu.parse_args(words[2:]).parts == ["golden"]
    assert (tmp_path / "path").read_text().strip() == f"{place}/site:{place}/wheels"
    assert (tmp_path / "version").read_text() == (SCRIPT.parents[1] / "version.py").read_text()
    installed = (tmp_path / "call-pip").read_text().splitlines()
    assert installed[-2:] == [f"{place}/wheels", f"{tmp_path}/wheels/a.whl"] and "--no-index" in installed
    assert not place.exists()


def test_the_shell_script_reads_options_with_an_equals_sign(tmp_path):
    """A path that it does not see would be taken from the folder that is removed."""
    environment = {**os.environ, "PYTHON": str(stub(tmp_path)), "TMPDIR": str(tmp_path)}
    subprocess.run(
        [SCRIPT, "--data=a b", "--out=o=p", "--device=cpu"], cwd=tmp_path, env=environment, check=True
    )
    words = (tmp_path / "call-beyonddrive.benchmarks.on_gpu").read_text().splitlines()
    assert words[6:] == ["--data", f"{tmp_path}/a b", "--out", f"{tmp_path}/o=p", "--device=cpu"]
    with pytest.raises(SystemExit):  # (nor does it know abbreviations)
        on_gpu.parse_args(["--device", "cpu", "--data", "d", "--work", "w", "--ou", "o"])


def test_the_shell_script_ends_if_the_wheels_cannot_be_installed(tmp_path):
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "PYTHON": str(stub(tmp_path, pip=3)), "TMPDIR": str(tmp_path / "tmp")}
    given = ["--data", "d", "--out", "o", "--wheels", "nowhere"]
    done = subprocess.run([SCRIPT, *given], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert [path.name for path in tmp_path.glob("call-*")] == ["call-pip"]
    assert not list((tmp_path / "tmp").iterdir())


class TestStepBenchmark:
    """``benchmarks/train_step.py`` on tiny planners."""

    @pytest.fixture(autouse=True)
    def tiny(self, monkeypatch):
        monkeypatch.setattr(train_step, "PLANNERS", {"ltf": ("ltf_tiny", {"repulsion": {"weight": 5.0}})})
        monkeypatch.setattr(train_step.Processes, "measure", lambda self, *given: train_step.measure(*given))
        monkeypatch.setattr(
            train_step, "keep_freed_memory", lambda: True
        )  # of the process, which has other tests
        yield
        train_step.build.cache_clear()

    def test_every_variant_has_the_loss_of_the_plain_restatement(self, tmp_path, capsys):
        figures = tmp_path / "steps.json"
        given = ["--batch", "2", "--steps", "1", "--warm-up", "1", "--threads", "1", "--json", str(figures)]
        assert train_step.main(given) == 0
        steps = json.loads(figures.read_text())["steps"]
        assert [step["variant"] for step in steps] == [
            *("plain", "float32", "bf16", "channels_last", "fused_adamw", "kept_memory")
        ]
        assert all(step["ms"] > 0 and step["ratio"] > 0 for step in steps)
        row = on_gpu.step_rows(figures)[1]
        assert row.what == "ltf, batch 2, float32" and "x plain" in row.found

    def test_another_loss_or_a_wait_fails_and_the_rest_is_measured(self, tmp_path, monkeypatch, capsys):
        def measure(self, planner, batch, variant, settings, args):
            if variant == "bf16":
                raise RuntimeError("called a synchronizing CUDA operation")
            loss = 1.0 if variant != "float32" else 1.01
            return train_step.Result(planner, batch, variant, 2.0, 1.0, 3.0, loss, 1.0)

        monkeypatch.setattr(train_step.Processes, "measure", measure)
        figures = tmp_path / "steps.json"
        variants = ["float32", "bf16", "channels_last"]
        assert train_step.main(["--batch", "1", "--json", str(figures), "--variants", *variants]) == 1
        steps = json.loads(figures.read_text())["steps"]
        assert ["failed" in step for step in steps] == [False, True, True, False]
        assert [row.verdict for row in on_gpu.step_rows(figures)] == ["measured", "FAIL", "FAIL", "measured"]

    def test_what_was_compiled_for_another_batch_is_forgotten(self, monkeypatch):
        class Step:
            def __init__(self, *given):
                did.append("step")

            def __call__(self, batch):
                return torch.ones(()), torch.ones(())

        did = []
        monkeypatch.setattr(torch.compiler, "reset", lambda: did.append("reset"))
        monkeypatch.setattr(train_step, "Step", Step)
        monkeypatch.setattr(train_step, "build", cache(lambda name: torch.nn.Linear(1, 1)))
        monkeypatch.setattr(train_step, "batch_of", lambda planner, size: {})
        args = train_step.parse_args(["--steps", "1", "--warm-up", "0", "--threads", "1"])
        for batch in (1, 2):
            train_step.measure("ltf", batch, "compile", train_step.Settings(compiled=True), args)
        assert did == ["reset", "step", "step"] * 2

    def test_what_is_not_begun_in_time_is_named(self, capsys):
        assert train_step.main(["--time-limit", "-1", "--batch", "4", "--variants", "float32"]) == 0
        assert capsys.readouterr().out.count("skipped: not begun") == 2

    def test_each_variant_is_measured_before_other_batches(self, monkeypatch):
        monkeypatch.setattr(train_step, "PLANNERS", {"a": ("a", {}), "b": ("b", {})})
        args = train_step.parse_args(["--batch", "16", "4", "--variants", "float32", "compile"])
        order = train_step.plan(args)
        assert order[:5] == [
            *((name, 16, variant) for name in "ab" for variant in ("plain", "float32")),
            ("a", 16, "compile"),
        ]
        assert len(order) == len(set(order)) == 12 and [row[2] for row in order[-3:]] == ["compile"] * 3
