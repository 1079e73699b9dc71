"""Files of checkpoints: nothing in them runs, damage is named, weights are found in every form."""

import os
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer

from beyonddrive.engine.checkpoint_files import CheckpointError, load_checkpoint_file, weights_of


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Reach:
    """Pickles as ``getattr(HistoryBuffer, '__init__')``, a first step towards arbitrary code."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


def test_nothing_in_a_hostile_checkpoint_is_executed(tmp_path):
    path, victim = tmp_path / "hostile.pth", tmp_path / "victim"
    torch.save({"state_dict": {}, "meta": Bomb(victim)}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pth.*Nothing was executed"):
        load_checkpoint_file(path)
    assert not victim.exists()
    torch.save({"state_dict": {}, "meta": Reach()}, path)
    with pytest.raises(CheckpointError, match="may not reach"):
        load_checkpoint_file(path)


def test_log_histories_of_either_numpy_are_read(tmp_path):
    history = HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {}, "history": history, "score": np.float64(0.5)}, path)
    assert load_checkpoint_file(path)["history"].mean() == 3.0
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = [name for name in parts if name.endswith("data.pkl")]
    names = (b"numpy._core.multiarray", b"numpy.core.multiarray")
    here, there = names if names[0] in parts[pickled] else names[::-1]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(here, there))
    loaded = load_checkpoint_file(path)
    assert loaded["history"].mean() == 3.0 and loaded["score"] == 0.5


def test_damaged_checkpoints_are_named(tmp_path):
    path = tmp_path / "epoch_3.pth"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, path)
    whole = path.read_bytes()
    for damage in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"epoch_3\.pth.*another checkpoint"):
            load_checkpoint_file(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="holds a list"):
        load_checkpoint_file(path)


def test_a_missing_checkpoint_is_told_with_those_beside_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth: no such checkpoint; .* has no checkpoint$"):
        load_checkpoint_file(tmp_path / "absent.pth")
    for name in ("epoch_10.pth", "epoch_9.pth", "last_checkpoint", "log.txt"):
        (tmp_path / name).touch()
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"such checkpoint; .* has epoch_9\.pth, epoch_10\.pth$"):
            load_checkpoint_file(path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*gone$"):
        load_checkpoint_file(tmp_path / "gone" / "epoch_1.pth")


ONE, TWO = torch.zeros(1), torch.ones(1)


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        ({"model": {"a": ONE}, "ema": {"a": TWO}}, "holds weights under each of 'model', 'ema': save those"),
        ({"state_dict": {"a": ONE, "_orig_mod.a": TWO}}, "holds weights twice"),
        ({"epoch": 3}, ".*holds 'epoch', a int, among the weights"),
        ({"state_dict": {"a": [ONE]}}, "'state_dict' holds 'a', a list, among the weights"),
        ({"state_dict": {3: ONE}}, "'state_dict' holds 3, a Tensor, among the weights"),
        ({"state_dict": 3}, "has no weights"),
        ({}, "has no weights"),
    ],
)
def test_weights_that_are_not_told_apart_are_refused(checkpoint, words):
    with pytest.raises(CheckpointError, match=f"a.pth: {words}"):
        weights_of(checkpoint, "a.pth")


def test_a_prefix_that_only_some_names_have_belongs_to_the_names():
    state = {"module.a": ONE, "b_orig_mod.c": ONE}
    assert weights_of({"state_dict": state}, "a.pth") == state
