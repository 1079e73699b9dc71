import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from beyonddrive.engine import mmengine_compat
from beyonddrive.engine.mmengine_compat import CheckpointError, load_checkpoint_file

PRELUDE = """
import os, sys, torch
from torch import nn
from mmengine.model import BaseModel
def expect_failure(what, action, *kinds):
    try:
        action()
    except kinds as error:
        print(what, 'fails without the remedy:', type(error).__name__)
    else:
        sys.exit(f'{what} works without the remedy, which can be deleted')
"""
RUNNER = """
from mmengine.runner import Runner
class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, index): return {'x': torch.ones(2) * index}
class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
    def forward(self, x, mode):
        y = self.layer(x)
        if self.training: print('dtype', y.dtype)
        return {'loss': y.square().mean()}
def train(name, **kwargs):
    loader = dict(dataset=Data(), sampler=dict(type='DefaultSampler', shuffle=True), batch_size=2,
                  collate_fn=dict(type='default_collate'))
    runner = Runner(model=Model(), work_dir='work', train_dataloader=loader,
                    train_cfg=dict(by_epoch=True, max_epochs=kwargs.pop('epochs', 1)),
                    optim_wrapper=dict(type=kwargs.pop('wrapper', 'OptimWrapper'),
                                       optimizer=dict(type='SGD', lr=0.1)),
                    experiment_name=name, log_level='ERROR', **kwargs)
    runner.train()
    return runner
"""


WITHOUT = """
import pickle
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel
train('first')
expect_failure('resume', lambda: train('second', epochs=2, resume=True), pickle.UnpicklingError)
expect_failure('amp', lambda: train('third', wrapper='AmpOptimWrapper'), AssertionError)
sys.modules['pkg_resources'] = None  # what setuptools 82 leaves
open('child.py', 'w').write("_base_ = ['mmdet3d::_base_/no_such_file.py']")
expect_failure('look-up', lambda: Config.fromfile('child.py'), ImportError)
os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
expect_failure('launcher', lambda: init_dist('pytorch', 'gloo'), RuntimeError, AssertionError)
dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
wrap = lambda: MMDistributedDataParallel(nn.Linear(2, 2), device_ids=[0])
expect_failure('wrapper', wrap, ValueError, RuntimeError, AssertionError)
"""
WITH = """
from beyonddrive.engine import mmengine_compat
set_device = torch.cuda.set_device
mmengine_compat.apply()
mmengine_compat.apply()
print('wrapped on', wrap().device_ids)
dist.destroy_process_group()
init_dist('pytorch', 'nccl')
print('started', dist.get_backend(), torch.cuda.set_device is set_device)
dist.destroy_process_group()
runner = train('fourth', epochs=2, resume=True)
losses = runner.message_hub.get_scalar('train/loss').data[0]
print('resumed to', runner.epoch, 'with', len(losses), 'losses')
train('fifth', wrapper='beyonddrive.AutocastOptimWrapper')
import mmengine.utils
print('installed', mmengine.utils.is_installed('mmengine'), mmengine.utils.is_installed('no_such_package'))
print('found', mmengine.utils.get_installed_path('mmengine') == os.path.dirname(mmengine.__file__))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What a process prints in which nothing is patched at first, then everything, and which has no CUDA."""
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRELUDE + RUNNER + WITHOUT + WITH]
    folder = tmp_path_factory.mktemp("compat")
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_resuming_needs_the_checkpoint_remedy(printed):
    assert "resume fails without the remedy: UnpicklingError" in printed
    assert "resumed to 2 with 4 losses" in printed


def test_training_on_several_processes_needs_the_remedies_without_cuda(printed):
    assert "launcher fails without" in printed and "wrapper fails without" in printed
    assert "wrapped on None" in printed and "started gloo True" in printed


def test_mixed_precision_without_a_gpu_needs_its_own_wrapper(printed):
    assert "amp fails without" in printed and printed.count("dtype torch.bfloat16") == 2


def test_configs_of_other_packages_are_found_without_pkg_resources(printed):
    assert "look-up fails without" in printed
    assert "installed True False" in printed and "found True" in printed


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Reach:
    """Pickles as ``getattr(HistoryBuffer, '__init__')``, a first step towards arbitrary code."""

    def __reduce__(self):
        return getattr, (mmengine_compat.HistoryBuffer, "__init__")


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
    history = mmengine_compat.HistoryBuffer([1.0, 2.0, 6.0], [1, 1, 1])
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
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_checkpoint_file(tmp_path / "absent.pth")


def test_float16_without_scaling_is_refused():
    with pytest.raises(ValueError, match="AmpOptimWrapper"):
        mmengine_compat.AutocastOptimWrapper(dtype="float16", optimizer=None)
