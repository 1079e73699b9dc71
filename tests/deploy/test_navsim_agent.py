"""Our planners as agents of the devkit: same features, same plans, three ways to run, old Pythons too."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml

import beyonddrive
from beyonddrive.apis import init_planner, load_config
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim_dataset import NavsimDataset
from beyonddrive.datasets.stores.pictures import decoded
from beyonddrive.datasets.transforms.camera import stitch
from beyonddrive.datasets.transforms.encoding import EncodeCamera
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.deploy import ExportError, navsim_agent
from beyonddrive.evaluation.agents import lookalikes
from beyonddrive.evaluation.agents.devkit import Devkit
from beyonddrive.evaluation.agents.inputs import agent_input, wanted_entries
from beyonddrive.evaluation.plan_files import PlanFile
from beyonddrive.registry import MODELS
from beyonddrive.tools import _agent_folder, export, test_agent
from beyonddrive.tools._agent_folder import inputs_of, targets_of

SOURCE = Path(beyonddrive.__path__[0]) / "deploy/navsim_agent.py"
STUB = Path(__file__).parents[1] / "devkit_stub"
OURS = Devkit(lookalikes, lookalikes.TrajectorySampling, False)


@pytest.fixture
def folder(tmp_path, blind_recipe):
    """An agent's folder of a tiny planner, made by the command."""
    pytest.importorskip("onnxscript")
    config = load_config(blind_recipe)
    MODELS.import_from_location()
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "weights.pth")
    words = [str(blind_recipe), str(tmp_path / "weights.pth"), str(tmp_path / "agent"), "--navsim-agent"]
    assert export.main(words) == 0
    return tmp_path / "agent"


@pytest.fixture(params=["v1", "v2"])
def module(request, monkeypatch, folder):
    """The module of the folder beside a stub of the devkit; and which version that is."""

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] in ("navsim", "nuplan")]:
            del sys.modules[name]

    forget()
    monkeypatch.syspath_prepend(STUB / "shared")
    monkeypatch.syspath_prepend(STUB / request.param)
    spec = importlib.util.spec_from_file_location("agent_of_a_folder", folder / "navsim_agent.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.version = request.param
    yield module
    forget()


def arguments(module):
    if module.version == "v1":
        return {}
    sampling = sys.modules["nuplan.planning.simulation.trajectory.trajectory_sampling"].TrajectorySampling
    return {"trajectory_sampling": sampling(time_horizon=4, interval_length=0.5)}


def test_it_is_written_for_python_3_9():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    names = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in names if name.startswith("beyonddrive")]


def test_all_ways_to_run_give_the_plans_of_the_planner(module, folder, split_root, blind_recipe):
    planner = init_planner(load_config(blind_recipe), folder / "weights.pth")
    none = wanted_entries(lookalikes.SensorConfig.build_no_sensors())
    root = NavsimRoot(split_root)
    agents = [
        module.BeyondDriveAgent(run="onnx", **arguments(module)),
        module.BeyondDriveAgent(str(folder), run="process", **arguments(module)),
        module.BeyondDriveAgent(run="worker", interpreter=sys.executable, **arguments(module)),
    ]
    for agent in agents:
        agent.initialize()
        assert agent.get_sensor_config() == module.SensorConfig.build_no_sensors()
    for scene in root.scenes("test"):
        given = agent_input(scene, root, none, OURS)
        status = torch.from_numpy(np.float32([*scene.driving_command, *scene.ego_dynamic]))[None]
        wanted = planner({"status": status}, mode="tensor")["trajectory"][0].detach().numpy()
        for agent in agents:
            plan = agent.compute_trajectory(given)
            assert type(plan) is module.Trajectory and plan.poses.dtype == np.float32
            np.testing.assert_allclose(plan.poses, wanted, rtol=1e-5, atol=1e-5)
            assert plan.trajectory_sampling.num_poses == 8
        # as the devkit's own evaluation of builders and forward would
        np.testing.assert_allclose(
            super(module.BeyondDriveAgent, agents[0]).compute_trajectory(given).poses, wanted, atol=1e-5
        )
    with pytest.raises(module.AgentError, match=r"the worker of .*: PlannerInputError: .*status"):
        agents[2]._planner({"status": np.zeros((1, 7), np.float32)})
    assert agents[2].compute_trajectory(given).poses.shape == (8, 3)  # (the worker lives on)
    agents[2]._planner.close()


