"""Trainings side by side are those of the runner: same scenes, draws, updates and weights."""

import copy
import dataclasses
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config, ConfigDict

from beyonddrive.benchmarks.on_gpu.recipes import WITHOUT_VALIDATION
from beyonddrive.datasets.transforms.targets import AgentTargets
from beyonddrive.engine.configs import ConfigError, load_config
from beyonddrive.engine.geometry import MadeLength
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.engine.together.packing import pack_scenes, unpack_scenes
from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.engine.together.step import RecordedStep
from beyonddrive.engine.together.training import Training, check_recipe, plans_of, train_together
from beyonddrive.engine.wrapped_datasets import LostScenesError
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.plugins.ego_mlp.planner import EgoStatusMLP
from beyonddrive.registry import DATASETS
from beyonddrive.structures.geometry import AGENT_EXTENT
from beyonddrive.structures.scene_random import SEED_KEY
from beyonddrive.tests.test_planner_contract import CONFIGS, batch_of, fitted_planner, small_configs
from beyonddrive.tests.test_steps_without_waits import one_config_each

CPU = torch.device("cpu")
LTF = "ltf_tiny_1xb16-12e_synth"


class MadeUp(list):
    """Samples of a data set."""

    def get_data_info(self, index):
        return {"token": self[index]["data_samples"].metainfo["token"]}


def made_up(planner, count=4):
    batch = batch_of(planner, count)
    samples = batch["data_samples"]
    return MadeUp(
        {
            "inputs": {key: value[row] for key, value in batch["inputs"].items()},
            "data_samples": samples[row].new(metainfo={"token": f"scene{row}"}),
        }
        for row in range(count)
    )


@pytest.fixture
def together_recipe(blind_recipe):
    options = {
        "train_dataloader.batch_size": 2,
        "train_dataloader.drop_last": True,
        "train_cfg.max_epochs": 2,
    }
    config = load_config(blind_recipe, options)
    config.train_dataloader.sampler = ConfigDict(type="RoundDownSampler", shuffle=True)
    return config


def test_weights_are_those_of_the_runner(together_recipe, tmp_path):
    runner = build_train_runner(together_recipe, str(tmp_path / "run"), seed=3)
    runner.train()
    scenes = SceneTensors.read(runner.train_dataloader.dataset)
    finished = []
    training = Training("blind", together_recipe, scenes, [5, 3])
    planned = {}

    def keep(training, seed, planner):
        finished.append(seed)
        planned[seed] = plans_of(planner, scenes)

    train_together([training], CPU, keep)
    assert training.error is None
    assert finished == [5, 3]
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, training.weights[3][key]), key
    runner.model.eval()
    batch = runner.train_dataloader.collate_fn(
        [runner.train_dataloader.dataset[i] for i in range(len(scenes))]
    )
    wanted = torch.stack([sample.pred.trajectory for sample in runner.model.test_step(batch)])
    assert torch.allclose(planned[3], wanted, atol=1e-5)
    assert any(not torch.equal(a, training.weights[5][key]) for key, a in training.weights[3].items())


def test_weights_are_those_of_the_runner_also_with_channels_last(tmp_path, monkeypatch):
    """LTF tiny as its recipe is, on made-up scenes."""
    samples = made_up(fitted_planner(copy.deepcopy(small_configs()[LTF])))

    class MadeUpScenes:  # (mmengine makes lists anew)
        __len__, __getitem__ = samples.__len__, samples.__getitem__
        get_data_info = samples.get_data_info

    monkeypatch.setitem(DATASETS.module_dict, "MadeUpScenes", MadeUpScenes)
    options = {"train_dataloader.batch_size": 2, "train_cfg.max_epochs": 2, "train_dataloader.num_workers": 0}
    config = load_config(CONFIGS / "ltf" / f"{LTF}.py", {**WITHOUT_VALIDATION, **options})
    config.train_dataloader.dataset = ConfigDict(type="MadeUpScenes")
    config.default_hooks.pop("pictures")
    config.visualizer.vis_backends = []
    assert config.channels_last
    runner = build_train_runner(config, str(tmp_path / "run"), seed=3)
    runner.train()
    training = Training("ltf", config, SceneTensors.read(samples), [3])
    layouts = []

    def look(training, seed, planner):
        kernel = planner.backbone.image_encoder.layer1[0].conv1.weight
        layouts.append(kernel.is_contiguous(memory_format=torch.channels_last))

    train_together([training], CPU, look)
    assert training.error is None and layouts == [True]
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, training.weights[3][key]), key


