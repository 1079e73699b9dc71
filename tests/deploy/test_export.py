"""Exported planners give the same outputs: the faster copy, torch.export programs, ONNX files."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from timm.layers import BatchNormAct2d, StdConv2d
from timm.models.resnet import BasicBlock
from torch import nn

from beyonddrive import deploy
from beyonddrive.deploy import (
    ExportedPlanner,
    ExportError,
    PlannerGraph,
    largest_difference,
    write_graph,
)
from beyonddrive.deploy import graph as graph_module
from beyonddrive.deploy.cpu.packed import PackedBasicBlock, PackedConv2d, PackedLinear
from beyonddrive.deploy.exported import freeze
from beyonddrive.engine.runner import load_config
from beyonddrive.registry import MODELS
from beyonddrive.tools import export as tool

CONFIGS = Path(__file__).parents[2] / "configs"
MODEL_CONFIGS = CONFIGS / "_base_" / "models"
TINY = sorted(
    path.name
    for path in MODEL_CONFIGS.glob("*.py")
    if ("tiny" in path.name or "mlp" in path.name) and "pillars" not in path.name
)


def tiny(name: str, seed: int = 0):
    """A tiny planner whose batch norms have something to fold, with random anchors if it has any."""
    torch.manual_seed(seed)
    planner = MODELS.build(Config.fromfile(MODEL_CONFIGS / name).model).eval()
    for module in planner.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    head = planner.trajectory_head.bare
    if hasattr(head, "steps"):
        head.steps = 1  # a graph unrolls them
    for buffer in planner.buffers():
        if not bool(torch.isfinite(buffer).all()):
            buffer.copy_(torch.rand_like(buffer))
    return planner


def inputs_of(planner, batch: int = 2):
    graph = PlannerGraph(planner)
    named = dict(zip(graph.input_names, graph.example_inputs(batch), strict=True))
    named.pop("noise", None)
    return named


@pytest.mark.parametrize("name", TINY)
def test_the_exported_planner_gives_the_same_outputs(name):
    planner = tiny(name)
    inputs = inputs_of(planner)
    before = copy.deepcopy(planner.state_dict())
    with torch.no_grad():
        expected = planner(inputs)
        outputs = ExportedPlanner(planner)(inputs)
    assert set(outputs) == set(expected)
    for key, value in expected.items():
        allowed = 2e-5 * (1 + float(value.abs().max()))
        torch.testing.assert_close(outputs[key], value, rtol=0, atol=allowed)
    for key, value in planner.state_dict().items():
        assert torch.equal(value, before[key]), key  # the planner itself is as it was


def test_what_is_made_faster():
    planner = tiny("ltf_tiny.py")
    exported = ExportedPlanner(planner)
    kinds = [type(module) for module in exported.modules()]
    assert nn.BatchNorm2d not in kinds
    assert kinds.count(PackedBasicBlock) == 8
    assert PackedConv2d in kinds and nn.Conv2d not in kinds
    assert PackedLinear in kinds
    assert exported.planner.backbone.held_latent is not None
    assert planner.backbone.held_latent is None
    calls = []
    exported.planner.backbone.bev_encoder.conv1.register_forward_hook(lambda *_: calls.append(1))
    exported(inputs_of(planner))
    assert not calls  # the latent's stem has been run


def test_it_predicts_and_is_for_evaluation_only():
    planner = tiny("ltf_tiny.py")
    exported, inputs = ExportedPlanner(planner), inputs_of(planner)
    plans = [sample.pred.trajectory for sample in exported(inputs, mode="predict")]
    torch.testing.assert_close(torch.stack(plans), exported(inputs)["trajectory"])
    with pytest.raises(ExportError, match="has no losses"):
        exported(inputs, mode="loss")
    with pytest.raises(ExportError, match="cannot be trained"):
        exported.train()
    assert not exported.eval().training
    with pytest.raises(ExportError, match="takes no other weights"):
        exported.load_state_dict(planner.state_dict())
    for change in (torch.float64, "meta"):
        with pytest.raises(ExportError, match="stays what it is"):
            exported.to(change)
    assert exported.to("cpu").float() is exported
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(exported(inputs)["trajectory"], torch.stack(plans), rtol=0, atol=0)
    again = copy.deepcopy(exported)(inputs)["trajectory"]
    torch.testing.assert_close(again, torch.stack(plans), rtol=0, atol=0)
    with pytest.raises(ValueError, match="camera must be"):
        exported({**inputs, "camera": torch.rand(2, 3, 32, 256)})


def test_folding_needs_no_packing():
    planner = tiny("transfuser_tiny.py")
    frozen = freeze(planner)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    inputs = inputs_of(planner)
    with torch.no_grad():
        torch.testing.assert_close(frozen(inputs), planner(inputs), rtol=1e-4, atol=2e-5)


class WithShortcut(nn.Sequential):
    """Adds its input to what its layers make of it."""

    def forward(self, x):
        return x + super().forward(x)


class NormFirst(BasicBlock):
    """Normalises before it convolves."""

    def forward(self, x):
        return x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)],
        [nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)],
        [nn.Conv2d(4, 4, 1), BatchNormAct2d(4)],
        [nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)],
        [StdConv2d(4, 4, 3), nn.BatchNorm2d(4)],
        [WithShortcut(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4)],
        [NormFirst(4, 4)],
    ],
    ids=["norm", "stem", "norm-and-activation", "norm-by-batch", "other-conv", "other-stem", "other-block"],
)
def test_layers_of_ones_own_are_folded_only_where_nothing_changes(layers):
    torch.manual_seed(0)
    network = nn.Sequential(*copy.deepcopy(layers))
    x = torch.randn(4, 4, 8, 8)
    network(3 * x + 1)  # running statistics that are not the first ones
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(freeze(network)(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_onnx_gives_the_same_outputs(name, tmp_path):
    pytest.importorskip("onnxruntime")
    graph = PlannerGraph(tiny(name))
    path = tmp_path / "planner.onnx"
    write_graph(graph, path, batch=1)
    assert largest_difference(graph, path) < 2e-5


def test_programs_of_torch_take_any_number_of_scenes(tmp_path):
    graph = PlannerGraph(tiny("ltf_tiny.py"))
    path = tmp_path / "planner.pt2"
    write_graph(graph, path)
    for batch in (1, 3):
        assert largest_difference(graph, path, batch) < 2e-5


def test_export_tool(tmp_path, capsys):
    config = CONFIGS / "ego_mlp/ego_mlp_1xb16-12e_synth.py"
    planner = MODELS.build(load_config(config).model)
    checkpoint, out = tmp_path / "w.pth", tmp_path / "sub" / "planner.pt2"
    torch.save({"state_dict": planner.state_dict()}, checkpoint)
    assert tool.main([str(config), str(checkpoint), str(out)]) == 0
    assert "(status) -> (trajectory), differs from the planner by" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["planner.pt2"]
    assert tool.main([str(config), str(tmp_path / "none.pth"), str(out)]) == 1
    assert "no such checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main([str(config), str(checkpoint), str(tmp_path / "planner.pb")])


def test_planners_that_are_no_graphs():
    with pytest.raises(ExportError, match="ConstantVelocity cannot become a graph"):
        PlannerGraph(MODELS.build({"type": "ConstantVelocity"}))


def test_a_planner_that_asks_for_a_number_of_a_tensor_is_told_how_not_to(tmp_path):
    planner = tiny("ego_mlp.py")
    plain = planner.encode

    def encode(inputs):
        steps = int(inputs["status"].abs().sum())  # as a scheduler of diffusers does with its times
        return plain(inputs) if steps >= 0 else plain({"status": -inputs["status"]})

    planner.encode = encode
    with pytest.raises(ExportError, match=r"cannot follow EgoStatusMLP: .*has to be Python's") as caught:
        write_graph(PlannerGraph(planner), tmp_path / "planner.pt2")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_an_exporter_that_does_not_fit_is_told(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")

    def fail(*_, **__):
        raise TypeError("an int, got a boolean")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"got a boolean.*of about the same age"):
        write_graph(PlannerGraph(tiny("ego_mlp.py")), tmp_path / "planner.onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_never_takes_the_place_of_its_checkpoint(tmp_path: Path, capsys) -> None:
    checkpoint = tmp_path / "planner.pt2"
    checkpoint.write_bytes(b"weights")
    config = str(CONFIGS / "ego_mlp/ego_mlp_1xb16-12e_synth.py")
    assert tool.main([config, str(checkpoint), str(checkpoint)]) == 1
    assert f"OUT {checkpoint}: is read by this command" in capsys.readouterr().err
    assert checkpoint.read_bytes() == b"weights"


def test_what_is_compared_is_the_planner_itself(tmp_path):
    graph = PlannerGraph(tiny("ego_mlp.py"))
    with torch.no_grad():
        for weight in graph.planner.parameters():  # as if folding had gone wrong
            weight += 0.1
    write_graph(graph, tmp_path / "planner.pt2", 1)
    assert largest_difference(graph, tmp_path / "planner.pt2") > 1e-3


def test_a_file_for_any_number_of_scenes_is_run_with_several(tmp_path, capsys, monkeypatch):
    config = CONFIGS / "ego_mlp/ego_mlp_1xb16-12e_synth.py"
    checkpoint, out = tmp_path / "w.pth", tmp_path / "sub/planner.pt2"
    torch.save({"state_dict": MODELS.build(load_config(config).model).state_dict()}, checkpoint)
    words = [str(config), str(checkpoint), str(out), "--free-batch"]
    assert tool.main(words) == 0
    out.unlink()
    monkeypatch.setattr(deploy, "write_graph", lambda graph, path, batch: write_graph(graph, path, 1))
    assert tool.main(words) == 1
    assert "does not run with a batch of 3" in capsys.readouterr().err
    assert not list(out.parent.iterdir())


def test_nan_in_any_output_and_any_size_of_a_batch_is_a_difference(tmp_path, capsys, monkeypatch):
    graph = PlannerGraph(tiny("ego_mlp.py"))
    given = [value.numpy() for value in graph.expected(*graph.example_inputs())]
    monkeypatch.setattr(graph_module, "run_graph", lambda *_: [*given, np.full_like(given[0], np.nan)])
    monkeypatch.setattr(graph, "expected", lambda *_: tuple(map(torch.from_numpy, given * 2)))
    assert math.isnan(largest_difference(graph, tmp_path / "planner.pt2"))

    config = CONFIGS / "ego_mlp/ego_mlp_1xb16-12e_synth.py"
    checkpoint, out = tmp_path / "w.pth", tmp_path / "sub/planner.pt2"
    torch.save({"state_dict": MODELS.build(load_config(config).model).state_dict()}, checkpoint)
    monkeypatch.setattr(
        deploy, "largest_difference", lambda graph, path, batch: 0.0 if batch == 1 else math.nan
    )
    assert tool.main([str(config), str(checkpoint), str(out), "--free-batch"]) == 1
    assert "differs from the planner by nan; nothing was written" in capsys.readouterr().err
    assert not list(out.parent.iterdir())