def test_it_runs_over_our_scenes_as_any_agent_does(folder, split_root, tmp_path, monkeypatch, blind_recipe):
    monkeypatch.syspath_prepend(STUB / "shared")
    monkeypatch.syspath_prepend(STUB / "v2")
    monkeypatch.syspath_prepend(folder)
    words = [f"--data-root={split_root}", f"--plans={tmp_path / 'p.npz'}", "--plans-only"]
    assert test_agent.main([str(folder / "v2/agent/beyonddrive.yaml"), *words]) == 0
    planner = init_planner(load_config(blind_recipe), folder / "weights.pth")
    plans = PlanFile(tmp_path / "p.npz")
    for scene in NavsimRoot(split_root).scenes("test"):
        status = torch.from_numpy(np.float32([*scene.driving_command, *scene.ego_dynamic]))[None]
        wanted = planner({"status": status}, mode="tensor")["trajectory"].detach().numpy()
        np.testing.assert_allclose(plans[scene.token], wanted, rtol=1e-5, atol=1e-5)
    for name in [name for name in sys.modules if name.split(".")[0] in ("navsim", "nuplan", "navsim_agent")]:
        del sys.modules[name]


def test_features_are_ours(module):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (108, 192, 3), dtype=np.uint8) for name in module.CAMERAS}
    cameras = SimpleNamespace(**{name: SimpleNamespace(image=image) for name, image in images.items()})
    ours = stitch(*images.values(), (64, 256))
    np.testing.assert_array_equal(module.stitch(cameras, [64, 256]), ours)
    points = rng.normal(0, 12, (6, 4000)).astype(np.float32)
    for settings in ({}, {"use_ground_plane": True, "size": 64}):
        transform = LoadLidarHistogram(**settings)
        names = ("extent", "size", "split_height", "max_height", "max_count", "use_ground_plane")
        found = module.histogram(points, **{name: getattr(transform, name) for name in names})
        np.testing.assert_array_equal(found, transform.histogram(points[:3]))
    cameras.cam_l0.image = None
    with pytest.raises(module.AgentError, match="cam_l0, cam_f0, cam_r0 are missing"):
        module.stitch(cameras, [64, 256])
    with pytest.raises(module.AgentError, match="the sweep of now is missing"):
        module.histogram(None, 32.0, 8, 0.2, 100.0, 5, False)


@pytest.mark.parametrize("near", [{}, {"num_agents": 3, "extent": 20.0}])
def test_targets_are_ours(module, split_root, blind_recipe, near):
    features = [{"type": "EgoStatus"}, {"type": "PlanTarget"}, {"type": "AgentTargets", **near}]
    config = load_config(blind_recipe)
    config.train_dataloader = {
        "dataset": {"type": "RepeatDataset", "dataset": {"feature_pipeline": features}}
    }
    builder = module.BeyondDriveTargetBuilder({"targets": targets_of(config)})
    assert builder.get_unique_name() == f"beyonddrive_targets_{'3_20' if near else '30_32'}"
    dataset = NavsimDataset(split_root, "test", feature_pipeline=features)
    for index in range(len(dataset)):
        scene, ours = dataset.scene(index), dataset.features(index)
        objects = scene.now["anns"]
        annotations = SimpleNamespace(boxes=objects["gt_boxes"], names=list(objects["gt_names"]))
        theirs = SimpleNamespace(
            get_future_trajectory=lambda num_trajectory_frames, scene=scene: SimpleNamespace(
                poses=scene.expert_plan[:num_trajectory_frames]
            ),
            frames=[None, None, None, SimpleNamespace(annotations=annotations)],
        )
        found = builder.compute_targets(theirs)
        assert found["agent_states"].shape == (near.get("num_agents", 30), 5)
        for name, value in found.items():
            np.testing.assert_array_equal(value.numpy(), ours[name])


def test_noise_belongs_to_a_scene(module):
    settings = {"noise": {"seed": 1, "shape": [2, 8, 4]}}
    one, two = (module.noise_of(settings, np.full((1, 8), value, np.float32)) for value in (1, 2))
    assert one.shape == (1, 2, 8, 4) and not np.array_equal(one, two)
    np.testing.assert_array_equal(one, module.noise_of(settings, np.ones((1, 8), np.float32)))
    assert module.noise_of({"noise": None}, np.ones(8)) is None


