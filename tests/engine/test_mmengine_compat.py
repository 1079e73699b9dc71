import inspect
import os
import subprocess
import sys

import mmengine.config.config
import pytest
from mmengine.config import Config
from mmengine.runner import checkpoint
from yapf.yapflib.errors import YapfError
from yapf.yapflib.yapf_api import FormatCode

from beyonddrive.engine import mmengine_compat

PRELUDE = """
import inspect, os, sys, torch
from torch import nn
from mmengine.model import BaseModel
from mmengine.runner import checkpoint
def expect_failure(what, action, *kinds, is_mended=False):
    try:
        action()
    except kinds as error:
        print(what, 'fails without the remedy:', type(error).__name__)
        works = False
    else:
        print(what, 'works without the remedy')
        works = True
    if works != is_mended:
        sys.exit(f'{what}: the remedy can be deleted' if works else f'{what}: is not mended')
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
import pickle, threading
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import init_dist
from mmengine.model import MMDistributedDataParallel
from mmengine.logging import MessageHub
from mmengine.utils.manager import ManagerMixin, _lock
class Unnamed(ManagerMixin):
    def __init__(self, name):
        raise KeyError(name)
def ask_in_vain(*calls):
    for call in calls:
        try:
            call()
        except (RuntimeError, KeyError, AssertionError):
            pass
        else:
            sys.exit('named instances: this was to fail')
def others_wait():  # whether another thread finds the lock taken
    waits = []
    thread = threading.Thread(target=lambda: waits.append(not _lock.acquire(timeout=0.1) or _lock.release()))
    thread.start()
    thread.join()
    return bool(waits[0])
in_vain = (lambda: ManagerMixin.get_current_instance(), lambda: Unnamed.get_instance('a'),
           lambda: Unnamed.get_instance(1))
ask_in_vain(*in_vain)
print('others wait', others_wait())
while _lock._is_owned(): _lock.release()
train('first')
# (the fork onedl-mmengine lets torch unpickle anything where it refuses; the remedy does not)
is_mended = 'weights_only' in inspect.getsource(checkpoint)
resume = lambda: train('second', epochs=2, resume=True)
expect_failure('resume', resume, pickle.UnpicklingError, is_mended=is_mended)
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
ask_in_vain(*in_vain)
print('others wait still', others_wait())
print('same hub', MessageHub.get_instance('first') is MessageHub.get_instance('first'), others_wait())
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
    is_mended = "weights_only" in inspect.getsource(checkpoint)
    without = "works without the remedy" if is_mended else "fails without the remedy: UnpicklingError"
    assert f"resume {without}" in printed
    assert "resumed to 2 with 4 losses" in printed


def test_training_on_several_processes_needs_the_remedies_without_cuda(printed):
    assert "launcher fails without" in printed and "wrapper fails without" in printed
    assert "wrapped on None" in printed and "started gloo True" in printed


def test_mixed_precision_without_a_gpu_needs_its_own_wrapper(printed):
    assert "amp fails without" in printed and printed.count("dtype torch.bfloat16") == 2


def test_configs_of_other_packages_are_found_without_pkg_resources(printed):
    assert "look-up fails without" in printed
    assert "installed True False" in printed and "found True" in printed


def test_threads_need_the_lock_of_named_instances_back(printed):
    assert "others wait True" in printed, "the remedy can be deleted"
    assert "others wait still False" in printed and "same hub True False" in printed


def test_float16_without_scaling_is_refused():
    with pytest.raises(ValueError, match="AmpOptimWrapper"):
        mmengine_compat.AutocastOptimWrapper(dtype="float16", optimizer=None)


@pytest.mark.usefixtures("laid_out_configs")
def test_a_text_is_formatted_once(monkeypatch):
    formatted = []

    def stock(text, *more, **kwargs):
        formatted.append(text)
        return FormatCode(text, *more, **kwargs)

    remembered = mmengine_compat._remember_text(stock)
    for text in ("x=dict( a = 1)\n", "x=dict( a = 2)\n", "x=dict( a = 1)\n"):
        assert remembered(text, style_config={"based_on_style": "pep8"}) == (
            text.replace("=", " = ", 1).replace("( a = ", "(a="),
            True,
        )
    assert len(formatted) == 2
    assert remembered("x=1\n", style_config="pep8") == remembered("x=1\n", "a file") == ("x = 1\n", True)
    with pytest.raises(YapfError):
        remembered("x=(", style_config={"based_on_style": "pep8"})
    config = Config({"a": {"b": [1, 2]}})
    mmengine_compat.apply()
    place = mmengine_compat.formatting_module()
    text = config.pretty_text
    monkeypatch.setattr(place, "FormatCode", place.FormatCode.__wrapped__)
    assert config.pretty_text == text


@pytest.mark.usefixtures("laid_out_configs")
def test_remedies_are_not_put_on_each_other():
    def depth(function):
        return 1 + depth(function.__wrapped__) if hasattr(function, "__wrapped__") else 0

    def depths():
        methods = vars(mmengine.utils.manager.ManagerMixin)
        found = [methods[name].__func__ for name in ("get_instance", "get_current_instance")]
        found += [
            mmengine.config.config.Config._get_cfg_path,
            mmengine_compat.formatting_module().FormatCode,
            mmengine.dist.utils._init_dist_pytorch,
        ]
        return [depth(function) for function in found]

    before = depths()
    mmengine_compat.apply()
    assert depths() == before