@pytest.mark.parametrize("name", one_config_each().values(), ids=one_config_each())
def test_a_recorded_step_draws_and_solves_as_an_ordinary_one(name):
    planner = fitted_planner(copy.deepcopy(small_configs()[name])).train()
    for prior in plan_priors(planner):
        prior.require()
    scenes = SceneTensors.read(made_up(planner))
    seeds = [11, 12, 13]

    def loss(index):
        data = scenes.batch(index)
        data["inputs"] = planner.data_preprocessor.cast_data(data["inputs"])
        data = planner.data_preprocessor(data, True)
        return planner.parse_losses(planner(**data, mode="loss"))[0]

    with torch.no_grad():
        data = scenes.batch(torch.tensor([2, 0, 1]))
        for sample, seed in zip(data["data_samples"], seeds, strict=True):
            sample.set_metainfo({SEED_KEY: seed})
        data = planner.data_preprocessor(data, True)
        wanted = planner.parse_losses(planner(**data, mode="loss"))[0]
        step = RecordedStep(loss, 3, CPU)
        for numbers, drawn in (([1, 1, 1], [1, 2, 3]), ([2, 0, 1], seeds)):
            step.start(numbers, drawn)
            assert step.advance()
    assert torch.equal(step.loss, wanted)


def test_one_that_fails_leaves_the_others(together_recipe, tmp_path):
    runner = build_train_runner(together_recipe, str(tmp_path / "run"))
    scenes = SceneTensors.read(runner.build_dataloader(together_recipe.train_dataloader).dataset)
    broken = SceneTensors(scenes.tokens, {**scenes.fields})
    broken.fields["gt.trajectory"] = torch.full_like(scenes.fields["gt.trajectory"], torch.nan)
    bad = Training("bad", together_recipe, broken, [0])
    good = Training("good", together_recipe, scenes, [0])
    planned = []
    train_together(
        [bad, good], CPU, lambda training, seed, planner: planned.append(plans_of(planner, scenes))
    )
    assert "gt.trajectory holds NaN" in str(bad.error)
    assert good.error is None
    assert planned[0].shape == (len(scenes), 8, 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"optim_wrapper": {"type": "AmpOptimWrapper"}}, "optim_wrapper"),
        ({"optim_wrapper": {"accumulative_counts": 2}}, "optim_wrapper"),
        ({"train_dataloader": {"drop_last": False}}, "train_dataloader"),
        ({"train_cfg": {"by_epoch": False}}, "train_cfg"),
        ({"custom_hooks": [{"type": "EMAHook"}]}, "EMAHook"),
        ({"load_from": "w.pth"}, "load_from"),
        ({"activation_checkpointing": ["encoder"]}, "activation_checkpointing"),
        ({"compile": True}, "compile"),
        ({"tf32": False}, "tf32"),
        ({"efficient_conv_bn_eval": ["encoder"]}, "efficient_conv_bn_eval"),
        ({"auto_scale_lr": {"base_batch_size": 64, "enable": True}}, r"auto_scale_lr\.enable"),
        ({"train_dataloader": {"num_batch_per_epoch": 1}}, r"train_dataloader\.num_batch_per_epoch"),
        ({"data_preprocessor": {"type": "PlannerDataPreprocessor", "keys": ["status"]}}, "data_preprocessor"),
    ],
)
def test_what_would_be_left_out_is_refused(together_recipe, change, named):
    config = Config(together_recipe.to_dict())
    config.merge_from_dict(change)
    with pytest.raises(TogetherError, match=named):
        check_recipe(config)