def test_what_cannot_be_is_said(module, folder, tmp_path):
    make, good = module.BeyondDriveAgent, arguments(module)
    for settings, said in (
        ({"run": "gpu"}, "run must be onnx, worker or process"),
        ({"run": "worker"}, "run=worker needs interpreter"),
        ({"folder": str(tmp_path / "none")}, "make the folder by: beyonddrive export"),
        ({"requires_scene": True}, "requires_scene"),
    ):
        with pytest.raises(module.AgentError, match=said):
            make(**{**good, **settings})
    if module.version == "v2":
        wrong = type(good["trajectory_sampling"])(time_horizon=5, interval_length=0.5)
        with pytest.raises(module.AgentError, match=r"8 poses every 0.5 s, got 10 every 0.5"):
            make(trajectory_sampling=wrong)
    with pytest.raises(module.AgentError, match="/no/python: cannot be started"):
        make(run="worker", interpreter="/no/python", **good).initialize()
    with pytest.raises(module.AgentError, match=r"ended \(exit code 1\)"):
        make(run="worker", interpreter="/bin/false", **good).initialize()
    (folder / "planner.onnx").unlink()
    with pytest.raises(module.AgentError, match="use run=worker"):
        make(**good).initialize()


@pytest.mark.parametrize(("version", "has_sampling"), [("v1.1", False), ("v2", True)])
def test_the_files_for_hydra_name_the_agent(folder, version, has_sampling):
    values = yaml.safe_load((folder / version / "agent/beyonddrive.yaml").read_text())
    assert values["_target_"] == "navsim_agent.BeyondDriveAgent" and values["_convert_"] == "all"
    assert ("trajectory_sampling" in values) == has_sampling and values["run"] == "onnx"


def test_features_that_the_devkit_cannot_make_are_refused(blind_recipe):
    config = load_config(blind_recipe)
    assert inputs_of(config, ("status",)) == {"status": {}}
    config.test_dataloader.dataset.feature_pipeline = [{"type": "PlanTarget"}]
    with pytest.raises(ExportError, match="makes status in a way that the agent does not know"):
        inputs_of(config, ("status",))
    config.test_dataloader = None
    with pytest.raises(ExportError, match="test_dataloader: the config has none"):
        inputs_of(config, ("status",))


def test_what_training_hides_is_hidden_in_the_devkit(blind_recipe):
    config = load_config(blind_recipe)
    shown = navsim_agent.BeyondDriveFeatureBuilder({"inputs": inputs_of(config, ("status",))})
    config.test_dataloader.dataset.pipeline.insert(0, {"type": "HideStatus", "parts": ["acceleration"]})
    hidden = navsim_agent.BeyondDriveFeatureBuilder({"inputs": inputs_of(config, ("status",))})
    now = SimpleNamespace(driving_command=[0, 1, 0, 0], ego_velocity=[5, 0.5], ego_acceleration=[2, -1])
    given = SimpleNamespace(ego_statuses=[now])
    assert shown.compute_features(given)["status"].tolist() == [0, 1, 0, 0, 5, 0.5, 2, -1]
    assert hidden.compute_features(given)["status"].tolist() == [0, 1, 0, 0, 5, 0.5, 0, 0]
    assert hidden.get_unique_name() != shown.get_unique_name()  # (caches of the two are not one)
    config.test_dataloader.dataset.pipeline.insert(0, {"type": "HideStatus", "parts": ["command"]})
    assert inputs_of(config, ("status",)) == {"status": {"hidden": [0, 1, 2, 3, 6, 7]}}


