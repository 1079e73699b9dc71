"""Plans drawn during validation: which scenes, what is drawn, and where the pictures go."""

import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.registry import HOOKS, VISUALIZERS
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.sample import PlanSample
from beyonddrive.tools import train
from beyonddrive.visualization import palette
from beyonddrive.visualization.pictures_hook import PictureError, chosen_scenes

PICTURES = {
    "default_hooks.pictures.type": "PlanPicturesHook",
    "default_hooks.pictures.num_scenes": 2,
    "default_hooks.pictures.optional": False,
    "visualizer.cameras": None,
    "visualizer.height": 160,
    "train_cfg.max_epochs": 2,
}


def pictures_of(work_dir):
    return sorted(path.name for path in work_dir.glob("*/vis_data/vis_image/*.png"))


def test_plans_of_the_same_scenes_are_drawn_after_each_validation(tmp_path, blind_recipe):
    runner = build_train_runner(load_config(blind_recipe, PICTURES), str(tmp_path / "w"))
    runner.train()
    tokens = runner.val_dataloader.dataset.dataset.tokens
    names = [f"{token}_bev_{epoch}.png" for token in (tokens[0], tokens[1]) for epoch in (1, 2)]
    assert pictures_of(tmp_path / "w") == sorted(names)
    drawn = [cv2.imread(str(next((tmp_path / "w").glob(f"*/vis_data/vis_image/{name}")))) for name in names]
    assert all(picture.shape == (160, 160, 3) for picture in drawn)
    assert (drawn[0] != drawn[1]).any() and (drawn[2] != drawn[3]).any()  # another epoch, another plan


def test_a_training_that_need_not_draw_goes_on_where_it_cannot(tmp_path, blind_recipe):
    build_train_runner(load_config(blind_recipe, {"train_cfg.max_epochs": 1}), str(tmp_path / "w")).train()
    assert not pictures_of(tmp_path / "w")


@pytest.mark.parametrize("optional", [True, False])
def test_a_file_that_is_gone_while_training_ends_only_pictures_that_are_asked_for(
    tmp_path, blind_recipe, optional
):
    options = {**PICTURES, "default_hooks.pictures.optional": optional, "train_cfg.max_epochs": 3}
    runner = build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w"))
    draw, tokens = runner.visualizer.draw_scene, runner.val_dataloader.dataset.dataset.tokens

    def draw_scene(scene, root, sample=None):
        if sample is not None and scene.token == tokens[0] and runner.epoch >= 2:
            raise SensorError("CAM_F0.jpg: image is missing")
        return draw(scene, root, sample)

    runner.visualizer.draw_scene = draw_scene
    if optional:
        runner.train()
    else:
        with pytest.raises(SensorError, match="image is missing"):
            runner.train()
    drawn = [(tokens[0], 1), (tokens[1], 1)] + [(tokens[1], epoch) for epoch in (2, 3) if optional]
    assert pictures_of(tmp_path / "w") == sorted(f"{token}_bev_{epoch}.png" for token, epoch in drawn)
    (log,) = (tmp_path / "w").glob("*/*.log")
    said = f"scene {tokens[0]} is drawn no more: CAM_F0.jpg: image is missing"
    assert log.read_text().count(said) == (1 if optional else 0)


def test_an_interval_counts_validations(tmp_path, blind_recipe):
    options = {**PICTURES, "default_hooks.pictures.interval": 2, "train_cfg.max_epochs": 3}
    build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w")).train()
    assert {name[-5] for name in pictures_of(tmp_path / "w")} == {"1", "3"}


