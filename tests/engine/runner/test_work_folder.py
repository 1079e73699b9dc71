"""One training at a time works in a folder."""

import errno
import fcntl
import os
import signal
import time

import pytest
from mmengine.hooks import Hook

from beyonddrive.engine.runner import ConfigError, build_train_runner, load_config, work_folder
from beyonddrive.engine.runner.work_folder import alone_in, check_unused

SHORT = {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 9}


def test_a_second_training_in_a_work_folder_is_refused_before_it_writes(tmp_path, blind_recipe):
    refused = []

    class Second(Hook):
        def before_train(self, runner):
            before = sorted(path.name for path in tmp_path.rglob("*"))
            for resume in (False, True):
                with pytest.raises(ConfigError, match=r"work_dir .*another training is at work.*--work-dir"):
                    build_train_runner(load_config(blind_recipe, SHORT), str(tmp_path / "w"), resume=resume)
            with pytest.raises(ConfigError, match=r"work_dir .*another training is at work"):
                prepared.train()
            assert sorted(path.name for path in tmp_path.rglob("*")) == before
            refused.append(runner.epoch)

    prepared = build_train_runner(load_config(blind_recipe, SHORT), str(tmp_path / "w"))
    first = build_train_runner(load_config(blind_recipe, SHORT), str(tmp_path / "w"))
    first.register_hook(Second())
    first.train()
    assert refused == [0] and first.epoch == 1
    build_train_runner(load_config(blind_recipe, SHORT), str(tmp_path / "w")).train()
    assert not list((tmp_path / "w").glob(".*.lock"))


def test_two_work_folders_whose_checkpoints_go_to_one_are_one(tmp_path, blind_recipe):
    options = {**SHORT, "default_hooks.checkpoint.out_dir": str(tmp_path / "all")}
    with alone_in([tmp_path / "all" / "w"]), pytest.raises(ConfigError, match="all/w: another training"):
        build_train_runner(load_config(blind_recipe, options), str(tmp_path / "b" / "w"))
    assert build_train_runner(load_config(blind_recipe, options), str(tmp_path / "b" / "w")) is not None


def test_a_killed_training_leaves_no_lock_even_if_its_workers_live_on(tmp_path):
    """A worker that was forked has the file of the lock open, too, and outlives a kill."""
    told, tell = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        with alone_in([tmp_path]):
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(tell, worker.to_bytes(8, "little"))
            time.sleep(60)
        os._exit(0)
    worker = int.from_bytes(os.read(told, 8), "little")
    try:
        with pytest.raises(ConfigError, match="another training is at work"):
            check_unused([tmp_path])
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)
        os.kill(worker, 0)  # it lives
        check_unused([tmp_path])
        with alone_in([tmp_path]):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(told)
        os.close(tell)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    said = []
    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(work_folder, "print_log", lambda *args, **_: said.append(args[0]))
    with alone_in([tmp_path]):
        assert not list(tmp_path.iterdir())
    assert said[0].startswith(f"work_dir {tmp_path}: its file system knows no locks (No locks available)")
