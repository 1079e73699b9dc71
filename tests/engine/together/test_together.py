"""Trainings side by side are those of the runner: same scenes, draws, updates and weights."""

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict

from beyonddrive.benchmarks.on_gpu.recipes import WITHOUT_VALIDATION
from beyonddrive.engine.configs import load_config
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.engine.together.packing import pack_scenes, unpack_scenes
from beyonddrive.engine.together.scenes import SceneTensors, TogetherError
from beyonddrive.engine.together.step import RecordedStep
from beyonddrive.engine.together.training import Training, check_recipe, plans_of, train_together
from beyonddrive.heads.plan_prior import plan_priors
from beyonddrive.registry import DATASETS
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
