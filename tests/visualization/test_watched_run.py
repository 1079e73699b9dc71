"""What TensorBoard shows of a BeyondDrive run by default: read back from its event file."""

import json

import numpy as np
import pytest

from beyonddrive.datasets.transforms.base import BaseTransform
from beyonddrive.engine.runner import build_train_runner, load_config
from beyonddrive.registry import TRANSFORMS
from beyonddrive.structures.plan import SCORE_COLUMNS

REPELLED = """
_base_ = "{blind}"
model = dict(repulsion=dict(weight=0.5))
train_dataloader = dict(
    dataset=dict(pipeline=[dict(type="SomeNegatives"), dict(type="PackPlanInputs", input_keys=("status",))])
)
train_cfg = dict(val_interval=2)
visualizer = dict(height=160, cameras=None)
optim_wrapper = dict(clip_grad=None)
"""


@TRANSFORMS.register_module()
class SomeNegatives(BaseTransform):
    """One negative beside the expert; a third of the scenes has none."""

    def transform(self, results):
        results["negative_plans"] = results["trajectory"][None] + 1.0
        results["negative_valid"] = np.array([int(results["token"], 16) % 3 > 0])
        return results


def events_of(work_dir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (file,) = work_dir.glob("*/vis_data/events.out.tfevents.*")
    return EventAccumulator(str(file)).Reload()


def test_every_figure_of_a_beyonddrive_run_is_in_the_event_file(tmp_path, blind_recipe):
    recipe = tmp_path / "repelled.py"
    recipe.write_text(REPELLED.replace("{blind}", str(blind_recipe)))
    runner = build_train_runner(load_config(recipe), str(tmp_path / "w"))
    runner.train()
    events = events_of(tmp_path / "w")
    named = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    each_step = ("loss", "loss_trajectory", "loss_repulsive", "negative_share", "grad_norm")
    each_step += ("lr", "time", "data_time", "memory", "epoch")
    for name in each_step:
        assert [event.step for event in named[f"train/{name}"]] == list(range(1, 7)), name
        assert all(np.isfinite(event.value) for event in named[f"train/{name}"]), name
    for name in (*SCORE_COLUMNS, "num_scenes", "num_failed"):
        assert [event.step for event in named[f"val/pdms/{name}"]] == [6], name  # steps, not epochs
    assert all(name.startswith(("train/", "val/")) for name in named)  # one name, one meaning
    shares = {event.value for event in named["train/negative_share"]}
    assert shares <= {0.0, 0.5, 1.0} and len(shares) > 1
    assert min(event.value for event in named["train/grad_norm"]) > 0
    assert named["train/memory"][-1].value > 50  # [MiB]
    # Plans of two scenes of the validation, as drawn.
    tokens = runner.val_dataloader.dataset.dataset.tokens
    assert events.Tags()["images"] == sorted(f"plans/{token}_bev" for token in (tokens[0], tokens[1]))
    assert [(image.step, image.width) for image in events.Images(f"plans/{tokens[0]}_bev")] == [(6, 160)]
    # The same figures are where they were before.
    (lines,) = (tmp_path / "w").glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in lines.read_text().splitlines()]
    losses = [line["loss_repulsive"] for line in logged if "loss_repulsive" in line]
    assert losses == pytest.approx([event.value for event in named["train/loss_repulsive"]], rel=1e-6)
    assert logged[-1]["step"] == 2 and "pdms/PDMS" in logged[-1]


def test_gradient_norms_are_those_that_clipping_finds(tmp_path, blind_recipe):
    """With a limit that is never reached, and without one."""
    norms = {}
    for name, clip in (("without", None), ("with", {"max_norm": 1e9})):
        options = {"optim_wrapper.clip_grad": clip, "train_cfg.max_epochs": 1, "train_cfg.val_interval": 9}
        options |= {"optim_wrapper.accumulative_counts": 2, "val_cfg": None, "val_dataloader": None}
        options |= {"val_evaluator": None, "default_hooks.checkpoint.save_best": None}
        build_train_runner(load_config(blind_recipe, options), str(tmp_path / name)).train()
        events = events_of(tmp_path / name)
        norms[name] = [event.value for event in events.Scalars("train/grad_norm")][-1]
    assert norms["without"] == pytest.approx(norms["with"], rel=1e-5)


def test_the_log_says_when_the_training_will_end(tmp_path, blind_recipe):
    options = {"train_cfg.max_epochs": 1, "log_level": "INFO"}
    build_train_runner(load_config(blind_recipe, options), str(tmp_path / "w")).train()
    (log,) = (tmp_path / "w").glob("*/*.log")
    text = log.read_text()
    assert "eta: 0:00:0" in text
    assert "no pictures of plans: PlanPicturesHook: scene" in text  # the golden scenes have no images
