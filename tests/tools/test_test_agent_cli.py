"""``test-agent``: agents written for the devkit run here, with the devkit's classes or with look-alikes."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.evaluation.agents import loading
from beyonddrive.evaluation.metric_caches import MetricCaches
from beyonddrive.evaluation.plan_files import PlanFile
from beyonddrive.evaluation.score_results import read_results
from beyonddrive.evaluation.split_scoring import score_split
from beyonddrive.tools import test_agent as tool

TESTS = Path(__file__).parents[1]
TWO_STAGE = TESTS / "data/golden/two_stage"
ROOTS = ("navsim", "nuplan", "stub_agents")


@pytest.fixture(params=["lookalikes", "v2"])
def agents(request, monkeypatch):
    """The module of agents, without a devkit and with stubs of one; forgotten afterwards."""

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in ROOTS]:
            del sys.modules[name]

    forget()
    if request.param != "lookalikes":
        monkeypatch.syspath_prepend(TESTS / "devkit_stub/shared")
        monkeypatch.syspath_prepend(TESTS / "devkit_stub" / request.param)
    elif importlib.util.find_spec("navsim") is not None:
        pytest.skip("a devkit is installed")
    monkeypatch.syspath_prepend(TESTS / "evaluation/agents")
    yield request.param
    forget()


@pytest.fixture
def words(split_root, tmp_path):
    return [f"--data-root={split_root}", f"--plans={tmp_path / 'plans.npz'}"]


def test_an_agent_is_planned_and_scored(agents, words, split_root, tmp_path, capsys):
    name = "stub_agents:ConstantVelocity"
    assert tool.main([name, *words, f"--scores={tmp_path / 's.csv'}", "--agent-options", "turn=0.01"]) == 0
    out = capsys.readouterr().out
    assert ("look-alikes" in out) == (agents == "lookalikes") and "plans of 3 scenes by Constant" in out
    plans = PlanFile(tmp_path / "plans.npz")
    for scene in NavsimRoot(split_root).scenes("test"):
        speed = np.hypot(*scene.ego_dynamic[:2])
        np.testing.assert_allclose(plans[scene.token][0, :, 0], speed * np.arange(1, 9) * 0.5, rtol=1e-6)
        np.testing.assert_allclose(plans[scene.token][0, -1, 2], 0.04, rtol=1e-6)
    scores = score_split(NavsimRoot(split_root), "test", plans, progress_bar=False).values
    mean = 100 * np.mean([values[0, -1] for values in scores.values()])
    assert out.endswith(f"{mean:8.2f}\n") and len((tmp_path / "s.csv").read_text().splitlines()) == 4
    scored = read_results("agent", tmp_path / "s.csv").scored
    assert str(scored) in out
    logs = [(scene.token, scene.log_name) for scene in NavsimRoot(split_root).scenes("test")]
    assert scored.data == MetricCaches("test", NavsimRoot(split_root)).logs_digest(logs) != ""


def test_a_learned_agent_loads_its_checkpoint(agents, words, split_root, tmp_path):
    name = "stub_agents:Learned"
    layer = torch.nn.Linear(8, 24)
    torch.save({f"layer.{key}": value for key, value in layer.state_dict().items()}, tmp_path / "w.ckpt")
    assert tool.main([name, *words, f"--checkpoint={tmp_path / 'w.ckpt'}", "--plans-only"]) == 0
    plans = PlanFile(tmp_path / "plans.npz")
    for scene in NavsimRoot(split_root).scenes("test"):
        status = torch.from_numpy(np.concatenate([scene.driving_command, scene.ego_dynamic])).float()
        wanted = layer(status).detach().numpy().reshape(8, 3)
        np.testing.assert_allclose(plans[scene.token][0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("agents", ["lookalikes", "v1"], indirect=True)
def test_agents_of_the_first_version_run_too(agents, words, tmp_path):
    layer = torch.nn.Linear(8, 24)
    torch.save({f"layer.{key}": value for key, value in layer.state_dict().items()}, tmp_path / "w.ckpt")
    assert tool.main(["stub_agents:Old", *words, f"--checkpoint={tmp_path / 'w.ckpt'}", "--plans-only"]) == 0
    assert len(PlanFile(tmp_path / "plans.npz")) == 3


def test_what_an_agent_gets_wrong_is_said(agents, words, tmp_path, capsys):
    scores = tmp_path / "s.csv"
    assert tool.main(["stub_agents:Lost", *words, "--read-ahead=0", f"--scores={scores}"]) == 1
    out, err = capsys.readouterr()
    found = read_results("Lost", scores)
    assert len(found.values) == 1
    assert sorted(reason.partition(" ")[0] for reason in found.failures.values()) == [
        "Lost",
        "Lost.compute_trajectory:",
    ]
    assert "has no plan: Lost returns a plan with NaN or infinity" in err
    assert "has no plan: Lost.compute_trajectory: KeyError: 'lane'" in err
    assert "of 1 of 3 scenes" in out and len(PlanFile(tmp_path / "plans.npz")) == 1
    assert tool.main(["stub_agents:Coarse", *words]) == 1
    said = capsys.readouterr().err
    assert "Coarse returns poses (4, 3) under a sampling of 4 every 1 s; 8 poses x, y, heading" in said
    for agent, options, problem in (
        ("Privileged", [], "asks for the scene itself (requires_scene)"),
        ("Nobody", [], "stub_agents has no Nobody"),
        ("Status", [], "is no agent of the devkit: it has no get_sensor_config, initialize"),
        ("Status", ["--checkpoint=x"], "its constructor has no checkpoint_path (none at all)"),
        ("Learned", ["--checkpoint=none.ckpt"], "initialize failed (FileNotFoundError"),
        ("ConstantVelocity", ["--agent-options", "speed=1"], "its constructor has no speed; it has traj"),
    ):
        assert tool.main([f"stub_agents:{agent}", *words, *options]) == 1
        assert problem in capsys.readouterr().err, agent
    assert tool.main(["no_module:Agent", *words]) == 1
    assert "module no_module cannot be imported" in capsys.readouterr().err


def test_a_yaml_file_of_hydras_makes_the_agent(agents, words, tmp_path, capsys):
    path = tmp_path / "agent.yaml"
    text = (
        "_target_: stub_agents.ConstantVelocity\n_convert_: all\nturn: 0.02\ntrajectory_sampling:\n"
        "  _target_: nuplan.planning.simulation.trajectory.trajectory_sampling.TrajectorySampling\n"
        "  _convert_: all\n  time_horizon: 4\n  interval_length: 0.5\n"
    )
    path.write_text(text)
    assert tool.main([str(path), *words, "--plans-only"]) == 0
    plan = next(iter(PlanFile(tmp_path / "plans.npz").values()))
    np.testing.assert_allclose(plan[0, -1, 2], 0.08, rtol=1e-6)
    for broken, said in (
        (text.replace("0.02", "${lr}"), "refers to hydra's own settings"),
        ("- 1", "a mapping with the key _target_"),
        (text.replace("horizon: 4", "horizon: null"), "TrajectorySampling cannot be made"),
    ):
        path.write_text(broken)
        assert tool.main([str(path), *words, "--plans-only"]) == 1
        assert said in capsys.readouterr().err


@pytest.fixture
def small_split(tmp_path):
    """Follow-ups of a split of one group, and the words that say where it is and where plans go."""
    values = json.loads((TWO_STAGE / "data/two_stage_split.json").read_text())
    group = values["reactive_all_mapping"][0]
    group[2] = group[2][:1]
    values.update(reactive_all_mapping=[group], tokens=group[:2], log_names=None)
    values["reactive_synthetic_initial_tokens"] = list(group[2][0])
    (tmp_path / "split.json").write_text(json.dumps(values))
    return group[2][0], [
        f"--split-file={tmp_path / 'split.json'}",
        f"--data-root={TWO_STAGE / 'data'}",
        f"--maps-root={TWO_STAGE.parent / 'pdms/data/maps'}",
        f"--plans={tmp_path / 'plans.npz'}",
    ]


def test_both_stages_are_planned_for(agents, small_split, tmp_path, capsys):
    name = "stub_agents:ConstantVelocity"
    _, two_stages = small_split
    words = [name, *two_stages]
    scenes = f"--synthetic-scenes={TWO_STAGE / 'data/synthetic_scene_pickles'}"
    assert tool.main([*words, scenes]) == 0
    assert "combined" in capsys.readouterr().out
    golden = np.load(TWO_STAGE / "two_stage.npz")
    assert set(PlanFile(tmp_path / "plans.npz")) <= {str(token) for token in golden["token"]}
    (tmp_path / "none").mkdir()
    assert tool.main([*words, f"--synthetic-scenes={tmp_path / 'none'}"]) == 1
    assert "there is no such follow-up scene" in (said := capsys.readouterr().err)
    assert "there is no score of two stages" in said


def test_a_run_that_was_stopped_goes_on(agents, words, tmp_path, monkeypatch, capsys):
    name = "stub_agents:ConstantVelocity"
    module = importlib.import_module("beyonddrive.evaluation.score_files")
    monkeypatch.setattr(module, "PART_SIZE", 1)
    build = loading.build_agent

    def stopping(*args):
        agent = build(*args)
        plan, count = agent.compute_trajectory, iter(range(9))

        def compute(given):
            if next(count) == 2:
                raise KeyboardInterrupt
            return plan(given)

        agent.compute_trajectory = compute
        return agent

    monkeypatch.setattr(loading, "build_agent", stopping)
    with pytest.raises(KeyboardInterrupt):
        tool.main([name, *words, "--plans-only", "--read-ahead=0"])
    assert not (tmp_path / "plans.npz").exists()
    assert tool.main([name, *words, "--plans-only", "--read-ahead=0"]) == 0
    assert "2 scenes were planned for before" in capsys.readouterr().err
    assert len(PlanFile(tmp_path / "plans.npz")) == 3


def test_plans_of_other_settings_or_follow_up_scenes_are_not_kept(agents, small_split, tmp_path, monkeypatch):
    """As a run says what its plans were made from; one with something else begins anew."""
    follow_ups, two_stages = small_split
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    for token in follow_ups:
        path = TWO_STAGE / f"data/synthetic_scene_pickles/{token}.pkl"
        (scenes / path.name).write_bytes(path.read_bytes())
    agent = tmp_path / "agent.yaml"
    agent.write_text("_target_: stub_agents.ConstantVelocity\nturn: 0.02\n")
    module = importlib.import_module("beyonddrive.evaluation.score_files")
    seen = []

    def open_parts(out, config):
        seen.append(json.dumps(config))
        raise ValueError("seen")

    monkeypatch.setattr(module, "open_parts", open_parts)
    words = [str(agent), *two_stages, f"--synthetic-scenes={scenes}"]
    assert [tool.main(words), tool.main(words)] == [1, 1] and seen[0] == seen[1]
    agent.write_text("_target_: stub_agents.ConstantVelocity\nturn: 0.03\n")
    tool.main(words)
    with (scenes / f"{follow_ups[0]}.pkl").open("ab") as file:
        file.write(b" ")
    tool.main(words)
    tool.main([*words, f"--synthetic-sensors={tmp_path}"])
    assert len(set(seen)) == 4
    # Weights under an argument of their own are read as those of --checkpoint are.
    weights = tmp_path / "weights.ckpt"
    for text in ("one", "another"):
        weights.write_text(text)
        agent.write_text(f"_target_: stub_agents.ConstantVelocity\nturn: {{weights: {weights}}}\n")
        tool.main(words)
        tool.main(["stub_agents:ConstantVelocity", *words[1:], "--agent-options", f"turn={weights}"])
    assert len(set(seen)) == 8


def test_words_that_do_not_fit_are_refused(capsys):
    words = ["a:B", "--data-root=r", "--plans=p.npz"]
    for more, said in (
        (["--split-file=s"], "go together"),
        (["--split-file=s", "--synthetic-scenes=d", "--scene-filter=f"], "--scene-filter: with --split-file"),
        (["--read-ahead=-1"], "must not be negative"),
        (["--synthetic-sensors=d"], "--synthetic-sensors: goes with --split-file"),
        (["--plans-only", "--scores=s.csv"], "--scores: goes with scoring, which --plans-only leaves out"),
        (["--scores=p.npz"], "--scores: p.npz is the file of plans; give another name"),
        (["--checkpoint=p.npz"], "--plans: p.npz is read; give another name"),
    ):
        with pytest.raises(SystemExit):
            tool.parse_args([*words, *more])
        assert said in capsys.readouterr().err


def test_a_scene_in_two_logs_is_refused_at_once(agents, words, split_root, tmp_path, capsys):
    log = NavsimRoot(split_root).log_paths("test")[0]
    (log.parent / "twice.pkl").symlink_to(log)
    assert tool.main(["stub_agents:ConstantVelocity", *words]) == 1
    err = capsys.readouterr().err
    assert f"is in {log} and in {log.parent / 'twice.pkl'}: take one of these logs out" in err
    assert not (tmp_path / "plans.npz").exists()


def test_scores_that_cannot_be_written_are_said_before_the_work(agents, words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert tool.main(["stub_agents:ConstantVelocity", *words, f"--scores={tmp_path / 'file/s.csv'}"]) == 1
    assert "file/s.csv: cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "plans.npz").exists()
