"""A zoo from trainings in one command, and planners that take their weights from it."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import torch

from beyonddrive.apis import init_planner, load_config
from beyonddrive.checkpoints import zoo as zoo_files
from beyonddrive.checkpoints.published_weights import PublishedError
from beyonddrive.checkpoints.zoo import ZooError, find_released
from beyonddrive.engine.runner import build_train_runner
from beyonddrive.registry import MODELS
from beyonddrive.tools import make_zoo as tool

MLP, LTF = "ego_mlp_1xb16-12e_synth", "ltf-beyonddrive_tiny_1xb16-12e_synth"


def random_training(folder, name, options=None):
    """What a training leaves, with weights that were never trained."""
    config = load_config(name, options)
    torch.manual_seed(0)
    planner = MODELS.build(config.model)
    folder.mkdir(parents=True)
    config.dump(folder / f"{name}.py")
    torch.save({"state_dict": planner.state_dict(), "meta": {"epoch": 12}}, folder / "epoch_12.pth")
    (folder / "last_checkpoint").write_text(str(folder / "epoch_12.pth"))
    return planner.eval()


@pytest.fixture
def trained(tmp_path, split_root):
    """Folder with a training of the MLP for one epoch, and a folder of LTF below another one."""
    options = {
        "data_root": str(split_root),
        "feature_pipeline": [{"type": "EgoStatus"}, {"type": "PlanTarget"}],
        "train_cfg.max_epochs": 1,
        "log_level": "ERROR",
    }
    for part in ("train", "val"):
        options[f"{part}_dataloader.dataset.scene_filter"] = None
        options[f"{part}_dataloader.dataset.cache_dir"] = None
    options["train_dataloader.batch_size"] = 2
    options |= dict.fromkeys(("val_dataloader", "val_cfg", "val_evaluator"))
    build_train_runner(load_config(MLP, options), str(tmp_path / "trained" / MLP), seed=3).train()
    random_training(tmp_path / "trained" / "more" / "ltf", LTF)
    return tmp_path / "trained"


def plans_of(planner):
    generator = torch.Generator().manual_seed(5)
    inputs = {"status": torch.rand(3, 8, generator=generator)}
    if "camera" in planner.required_inputs:
        inputs["camera"] = torch.rand(3, 3, *planner.backbone.image_size, generator=generator)
    with torch.no_grad():
        return planner(inputs, mode="tensor")["trajectory"].numpy()


def test_one_command_makes_a_zoo_whose_planners_plan_as_the_trained_ones(tmp_path, trained, capsys):
    out = tmp_path / "zoo"
    assert tool.main([str(trained), "--out", str(out), "--half"]) == 0
    printed = capsys.readouterr().out
    index = json.loads((out / "index.json").read_text())["models"]
    sums = dict(line.split("  ")[::-1] for line in (out / "SHA256SUMS").read_text().splitlines())
    assert list(index) == [MLP, LTF] and sums.keys() == {f"{name}.safetensors" for name in index}
    checkpoints = {MLP: trained / MLP / "epoch_1.pth", LTF: trained / "more/ltf/epoch_12.pth"}
    for name, checkpoint in checkpoints.items():
        content = (out / f"{name}.safetensors").read_bytes()
        assert len(content) < 2.5e6
        assert hashlib.sha256(content).hexdigest() == index[name]["sha256"] == sums[f"{name}.safetensors"]
        assert f"{name}: {len(content) / 1e6:.2f} MB, float16, sha256 {index[name]['sha256']}" in printed
        planner, whole = init_planner(name, "zoo", zoo=out), init_planner(name, checkpoint)
        assert all(value.dtype == torch.float32 for value in planner.parameters())
        moved = np.abs(plans_of(planner) - plans_of(whole)).max()
        assert 0.0 < moved < 0.02 and 0.0 < index[name]["plan_difference"] < 0.02
        for key, value in planner.named_buffers():
            assert torch.equal(value, whole.get_buffer(key)), key
    assert index[MLP]["training"].items() >= {"checkpoint": "epoch_1.pth", "epoch": 1, "seed": 3}.items()
    assert index[MLP]["training"]["data"][0]["scenes"] == 6
    assert index[MLP]["training"]["validation"] == []  # (there is none)
    assert index[MLP]["changes"] == [
        "train_cfg.max_epochs: trained with 1, published 12",
        "train_dataloader.batch_size: trained with 2, published 16",
    ]
    assert index[LTF]["changes"] == []
    assert tool.main([str(trained), "--out", str(tmp_path / "again"), "--half"]) == 0
    assert all((tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in out.iterdir())


def test_a_later_start_that_left_no_checkpoint_tells_nothing_of_the_one_that_did(tmp_path, trained):
    folder = trained / MLP
    later = folder / "29991231_235959"
    later.mkdir()
    (later / "run.json").write_text(json.dumps({"seed": 4}))
    load_config(MLP).dump(folder / f"{MLP}.py")
    assert tool.main([str(trained), "--out", str(tmp_path / "zoo")]) == 0
    index = json.loads((tmp_path / "zoo/index.json").read_text())["models"][MLP]
    assert index["training"]["seed"] == 3
    assert index["changes"][0] == "train_cfg.max_epochs: trained with 1, published 12"


def test_full_precision_is_bit_by_bit_and_within_the_limit(tmp_path, capsys):
    planner = random_training(tmp_path / "trained" / "ltf", LTF)
    marked = tmp_path / "trained" / "ltf" / "best_pdms_epoch_3.pth"  # what is released is the last one
    torch.save({"state_dict": {}, "meta": {"epoch": 3}}, marked)
    words = [str(tmp_path / "trained"), str(tmp_path / "trained" / "ltf"), "--out", str(tmp_path / "zoo")]
    assert tool.main([*words, "--max-mb", "4"]) == 1
    assert "takes 4.4 MB, more than 4; give --half, or raise --max-mb" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["trained"]
    assert tool.main(words) == 0
    found = init_planner(LTF, "zoo", zoo=tmp_path / "zoo").state_dict()
    assert all(torch.equal(value, found[key]) for key, value in planner.state_dict().items())
    assert tool.main(words) == 1
    assert "is there already" in capsys.readouterr().err


def test_what_is_no_training_of_a_published_config_is_refused(tmp_path, capsys):
    folder = tmp_path / "trained"
    folder.mkdir()
    words = [str(folder), "--out", str(tmp_path / "zoo")]

    def refused(message):
        assert tool.main(words) == 1
        assert message in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["trained"]

    refused("no training below")
    random_training(folder / "other", MLP, {"model.hidden": 8})
    refused(
        "is no training of the published ego_mlp_1xb16-12e_synth: model.hidden: trained with 8, published 512"
    )
    shutil.rmtree(folder / "other")
    random_training(folder / "a", MLP)
    shutil.copytree(folder / "a", folder / "b")
    refused(f"{MLP}: was trained in {folder / 'a'} and in {folder / 'b'}; leave one")
    shutil.rmtree(folder / "b")
    (folder / "a" / f"{MLP}.py").rename(folder / "a" / "mine.py")
    refused("mine: no such config")
    (folder / "a" / "mine.py").rename(folder / "a" / f"{MLP}.py")
    words += ["--checkpoint", "best"]
    refused("has no checkpoint that is marked as best")
    for name in ("best_a_epoch_1.pth", "best_b_epoch_2.pth"):
        shutil.copy(folder / "a" / "epoch_12.pth", folder / "a" / name)
    refused("best_a_epoch_1.pth, best_b_epoch_2.pth are all best")
    (folder / "a" / "best_b_epoch_2.pth").unlink()
    broken = torch.load(folder / "a" / "best_a_epoch_1.pth")
    broken["state_dict"]["encoder.0.weight"][0, 0] = float("nan")
    torch.save(broken, folder / "a" / "best_a_epoch_1.pth")
    refused("hold NaN or infinity")
    broken["state_dict"]["encoder.0.weight"][0, 0] = 1e6
    torch.save(broken, folder / "a" / "best_a_epoch_1.pth")
    words.append("--half")
    refused("encoder.0.weight is beyond the range of float16")


def test_a_zoo_that_is_absent_damaged_or_newer_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(
        ZooError, match=r"ego_mlp.*no released checkpoints are installed.*beyonddrive make-zoo"
    ):
        monkeypatch.setattr(zoo_files, "zoo_folders", list)
        init_planner(MLP, "zoo")
    monkeypatch.undo()
    with pytest.raises(ZooError, match=r"no zoo here \(index.json missing\); make one"):
        init_planner(MLP, "zoo", zoo=tmp_path / "nothing")
    random_training(tmp_path / "trained" / "a", MLP)
    folder = tmp_path / "their_planners" / "zoo"
    folder.parent.mkdir()
    assert tool.main([str(tmp_path / "trained"), "--out", str(folder)]) == 0
    with pytest.raises(
        ZooError, match=f"{LTF}: has no checkpoint in {re.escape(str(folder))}, where there is {MLP}"
    ):
        init_planner(LTF, "zoo", zoo=folder)
    with pytest.raises(ZooError, match="for checkpoint='zoo' only"):
        init_planner(MLP, tmp_path / "a.pth", zoo=folder)
    # an installed package that brings planners brings their weights, too
    (folder.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(zoo_files, "config_packages", lambda: ["their_planners"])
    assert find_released(MLP) == folder / f"{MLP}.safetensors"
    index = json.loads((folder / "index.json").read_text())
    for change, message in (
        ({"version": 2}, "is of version 2, this release reads 1: install beyonddrive"),
        ({"models": {MLP: {"file": "a"}}}, "is no index of a zoo"),
        ({"models": {MLP: {**index["models"][MLP], "file": "../a"}}}, "'../a' is not in the folder"),
        ({"models": []}, "is no index of a zoo"),
    ):
        (folder / "index.json").write_text(json.dumps({**index, **change}))
        with pytest.raises(ZooError, match=message):
            init_planner(MLP, "zoo")
    (folder / "index.json").write_text(json.dumps(index))
    weights = folder / f"{MLP}.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PublishedError, match="it is damaged or another file"):
        init_planner(MLP, "zoo")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"is gone, though .*index\.json names it"):
        init_planner(MLP, "zoo")
