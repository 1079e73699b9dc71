"""Checkpoints of original releases: recognised, converted whole and back, or refused with a reason."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from beyonddrive.apis import init_planner
from beyonddrive.checkpoints.conversion import to_native, to_official
from beyonddrive.checkpoints.golden import GoldenFile, load_recipe
from beyonddrive.checkpoints.loading import build_planner
from beyonddrive.checkpoints.recognition import strip_agent
from beyonddrive.checkpoints.releases import ConversionError
from beyonddrive.checkpoints.weight_files import read_weights, write_weights
from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file
from beyonddrive.tools import convert_checkpoint

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "golden" / "models"
CONFIGS = ROOT / "configs"


@cache
def golden_file(name: str) -> GoldenFile:
    return GoldenFile(GOLDEN, name, _recipe())


@cache
def _recipe():
    return load_recipe(GOLDEN)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return set(a) == set(b) and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def mlp() -> dict[str, Tensor]:
    return golden_file("ego_status_mlp").weights()


@pytest.fixture(scope="module")
def ltf() -> dict[str, Tensor]:
    return golden_file("navsim_ltf").weights()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_round_trip_through_files_is_bit_exact(tmp_path, capsys, mlp, suffix):
    lightning = {f"agent.{key}": value for key, value in mlp.items()}
    source, ours, back = (tmp_path / f"{name}{suffix}" for name in ("official", "ours", "back"))
    write_weights(source, lightning, {})
    assert convert_checkpoint.main([str(source), str(ours)]) == 0
    assert "8 weights of ego_mlp" in capsys.readouterr().out
    converted = read_weights(ours)
    assert "encoder.0.weight" in converted.state
    assert converted.meta["planner"] == "EgoStatusMLP" and converted.meta["release"] == "ego_mlp"
    assert converted.meta["model"]["hidden"] == 512
    assert convert_checkpoint.main(["--reverse", str(ours), str(back)]) == 0
    assert same(load_checkpoint_file(back)["state_dict"], lightning)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in (source, ours, back)
    )


@pytest.mark.parametrize(
    ("name", "drop", "release", "latent", "channels"),
    [
        ("navsim_ltf", (), "ltf", True, 1),
        ("navsim_ltf", ("_transfuser_model._backbone.lidar_latent",), "transfuser", False, 1),
        ("bd_ltf_delta", (), "ltf-delta", True, 1),
        ("bd_ltf_abs", (), "ltf-absolute", True, 1),
        ("bd_flowpolicy", (), "flow_policy", True, 1),
        ("bd_flowpolicy", ("_flowpolicy_model._backbone.lidar_latent",), "flow_policy", False, 1),
    ],
)
def test_planner_and_variant_follow_from_the_keys(name, drop, release, latent, channels):
    keys = {key: value for key, value in golden_file(name).keys.items() if key not in drop}
    state = {f"agent.{key}": torch.zeros(shape) for key, (shape, _) in keys.items()}
    conversion = to_native(state)
    assert conversion.release.name == release
    assert conversion.settings["backbone.latent"] is latent
    assert conversion.settings["backbone.lidar_channels"] == channels
    assert conversion.model["backbone"]["latent"] is latent
    back = to_official(conversion.state)
    assert back.release.name == release
    assert set(back.state) == set(keys)


def test_lidar_channels_follow_from_the_first_convolution():
    state = {key: torch.zeros(shape) for key, (shape, _) in golden_file("bd_flowpolicy").keys.items()}
    state["_flowpolicy_model._backbone.lidar_latent"] = torch.zeros(1, 4, 256, 256)
    state["_flowpolicy_model._backbone.lidar_encoder.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    conversion = to_native(state)
    assert conversion.settings["backbone.lidar_channels"] == 4
    assert build_planner(conversion).backbone.lidar_channels == 4


def test_only_a_leading_agent_is_stripped():
    state = {"agent._mlp.agent.0": torch.zeros(1), "_mlp_agent.x": torch.ones(1)}
    assert list(strip_agent(state)) == ["_mlp.agent.0", "_mlp_agent.x"]
    with pytest.raises(ConversionError, match="twice, with and without"):
        strip_agent({"agent.a": torch.zeros(1), "a": torch.zeros(1)})


def _missing(state):
    del state["_mlp.2.bias"]


def _unexpected(state):
    state["_mlp.8.weight"] = torch.zeros(1)


def _foreign(state):
    state["optimizer.x"] = torch.zeros(1)


def _size(state):
    state["_mlp.0.weight"] = torch.zeros(512, 9)


def _nan(state):
    state["_mlp.4.bias"] = torch.full((512,), torch.nan)


def _another(state):
    state.clear()
    state["model.a"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_missing, r"1 missing \(_mlp\.2\.bias\)"),
        (_unexpected, r"1 unexpected \(_mlp\.8\.weight\)"),
        (_foreign, r"1 unexpected \(optimizer\.x\)"),
        (_size, r"1 of another size \(_mlp\.0\.weight \(512, 9\) for \(512, 8\)\)"),
        (_nan, r"1 weights hold NaN or infinity \(_mlp\.4\.bias\)"),
        (_another, "of no known planner"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, capsys, mlp, spoil, words):
    state = dict(mlp)
    spoil(state)
    with pytest.raises(ConversionError, match=words):
        to_native(state, source="a.ckpt")
    write_weights(tmp_path / "a.ckpt", state, {})
    assert convert_checkpoint.main([str(tmp_path / "a.ckpt"), str(tmp_path / "b.pth")]) == 1
    assert "a.ckpt" in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()


def test_a_planner_that_is_asked_for_must_be_the_one(mlp, ltf):
    assert to_native(mlp, "ego_mlp").release.name == "ego_mlp"
    with pytest.raises(ConversionError, match="is a checkpoint of ego_mlp, not of ltf: drop --planner"):
        to_native(mlp, "ltf")
    with pytest.raises(ConversionError, match="no published planner is called 'LTF'"):
        to_native(mlp, "LTF")
    latentless = {key: value for key, value in ltf.items() if not key.endswith("lidar_latent")}
    assert to_native(latentless).release.name == "transfuser"


def test_a_head_that_is_lost_is_reported_against_the_nearest_planner(ltf):
    state = {key: value for key, value in ltf.items() if "_trajectory_head._mlp.0" not in key}
    with pytest.raises(ConversionError, match=r"2 missing .*_trajectory_head\._mlp\.0\.weight"):
        to_native(state)


def test_ours_is_not_taken_for_theirs_nor_theirs_for_ours(mlp):
    ours = to_native(mlp).state
    with pytest.raises(ConversionError, match="it has our names already"):
        to_native(ours)
    with pytest.raises(ConversionError, match="has official names already"):
        to_official(mlp)
    with pytest.raises(ConversionError, match="those of no published planner"):
        to_official({"a": torch.zeros(1)})
    narrow = {**ours, "encoder.0.weight": torch.zeros(16, 8)}
    with pytest.raises(ConversionError, match="of another size"):
        to_official(narrow)


def test_files_that_are_no_checkpoints(tmp_path, capsys):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": {"a": 1}}, path)
    with pytest.raises(CheckpointError, match="holds 'a', a int"):
        read_weights(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="has no weights"):
        read_weights(path)
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_weights(broken)
    assert convert_checkpoint.main([str(tmp_path / "none.pth"), str(path)]) == 1
    assert "no such checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert_checkpoint.main([str(path), str(path)])


def test_official_checkpoints_load_directly(tmp_path, mlp):
    golden = golden_file("ego_status_mlp")
    path = tmp_path / "official.ckpt"
    write_weights(path, {f"agent.{key}": value for key, value in mlp.items()}, {})
    planner = init_planner(CONFIGS / "ego_mlp/ego_mlp_1xb64-50e_navtrain.py", path)
    assert not planner.training
    given = torch.from_numpy(golden.arrays["in/ego_status"])
    status = torch.cat([given[:, 4:], given[:, :4]], dim=1)
    with torch.no_grad():
        plan = planner({"status": status})["trajectory"]
    np.testing.assert_allclose(plan, golden.arrays["out/trajectory"], atol=2e-5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("ego_mlp/ego_mlp_1xb16-12e_synth.py", None),
        (
            "flow_policy/flow_policy_tiny_1xb16-12e_synth.py",
            r"does not fit planner FlowPolicy.*it is of planner EgoStatusMLP \(official ego_mlp\)",
        ),
    ],
)
def test_a_checkpoint_of_another_planner_is_refused(tmp_path, mlp, config, words):
    path = tmp_path / "official.ckpt"
    write_weights(path, mlp, {})
    if words is None:
        words = r"does not fit planner EgoStatusMLP.*of another shape"
        options = {"model.hidden": 16}
    else:
        options = {}
    with pytest.raises(CheckpointError, match=words):
        init_planner(CONFIGS / config, path, options=options)


def test_nan_weights_are_refused(tmp_path, mlp):
    path = tmp_path / "nan.ckpt"
    write_weights(path, {**mlp, "_mlp.0.bias": torch.full((512,), torch.inf)}, {})
    with pytest.raises(ConversionError, match=r"_mlp\.0\.bias\): the training diverged"):
        init_planner(CONFIGS / "ego_mlp/ego_mlp_1xb64-50e_navtrain.py", path)