def test_augmented_scenes_are_refused(together_recipe, tmp_path):
    data = together_recipe.train_dataloader.dataset
    data.pipeline = [{"type": "ViewAugmentation"}, *data.pipeline]
    with pytest.raises(TogetherError, match="ViewAugmentation: draws anew"):
        SceneTensors.read(DATASETS.build(data))


def test_packed_scenes_lose_nothing_but_details_of_images(tmp_path):
    name = next(name for name, model in small_configs().items() if model.type == "WoTE")
    scenes = SceneTensors.read(made_up(fitted_planner(copy.deepcopy(small_configs()[name]))))
    scenes.fields["inputs.lidar"] = scenes.fields["inputs.lidar"].mul(5).round().div(5)
    scenes.fields["inputs.camera"] = torch.full_like(scenes.fields["inputs.camera"], 100)
    pack_scenes(scenes, tmp_path / "packed.safetensors")
    found = unpack_scenes(tmp_path / "packed.safetensors")
    assert found.tokens == scenes.tokens
    assert found.fields.keys() == scenes.fields.keys()
    for key, value in scenes.fields.items():
        assert found.fields[key].dtype == value.dtype, key
        limit = 3 if key == "inputs.camera" else 0
        assert (found.fields[key].double() - value.double()).abs().max() <= limit, key
    with pytest.raises(TogetherError, match=r"broken\.safetensors: not a file of packed scenes"):
        (tmp_path / "broken.safetensors").write_bytes(b"12345678")
        unpack_scenes(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train_dataloader.sampler.shuffle": False}, "sampler, which must shuffle"),
        ({"train_dataloader.sampler.seed": 7}, "sampler, which must shuffle"),
        ({"train_dataloader.batch_sampler": {"type": "BatchSampler"}}, "batch_sampler"),
    ],
)
def test_an_order_of_scenes_of_its_own_is_refused(together_recipe, change, named):
    together_recipe.merge_from_dict(change)
    with pytest.raises(TogetherError, match=named):
        check_recipe(together_recipe)


def test_what_no_step_can_be_made_of_is_refused(together_recipe):
    scenes = SceneTensors.read(DATASETS.build(together_recipe.train_dataloader.dataset))
    reach = (MadeLength("reach [m]", 50.0, "AgentTargets"),)
    few = Config(together_recipe.to_dict())
    few.train_dataloader.batch_size = len(scenes) + 1
    few.train_dataloader.sampler = ConfigDict(type="RoundDownSampler", shuffle=True)
    for config, given, device, said in (
        (few, scenes, CPU, f"batch_size={len(scenes) + 1}: of {len(scenes)} scenes there is no batch"),
        (together_recipe, scenes.to("meta"), CPU, r"lies on meta.*: give scenes\.to\(device\)"),
        (together_recipe, dataclasses.replace(scenes, lengths=reach), CPU, None),
    ):
        training = Training("blind", config, given, [0])
        train_together([training], device)
        assert re.search(said, str(training.error)) if said else training.error is None
    boxes = {**scenes.fields, "gt.boxes": torch.full((len(scenes), 1, 9), torch.nan)}
    with pytest.raises(TogetherError, match=rf"scene {scenes.tokens[0]}: gt.boxes holds NaN"):
        SceneTensors(scenes.tokens, boxes).check_finite()


