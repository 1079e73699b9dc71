"""Checkpoints in every form that people have them in: read alike by all that reads them, or refused."""

from pathlib import Path

import pytest
import torch

from beyonddrive.apis import init_planner
from beyonddrive.checkpoints.conversion import to_native, to_official
from beyonddrive.checkpoints.loading import load_weights
from beyonddrive.checkpoints.weight_files import read_weights
from beyonddrive.engine.checkpoint_files import CheckpointError
from beyonddrive.engine.runner import build_test_runner, build_train_runner, load_config
from beyonddrive.registry import MODELS
from beyonddrive.tools import convert_checkpoint, export

CONFIG = Path(__file__).parents[2] / "configs/ego_mlp/ego_mlp_1xb64-50e_navtrain.py"


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


OURS = {
    "trained": lambda state: {"state_dict": state, "meta": {"planner": "EgoStatusMLP"}},
    "bare": dict,
    "model": lambda state: {"model": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{}]}},
    "distributed": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled": lambda state: {"state_dict": prefixed("_orig_mod.", state)},
    "both": lambda state: {"model": prefixed("module._orig_mod.", state)},
    "compiled part": lambda state: {
        key.replace("encoder.", "encoder._orig_mod."): state[key] for key in state
    },
}
OFFICIAL = {
    "lightning": lambda state: {"state_dict": prefixed("agent.", state), "epoch": 7},
    "official bare": dict,
    "official distributed": lambda state: {"state_dict": prefixed("module.agent.", state)},
    "official compiled": lambda state: {"state_dict": prefixed("agent._orig_mod.", state)},
}
FORMS = OURS | OFFICIAL


@pytest.fixture(scope="module")
def planner():
    """A planner of the published size."""
    torch.manual_seed(4)
    return MODELS.build(load_config(CONFIG).model)


def write(folder, planner, form):
    state = planner.state_dict()
    if form in OFFICIAL:
        state = to_official(state, "ego_mlp").state
    path = folder / f"{form.replace(' ', '_')}.pth"
    torch.save(FORMS[form](state), path)
    return path


def same_weights(planner, state):
    return all(torch.equal(value, state[key]) for key, value in planner.state_dict().items())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_loaded_whole(tmp_path, planner, form):
    path = write(tmp_path, planner, form)
    assert same_weights(planner, init_planner(CONFIG, path).state_dict())


@pytest.mark.parametrize("form", OFFICIAL)
def test_every_official_form_is_converted(tmp_path, planner, form):
    path = write(tmp_path, planner, form)
    assert convert_checkpoint.main([str(path), str(tmp_path / "ours.pth")]) == 0
    assert same_weights(planner, read_weights(tmp_path / "ours.pth").state)


@pytest.mark.parametrize("form", OURS)
def test_every_form_of_ours_is_converted_back(tmp_path, planner, form):
    path = write(tmp_path, planner, form)
    assert convert_checkpoint.main(["--reverse", str(path), str(tmp_path / "theirs.pth")]) == 0
    assert same_weights(planner, to_native(read_weights(tmp_path / "theirs.pth").state).state)


def test_the_evaluation_and_the_export_read_official_checkpoints(tmp_path, planner, blind_recipe):
    path = write(tmp_path, planner, "official distributed")
    published = load_config(CONFIG).model
    config = load_config(blind_recipe)
    config.model = published
    runner = build_test_runner(config, work_dir=str(tmp_path / "w"))
    load_weights(runner.model, path)
    assert same_weights(planner, runner.model.state_dict())
    assert export.main([str(CONFIG), str(path), str(tmp_path / "planner.pt2")]) == 0


@pytest.mark.parametrize("form", ["bare", "distributed", "compiled", "lightning"])
def test_a_training_starts_from_weights_in_our_names_and_says_how_others_get_them(
    tmp_path, planner, blind_recipe, form
):
    path = write(tmp_path, planner, form)
    config = load_config(blind_recipe, {"load_from": str(path)})
    config.model = load_config(CONFIG).model
    runner = build_train_runner(config, str(tmp_path / "w"))
    if form in OFFICIAL:
        with pytest.raises(CheckpointError, match=r"lightning\.pth.*becomes ours by beyonddrive convert"):
            runner.load_or_resume()
        assert not same_weights(planner, runner.model.state_dict())
    else:
        runner.load_or_resume()
        assert same_weights(planner, runner.model.state_dict())