def test_what_cannot_be_drawn_is_noticed_before_the_first_epoch(tmp_path, blind_recipe, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for options, problem in (
        (["visualizer.cameras=front"], "set visualizer.cameras=None"),
        (["visualizer.type=Visualizer"], "a Visualizer draws no scenes"),
        (["default_hooks.pictures.num_scenes=0"], "num_scenes and interval must be at least 1"),
        (["visualizer.cameras=rear"], "cameras must be None or one of front, arc, all"),
    ):
        given = {
            **{key: str(value) for key, value in PICTURES.items()},
            **dict(o.split("=") for o in options),
        }
        if options == ["visualizer.type=Visualizer"]:
            given = {k: v for k, v in given.items() if k not in ("visualizer.cameras", "visualizer.height")}
        arguments = [f"{key}={value}" for key, value in given.items()]
        assert train.main([str(blind_recipe), "--cfg-options", *arguments]) == 1
        error = capfd.readouterr().err
        assert problem in error and "Traceback" not in error
    assert not list(tmp_path.glob("work_dirs/*/*.pth"))
    with pytest.raises(PictureError, match="has no scenes to draw"):
        chosen_scenes([1, 2], 1)


@pytest.mark.parametrize("name", ["TensorboardVisBackend", "WandbVisBackend", "MLflowVisBackend"])
def test_other_backends_are_one_line_and_name_the_package_they_lack(
    tmp_path, blind_recipe, name, capfd, monkeypatch
):
    package = {"TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb"}.get(name, "mlflow")
    for module in [*sys.modules]:
        if module.startswith("torch.utils.tensorboard"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    text = blind_recipe.read_text() + f'\nvisualizer = dict(vis_backends=[dict(type="{name}")])\n'
    blind_recipe.write_text(text)
    assert train.main([str(blind_recipe), "--work-dir", str(tmp_path / "w")]) == 1
    error = capfd.readouterr().err
    assert f"visualizer.vis_backends: {name} cannot be used" in error and "Traceback" not in error
    assert "pip install" in error and package in error and 'dict(type="LocalVisBackend")' in error


def test_a_backend_gets_figures_and_pictures(tmp_path, blind_recipe):
    """Weights & Biases stands for the backends: mmengine's own code runs, its package is a double."""
    text = blind_recipe.read_text() + '\nvisualizer = dict(vis_backends=[dict(type="WandbVisBackend")])\n'
    blind_recipe.write_text(text)
    double = _Wandb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "wandb", double)
        build_train_runner(load_config(blind_recipe, PICTURES), str(tmp_path / "w")).train()
    keys = {key for logged in double.logged for key in logged}
    assert {"train/loss", "val/pdms/PDMS"} <= keys
    assert sum(isinstance(value, np.ndarray) for logged in double.logged for value in logged.values()) == 4


class _Wandb:
    """What mmengine's backend uses of the package."""

    def __init__(self):
        self.logged = []
        self.config = self.run = self

    def init(self, **kwargs):
        pass

    def update(self, *args, **kwargs):
        pass

    def log_code(self, **kwargs):
        pass

    def watch(self, *args, **kwargs):
        pass

    def Image(self, image):  # noqa: N802 - its name there
        return np.asarray(image)

    def log(self, values, **kwargs):
        self.logged.append(dict(values))

    def join(self):
        pass


@pytest.fixture
def visualizer():
    return VISUALIZERS.build({"type": "PlanVisualizer", "name": "test", "num_proposals": 2, "height": 160})


def sample_of(plans, scores=None):
    sample = PlanSample(metainfo={"token": "a"})
    sample.pred = BaseDataElement(trajectory=torch.from_numpy(plans[0]))
    sample.pred.proposals = torch.from_numpy(plans)
    if scores is not None:
        sample.pred.scores = torch.tensor(scores)
    return sample


def test_expert_plan_and_best_proposals_are_drawn(world_folder, visualizer, straight_plan):
    root = NavsimRoot(world_folder)
    scene = next(root.scenes("mini"))
    plans = np.concatenate([straight_plan, straight_plan * 0.8, straight_plan * 0.5]).astype(np.float32)
    layers = visualizer._layers(sample_of(plans, [0.1, 0.9, 0.5]))
    assert [layer.role for layer in layers] == ["proposals", "plan"]
    np.testing.assert_allclose(layers[0].plans, plans[[1, 2]])
    pictures = visualizer.draw_scene(scene, root, sample_of(plans))
    assert pictures["bev"].shape == (160, 160, 3) and pictures["camera"].shape == (160, 284, 3)
    for picture in pictures.values():
        assert (np.abs(picture.astype(int) - palette.EXPERT).max(axis=-1) < 25).any()
    alone = visualizer.draw_scene(scene, root)
    assert (alone["bev"] != pictures["bev"]).any() and (alone["camera"] != pictures["camera"]).any()
    with pytest.raises(PlanError, match="NaN"):
        visualizer.draw_scene(scene, root, sample_of(plans * np.nan))


def test_the_hook_is_found_by_its_name():
    assert HOOKS.build({"type": "PlanPicturesHook"}).num_scenes == 4


def test_boxes_that_a_planner_found_are_outlined_from_above(split_root):
    root = NavsimRoot(split_root)
    scene = next(iter(root.scenes("train")))
    visualizer = VISUALIZERS.build(
        {"type": "PlanVisualizer", "name": "boxes", "cameras": None, "height": 600}
    )

    def outlines(scores):
        sample = PlanSample()
        rows = [[8.0, 3.0, 0.8, 4.5, 1.9, 1.5, 0.4, 0, 0], [8.0, -3.0, 0.8, 4.5, 1.9, 1.5, 0, 0, 0]]
        sample.pred = BaseDataElement(
            trajectory=torch.zeros(8, 3), boxes=torch.tensor(rows), box_scores=torch.tensor(scores)
        )
        picture = visualizer.draw_scene(scene, root, sample)["bev"]
        return int((np.abs(picture.astype(int) - palette.DETECTION).max(axis=2) < 60).sum())

    none, one, two = outlines([0.1, 0.2]), outlines([0.9, 0.2]), outlines([0.9, 0.8])
    assert none < one < two  # (the legend names them in any case)