def test_lengths_of_what_transforms_made_go_with_the_scenes(together_recipe, tmp_path, monkeypatch):
    together_recipe.train_dataloader.dataset.feature_pipeline.append(
        ConfigDict(type="AgentTargets", extent=50.0)
    )
    scenes = SceneTensors.read(DATASETS.build(together_recipe.train_dataloader.dataset))
    assert scenes.lengths == (MadeLength(AGENT_EXTENT, 50.0, "AgentTargets"),)
    pack_scenes(scenes, tmp_path / "packed.safetensors")
    found = unpack_scenes(tmp_path / "packed.safetensors").rows(scenes.tokens[:2])
    assert found.lengths == scenes.lengths
    monkeypatch.setattr(EgoStatusMLP, "geometry_taken", {AGENT_EXTENT: (0.0, 32.0)}, raising=False)
    training = Training("blind", together_recipe, found, [0])
    train_together([training], CPU)
    assert re.search("AgentTargets .* has 50, and EgoStatusMLP takes from 0 to 32", str(training.error))


def test_lost_scenes_and_transforms_that_do_not_agree_are_refused():
    def dataset(**given):
        return SimpleNamespace(split="train", data_root="d", allow_lost=False, **given)

    with pytest.raises(LostScenesError, match="missing"):
        SceneTensors.read(dataset(account=SimpleNamespace(is_complete=False, lost={"log": "gone"})))
    taking = SimpleNamespace(geometry_taken={AGENT_EXTENT: (64.0, 64.0)})
    with pytest.raises(ConfigError, match=r"AgentTargets of .* has 32, and SimpleNamespace takes 64"):
        SceneTensors.read(dataset(feature_transforms=[AgentTargets()], transforms=[taking]))


def test_a_planner_with_dropout_is_refused(together_recipe, monkeypatch):
    scenes = SceneTensors.read(DATASETS.build(together_recipe.train_dataloader.dataset))
    build = EgoStatusMLP.__init__

    def dropping(self, **settings):
        build(self, **settings)
        self.encoder.append(torch.nn.Dropout(0.1))

    monkeypatch.setattr(EgoStatusMLP, "__init__", dropping)
    training = Training("blind", together_recipe, scenes, [0])
    train_together([training], CPU)
    assert re.search(r"encoder\.\d+ drops units at random \(p=0.1\)", str(training.error))


@pytest.mark.parametrize("where", ["loss", "gradient of the last step"])
def test_who_broke_a_training_is_told(together_recipe, monkeypatch, where):
    """Step 2 of epoch 1, and weights that only the last update has ruined."""
    scenes = SceneTensors.read(DATASETS.build(together_recipe.train_dataloader.dataset))
    steps = len(scenes) // 2
    assert steps > 1
    given, loss = [], EgoStatusMLP.loss
    start = RecordedStep.start

    def watched(self, numbers, *args):
        given.append([scenes.tokens[number] for number in numbers])
        start(self, numbers, *args)

    def broken(self, inputs, samples):
        terms = loss(self, inputs, samples)
        if where == "loss" and len(given) == 2:
            terms["loss_trajectory"] = terms["loss_trajectory"] * torch.inf
        if where != "loss" and len(given) == 2 * steps:
            terms["loss_trajectory"].register_hook(lambda gradient: gradient * torch.nan)
        return terms

    monkeypatch.setattr(RecordedStep, "start", watched)
    monkeypatch.setattr(EgoStatusMLP, "loss", broken)
    training = Training("blind", together_recipe, scenes, [0])
    train_together([training], CPU)
    assert not training.weights and not training.losses
    if where == "loss":
        before, at = given[:2]
        said = (
            f"blind, seed 0: loss is inf in step 2 of epoch 1, scenes {', '.join(at)}; the weights are those"
        )
        assert str(training.error).startswith(f"{said} after the scenes {', '.join(before)}")
    else:
        assert re.search(r"weights hold NaN or infinity after the last step", str(training.error))


def test_float_images_are_packed_as_they_are(tmp_path):
    camera = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pack_scenes(SceneTensors(("a", "b"), {"inputs.camera": camera}), tmp_path / "packed.safetensors")
    assert torch.equal(unpack_scenes(tmp_path / "packed.safetensors").fields["inputs.camera"], camera)
