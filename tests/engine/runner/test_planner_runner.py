"""What a runner refuses before any work, and that it names the setting."""

from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.runner import runner as mmengine_runner

from beyonddrive.engine.build_errors import building
from beyonddrive.engine.runner import (
    ConfigError,
    build_test_runner,
    build_train_runner,
    evaluate,
    load_config,
)
from beyonddrive.structures.plan import PlanError
from beyonddrive.tools import test as tool


def trained(recipe, work_dir, options):
    build_train_runner(load_config(recipe, options), str(work_dir)).train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train_dataloader.batch_size": 7},
            r"train_dataloader\.batch_size=7: each process has 6 of 6 scenes, .*drop_last=True.*at most 6",
        ),
        ({"train_cfg.max_epochs": 0}, r"train_cfg: 0 epochs of 3 steps are none"),
        ({"default_hooks.checkpoint.save_best": "pdms/XYZ"}, r"save_best='pdms/XYZ': val_evaluator gives no"),
        ({"optim_wrapper.optimizer.lr": -1.0}, r"optim_wrapper: Invalid learning rate: -1\.0"),
        (
            {"optim_wrapper.paramwise_cfg": {"custom_keys": {"backbon": {"lr_mult": 0.1}}}},
            r"custom_keys\.backbon: no parameter of the planner",
        ),
        ({"param_scheduler.warmup": 99}, r"warmup=99 must be"),
        ({"model.num_layers": "three"}, r"model\.num_layers=three: the config has the number 1"),
        ({"optim_wrapper": None}, r"optim_wrapper: the config has none, so there is nothing to train by"),
        ({"default_hooks.checkpoint.out_dir": "/dev/null"}, r"checkpoint\.out_dir /dev/null.*give another"),
        ({"train_dataloader.num_workers": -1}, r"train_dataloader or train_cfg: .*num_workers"),
    ],
)
def test_what_cannot_be_trained_is_named_before_anything_is(tmp_path, blind_recipe, options, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        trained(blind_recipe, tmp_path / "w", options)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "w").glob("*.pth"))


def test_starts_within_one_second_have_a_log_each(tmp_path, blind_recipe, monkeypatch):
    monkeypatch.setattr(mmengine_runner.time, "strftime", lambda *_: "20260101_000000")
    starts = [build_train_runner(load_config(blind_recipe), str(tmp_path / "w")) for _ in range(3)]
    names = ["20260101_000000", "20260101_000000_2", "20260101_000000_3"]
    assert [Path(start.log_dir).name for start in starts] == names
    assert [len(list((tmp_path / "w" / name).glob("*.log"))) for name in names] == [1, 1, 1]


def test_arguments_that_a_constructor_refuses_are_found_in_the_config():
    node = {"parts": [{"size": 3}, {"sise": 4}]}
    message = r"^model\.parts\.1\.sise=4: Encoder has no such setting"
    with pytest.raises(ConfigError, match=message), building("model", node):
        raise TypeError("Encoder.__init__() got an unexpected keyword argument 'sise'")
    with pytest.raises(ConfigError, match=r"^model: 'debug' is not known"), building("model", node):
        raise KeyError("debug")
    with pytest.raises(PlanError, match=r"^as it is$"), building("model", node):
        raise PlanError("as it is")


@pytest.fixture
def unlearning(blind_recipe):
    """A config whose planner needs no checkpoint."""
    path = blind_recipe.with_name("still.py")
    path.write_text(f'_base_ = "{blind_recipe}"\nmodel = dict(_delete_=True, type="ConstantVelocity")\n')
    return path


def test_results_that_cannot_be_written_are_refused_before_the_evaluation(tmp_path, unlearning, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    for words, message in (
        (["--out", str(folder)], "is a folder"),
        (["--out", "/proc/x.csv"], "cannot be written"),
        (["--plans", f"{unlearning}/x.npz"], "cannot be written"),
        (["--out", f"{folder}/a", "--plans", f"{folder}/../folder/a"], "--out has the same name"),
        (["--out", str(unlearning)], "is read by this command"),
    ):
        assert tool.main([str(unlearning), "--work-dir", str(tmp_path / "w"), *words]) == 1
        assert message in capsys.readouterr().err
    assert not list(folder.iterdir()) and "ConstantVelocity" in unlearning.read_text()


def test_results_never_take_the_place_of_what_is_read(tmp_path, unlearning, capsys):
    checkpoint = tmp_path / "epoch_1.pth"
    checkpoint.write_bytes(b"weights")
    base = unlearning.with_name("blind_recipe.py")
    texts = {path: path.read_bytes() for path in (checkpoint, unlearning, base)}
    for path in texts:
        for words in (["--out", str(path)], ["--plans-only", "--plans", str(path)]):
            assert (
                tool.main([str(unlearning), str(checkpoint), "--work-dir", str(tmp_path / "w"), *words]) == 1
            )
            assert f"{words[-2]} {path}: is read by this command; give" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in texts} == texts


def test_figures_survive_results_that_cannot_be_written(tmp_path, unlearning, capsys, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("beyonddrive.evaluation.pdms_metric.write_atomically", full)
    words = [str(unlearning), "--work-dir", str(tmp_path / "w"), "--out", str(tmp_path / "out.csv")]
    assert tool.main(words) == 1
    printed = capsys.readouterr()
    assert "PDMS" in printed.out and "out.csv: cannot be written (No space left on device)" in printed.err
    (log,) = (tmp_path / "w").glob("*/*.log")
    assert "out.csv: cannot be written" in log.read_text()


def keep(kept, data_batch, data_samples):
    kept += [sample["pred"]["trajectory"] for sample in data_samples]


def test_mixed_precision_plans_in_another_precision(tmp_path, blind_recipe, monkeypatch):
    config = load_config(blind_recipe)
    plans = {}
    for fp16 in (False, True):
        config.test_cfg.fp16 = fp16
        runner = build_test_runner(config, work_dir=str(tmp_path / f"w{fp16}"))
        torch.manual_seed(0)
        for parameter in runner.model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        kept = plans.setdefault(fp16, [])
        metric = runner.test_loop.evaluator.metrics[0]
        monkeypatch.setattr(metric, "process", partial(keep, kept))
        with pytest.raises(RuntimeError):
            evaluate(runner)  # the metric was given nothing
    assert len(plans[False]) == 3
    for exact, rounded in zip(plans[False], plans[True], strict=True):
        assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded)
        torch.testing.assert_close(exact, rounded, rtol=0.1, atol=0.2)