@pytest.mark.parametrize("encoding", [{"format": "jpeg", "quality": 60}, {"format": "webp", "quality": 60}])
def test_images_are_those_of_a_lossy_cache(blind_recipe, encoding):
    config = load_config(blind_recipe)
    features = config.test_dataloader.dataset.feature_pipeline
    features += [{"type": "LoadCameraStitch", "size": (32, 128)}, {"type": "EncodeCamera", **encoding}]
    inputs = inputs_of(config, ("camera", "status"))
    coarse = np.random.default_rng(0).integers(0, 256, (3, 27, 48, 3), dtype=np.uint8)
    images = [cv2.resize(image, (192, 108), interpolation=cv2.INTER_LINEAR) for image in coarse]
    cameras = SimpleNamespace(
        **{
            name: SimpleNamespace(image=image)
            for name, image in zip(navsim_agent.CAMERAS, images, strict=True)
        }
    )
    now = SimpleNamespace(driving_command=[0, 1, 0, 0], ego_velocity=[5, 0], ego_acceleration=[0, 0])
    given = SimpleNamespace(ego_statuses=[now], cameras=[cameras])
    found = navsim_agent.BeyondDriveFeatureBuilder({"inputs": inputs}).compute_features(given)["camera"]
    whole = stitch(*images, (32, 128))
    np.testing.assert_array_equal(found, decoded(EncodeCamera(**encoding)({"camera": whole}))["camera"])
    assert not np.array_equal(found, whole)


def test_transforms_that_the_agent_does_not_know_are_refused(blind_recipe):
    for stage, step in (
        ("feature_pipeline", {"type": "LoadPoints"}),
        ("pipeline", {"type": "BlankInputs", "keys": ["status"]}),
        ("pipeline", {"type": "EncodeCamera", "format": "png"}),
    ):
        config = load_config(blind_recipe)
        steps = config.test_dataloader.dataset[stage]
        steps.append(step)
        place = len(steps) - 1
        with pytest.raises(ExportError, match=rf"dataset\.{stage}\[{place}\].* what {step['type']} does"):
            inputs_of(config, ("status",))
    config = load_config(blind_recipe)
    steps = [{"type": "LoadCameraStitch", "size": (32, 128)}, {"type": "EncodeCamera", "format": "png"}]
    config.test_dataloader.dataset.feature_pipeline += steps
    assert inputs_of(config, ("camera",)) == {"camera": {"size": [32, 128]}}


@pytest.fixture
def export_words(blind_recipe, tmp_path):
    """Words of an export without ONNX to ``tmp_path / "agent"``."""
    config = load_config(blind_recipe)
    MODELS.import_from_location()
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "given.pth")
    words = [str(blind_recipe), str(tmp_path / "given.pth"), str(tmp_path / "agent")]
    return [*words, "--navsim-agent", "--without-onnx"]


def test_a_folder_of_something_else_and_what_is_read_are_refused(export_words, tmp_path, capsys):
    folder = tmp_path / "agent"
    folder.mkdir()
    for name in ("config.py", "weights.pth"):
        (folder / name).write_bytes(b"mine")
        assert export.main(export_words) == 1
        assert f"{folder}: has {name} of no exported agent; give another" in capsys.readouterr().err
        assert (folder / name).read_bytes() == b"mine"
        (folder / name).unlink()
    assert export.main(export_words) == 0
    weights = (folder / "weights.pth").read_bytes()
    capsys.readouterr()
    config, _, *rest = export_words
    assert export.main([config, str(folder / "weights.pth"), *rest]) == 1
    assert f"{folder}/weights.pth: is read by this command" in capsys.readouterr().err
    assert (folder / "weights.pth").read_bytes() == weights
    assert export.main(export_words) == 0


def test_an_export_that_is_killed_does_not_look_whole_and_is_done_again(export_words, tmp_path, monkeypatch):
    folder = tmp_path / "agent"
    assert export.main(export_words) == 0

    def kill(path, content):
        if path.name == "config.py":
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as patched:
        patched.setattr(_agent_folder, "write_atomically", kill)
        with pytest.raises(KeyboardInterrupt):
            export.main(export_words)
    with pytest.raises(navsim_agent.AgentError, match=r"agent\.json: cannot be read"):
        navsim_agent.read_settings(folder)
    assert export.main(export_words) == 0
    assert navsim_agent.read_settings(folder)["inputs"] == {"status": {}}


@pytest.mark.parametrize("idle", [["--batch", "2"], ["--free-batch"]])
def test_options_of_graph_files_are_refused(export_words, idle, capsys):
    with pytest.raises(SystemExit):
        export.main([*export_words, *idle])
    assert f"{idle[0]}: goes with OUT.onnx or OUT.pt2, and does nothing here" in capsys.readouterr().err
