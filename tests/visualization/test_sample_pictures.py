"""Samples after the pipeline: what is ahead is up, what is left is left, and each thing has its colour."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from beyonddrive.datasets.transforms.status import HideStatus
from beyonddrive.structures.sample import PlanSample
from beyonddrive.tools import browse
from beyonddrive.visualization import palette
from beyonddrive.visualization.sample_pictures import (
    BEV_HEIGHT,
    HEADER,
    MARGIN,
    WIDTH,
    describe_status,
    draw_sample,
)

STATUS = torch.tensor([1.0, 0, 0, 0, 5, 0, 1, 0])
SEES = [
    "dict(type='EgoStatus')", "dict(type='PlanTarget')", "dict(type='AgentTargets')",
    "dict(type='BEVMapTarget', walkways=False, pixel_size=0.5)",
]  # fmt: skip


def straight(speed, side=0.0):
    plan = torch.zeros(8, 3)
    plan[:, 0] = torch.arange(1, 9) * 0.5 * speed
    plan[:, 1] = torch.linspace(0, side, 8)
    return plan


@pytest.fixture
def sample():
    """A vehicle on the map 16 m ahead and 20 m to the left, an agent beside it, a plan, and two negatives."""
    found = PlanSample(metainfo={"token": "abc", "log_name": "a_log"})
    classes = torch.zeros(128, 256, dtype=torch.int64)
    classes[60:68, 204:212] = 5
    agents = torch.zeros(30, 5)
    agents[0] = torch.tensor([16.0, -20.0, 0.0, 4.0, 2.0])
    labels = torch.arange(30) == 0
    found.gt = BaseDataElement(
        trajectory=straight(5.0), bev_semantic_map=classes, agent_states=agents, agent_labels=labels
    )
    plans = torch.stack([straight(5.0, 15.0), straight(5.0, -15.0), straight(9.0, 1.0)])
    valid, columns = torch.tensor([True, True, False]), torch.tensor([0, 1, 1])
    found.negatives = BaseDataElement(plans=plans, valid=valid, columns=columns)
    return found


def window_of(page, inputs):
    """The bird's-eye view of a page, and the function from metres to its pixels."""
    top = HEADER + (round(64 * (WIDTH - 2 * MARGIN) / 256) + MARGIN if "camera" in inputs else 0)
    width = WIDTH - (3 * MARGIN + BEV_HEIGHT if "lidar" in inputs else 2 * MARGIN)
    scale = BEV_HEIGHT / (36.0 + 8.0)
    window = page[top : top + BEV_HEIGHT, MARGIN : MARGIN + width]
    return window, lambda x, y: window[round((36.0 - x) * scale), round(width / 2 - y * scale)].tolist()


@pytest.mark.parametrize("with_sensors", [False, True])
def test_everything_is_where_it_is(sample, with_sensors):
    inputs = {"status": STATUS}
    if with_sensors:
        lidar = torch.zeros(1, 64, 64)
        lidar[0, 60, 2] = 1.0  # ahead and to the right
        camera = torch.zeros(3, 64, 256)
        camera[0, :, 128:] = 1.0
        inputs |= {"camera": camera, "lidar": lidar}
    page = draw_sample(inputs, sample)
    window, at = window_of(page, inputs)
    assert page.shape[1] == WIDTH and page.dtype == np.uint8
    assert at(16.0, 20.0) == list(palette.AGENTS["vehicle"])  # y is to the left
    assert at(10.0, 10.0) == list(palette.GROUND)
    assert at(33.0, 0.0) == list(palette.PAPER)  # beyond the map
    assert at(7.6, 0.0) == list(palette.EXPERT)
    for name, side in (("NC", -1), ("DAC", 1)):  # the one that fails NC goes left
        is_near = np.abs(window.astype(int) - palette.FAILURES[name]).max(axis=-1) < 30
        columns = np.argwhere(is_near[:400])[:, 1] - window.shape[1] / 2
        assert len(columns) > 100 and (np.sign(columns) == side).all()
    if with_sensors:
        assert page[HEADER + 100, 300].tolist() == [0, 0, 0]
        assert page[HEADER + 100, WIDTH - 300].tolist() == [255, 0, 0]
        square = page[-BEV_HEIGHT - MARGIN : -MARGIN, -BEV_HEIGHT - MARGIN : -MARGIN, 0]
        dark = np.argwhere(square < 100)
        assert len(dark) and dark[:, 0].max() < BEV_HEIGHT / 4 and dark[:, 1].min() > BEV_HEIGHT * 3 / 4


def test_inputs_alone_are_drawn():
    points = torch.tensor([[10.0, 0.0, 0.5, 1.0]]).repeat(5, 1)
    page = draw_sample({"status": STATUS, "points": points}, PlanSample())
    assert page.shape == (HEADER + BEV_HEIGHT + MARGIN, WIDTH, 3)
    assert (page[:, -BEV_HEIGHT - MARGIN : -MARGIN] < 100).any()


def test_the_command_draws_scenes_of_a_config(tmp_path, blind_recipe, split_root, capsys):
    blind_recipe.write_text(
        blind_recipe.read_text().replace('dict(type="EgoStatus"), dict(type="PlanTarget")', ", ".join(SEES))
    )
    out = tmp_path / "pictures"
    assert browse.main([str(blind_recipe), "--num", "2", "--out", str(out)]) == 0
    assert "2 pictures of 6 samples" in capsys.readouterr().out
    first, second = sorted(out.glob("*.png"))
    assert cv2.imread(str(first)).shape == (HEADER + BEV_HEIGHT + MARGIN, WIDTH, 3)
    again = tmp_path / "again"
    assert browse.main([str(blind_recipe), "--tokens", second.stem, "--out", str(again)]) == 0
    assert (again / second.name).read_bytes() == second.read_bytes()
    wrapped = blind_recipe.with_name("wrapped.py")  # a data set in one of mmengine's wrappers
    wrapped.write_text(
        f"_base_ = '{blind_recipe}'\n"
        "train_dataloader = dict(dataset=dict(\n"
        "    _delete_=True, type='RepeatDataset', times=2, dataset={{_base_.train_dataloader.dataset}}))\n"
    )
    more = tmp_path / "more"
    assert browse.main([str(wrapped), "--tokens", second.stem, "--out", str(more)]) == 0
    assert "1 pictures of 12 samples" in capsys.readouterr().out
    assert (more / second.name).read_bytes() == second.read_bytes()
    assert browse.main([str(blind_recipe), "--tokens", "nowhere", "--out", str(again)]) == 1
    assert "browse: --tokens: nowhere: not among the 6 scenes" in capsys.readouterr().err
    words = [str(blind_recipe), "--out", str(again), "--cfg-options", "train_dataloader=None"]
    assert browse.main(words) == 1
    assert "has no train_dataloader" in capsys.readouterr().err


def test_a_scene_that_cannot_be_made_is_named_and_the_others_are_drawn(tmp_path, blind_recipe, capsys):
    text = blind_recipe.read_text().replace('dict(type="EgoStatus")', 'dict(type="LoadCameraStitch")')
    blind_recipe.write_text(text)
    assert browse.main([str(blind_recipe), "--num", "2", "--out", str(tmp_path / "none")]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("browse: ") == 2 and "0 pictures of 6 samples" in printed.out


def test_a_command_that_is_hidden_is_no_turn():
    shown = HideStatus(["command"])({"status": STATUS.numpy()})
    assert describe_status({"status": STATUS}).startswith("left, 5.0 m/s")
    assert describe_status(shown).startswith("no command, 5.0 m/s")
