"""What the command lines share: options that choose an executor, messages, exit codes."""

import argparse
import math
import os
import sys

import pytest

from beyonddrive.datasets.navsim.log_jobs import CacheReport
from beyonddrive.engine.executors import ProcessExecutor, SerialExecutor, WorkerLostError
from beyonddrive.tools import (
    browse,
    build_vocabulary,
    cache_metrics,
    create_data,
    mine_negatives,
    score,
    score_vocabulary,
    visualize,
)
from beyonddrive.tools._command_line import (
    KeyValues,
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    fill_stores,
    read_token,
    run_command,
    tell_all,
)


def arguments(*words):
    parser = command_parser("fly", "Fly.")
    add_executor_options(parser)
    add_config_options(parser)
    return parser.parse_args(words)


def raising(error):
    def work():
        raise error

    return work


def test_command_lines_choose_the_executor():
    assert isinstance(executor_of(arguments()), SerialExecutor)
    executor = executor_of(arguments("--num-workers", "3"))
    assert isinstance(executor, ProcessExecutor)
    assert executor.num_workers == 3


def test_bad_options_are_told(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        arguments("--num-workers", "-1")
    printed = capsys.readouterr().err
    assert "must not be negative, got -1" in printed and "usage: beyonddrive fly" in printed
    monkeypatch.setitem(sys.modules, "ray", None)  # not installed
    assert run_command("fly", lambda: bool(executor_of(arguments("--ray")))) == 1
    assert capsys.readouterr().err == "fly: RayExecutor needs Ray: pip install 'beyonddrive[ray]'\n"


@pytest.mark.slow
def test_ray_by_command_line():
    pytest.importorskip("ray")
    executor = executor_of(arguments("--ray", "--num-workers", "2"))
    assert list(executor.map(math.factorial, range(3), initializer=math.sqrt, initargs=(4,))) == [1, 1, 2]
    with pytest.raises(WorkerLostError, match="Ray worker was lost"):
        list(executor.map(os._exit, [1, 1]))


def test_config_options_are_kept_as_they_were_typed(capsys):
    words = ["--cfg-options", "a.b=3", "c=1,2", "--cfg-options", "d=x=y"]
    assert arguments(*words).cfg_options == {"a.b": "3", "c": "1,2", "d": "x=y"}
    with pytest.raises(SystemExit):
        arguments("--cfg-options", "a.b")
    assert "--cfg-options a.b: write key=value" in capsys.readouterr().err


def test_values_of_other_options_are_read_at_once(capsys):
    parser = command_parser("fly", "Fly.")
    parser.add_argument("--strategy", nargs="+", action=KeyValues)
    values = parser.parse_args(["--strategy", "a=3", "c=1,2", "d=x=y"]).strategy
    assert values == {"a": 3, "c": [1, 2], "d": "x=y"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--strategy", "a=(1,2"])
    assert "brackets do not match" in capsys.readouterr().err


def test_what_is_refused_is_one_line(capsys):
    assert run_command("fly", lambda: 3) == 3
    assert run_command("fly", raising(ValueError("no\n  wings")), refused=2) == 2
    assert run_command("fly", raising(OSError())) == 1
    assert capsys.readouterr().err == "fly: no wings\nfly: OSError\n"
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_command("fly", raising(ZeroDivisionError()))
    with pytest.raises(ValueError, match="no wings"):  # which rank failed is the launcher's to tell
        run_command("fly", raising(ValueError("no wings")), launcher="pytorch")


def test_many_problems_are_counted(capsys):
    tell_all("fly", [f"problem {i}" for i in range(23)])
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "fly: problem 0" and lines[-1] == "fly: and 3 more of this kind, 23 in all"
    assert len(lines) == 21


def test_reports_of_stores_are_printed_as_they_come(capsys):
    def reports():
        yield "train", CacheReport(5, 2)
        assert capsys.readouterr().out == "train: wings of 5 scenes, 2 logs done now\n"
        yield "val", CacheReport(1, 1, {"abc": "no feathers"}, ["log.pkl: cut off"])

    assert fill_stores("fly", "wings", reports()) == 1
    printed = capsys.readouterr()
    assert printed.err == "fly: scene abc: no feathers\nfly: log.pkl: cut off\n"
    assert fill_stores("fly", "wings", [("train", CacheReport(5, 2))]) == 0
    capsys.readouterr()
    lost = CacheReport(23, 1, {str(number): "no map" for number in range(23)})
    assert fill_stores("fly", "wings", [("test", lost)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "fly: and 3 more of this kind, 23 in all"


def test_a_token_that_a_header_cannot_carry_is_refused(tmp_path):
    path = tmp_path / "token"
    path.write_text(" secret-1 \n")
    assert read_token(path) == "secret-1" and read_token(None) is None
    for text in ("schl\u00fcssel", "two\nlines"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is sent in a header of HTTP"):
            read_token(path)


def test_an_option_of_several_values_may_be_given_again():
    parser = command_parser("score", "Scores.")
    parser.add_argument("config", nargs="*", default=[])
    parser.add_argument("--turn", type=float, nargs="+", default=[0.5])
    parser.add_argument("--size", type=int, nargs=2)
    parser.add_argument("--out")
    inner = parser.add_subparsers(dest="action")
    inner.add_parser("run").add_argument("--difficulty", nargs="+", choices=("easy", "hard"), default=())
    assert parser.parse_args([]).turn == [0.5]
    words = ["--turn", "1", "2", "--out", "a", "--turn", "3", "--out", "b", "--size", "1", "2"]
    args = parser.parse_args(
        [*words, "--size", "3", "4", "run", "--difficulty", "easy", "--difficulty", "hard"]
    )
    assert (args.turn, args.out, args.size) == ([1.0, 2.0, 3.0], "b", [3, 4])
    assert args.difficulty == ["easy", "hard"]
    assert parser.parse_args(["--turn", "7"]).turn == [7.0]  # (and not what a call before was given)


def test_the_parser_is_named_after_the_verb():
    assert isinstance(command_parser("fly", "Fly."), argparse.ArgumentParser)
    assert command_parser("fly", "Fly.").prog == "beyonddrive fly"


@pytest.mark.parametrize("below", ["", "sub/folder"])
@pytest.mark.parametrize(
    ("tool", "option", "words"),
    [
        (browse, "--out", ["config"]),
        (cache_metrics, "--out", ["--data-root", "d", "--split", "s"]),
        (create_data, "--out", ["synth"]),
        (create_data, "--out", ["mmdet3d-infos", "--split", "s"]),
        (mine_negatives, "--out", ["config", "weights.pth"]),
        (score, "--cache-dir", ["--data-root", "d", "--split", "s", "--plans", "p.npz", "--out", "o.npz"]),
        (score_vocabulary, "--out", ["root", "split", "vocabulary.npz"]),
        (visualize, "--out", ["--data-root", "d", "--split", "s"]),
    ],
)
def test_a_file_in_place_of_a_folder_is_refused(tmp_path, capsys, tool, option, words, below):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SystemExit):
        tool.main([*words, option, str(file / below)])
    assert f"{option}: {file} is a file; give the name of a folder" in capsys.readouterr().err


ROOT = ["--data-root", "d", "--split", "s", "--out", "o"]


@pytest.mark.parametrize(
    ("tool", "words", "idle", "owner"),
    [
        (cache_metrics, ["config"], ["--out", "o"], "a command line without CONFIG"),
        (cache_metrics, ["config"], ["--split", "s"], "a command line without CONFIG"),
        (cache_metrics, ["config"], ["--data-root", "d"], "a command line without CONFIG"),
        (cache_metrics, ["config"], ["--maps-root", "m"], "a command line without CONFIG"),
        (cache_metrics, ["config"], ["--scene-filter", "f.yaml"], "a command line without CONFIG"),
        (cache_metrics, ROOT, ["--loaders", "val"], "CONFIG"),
        (cache_metrics, ROOT, ["--cfg-options", "a=1"], "CONFIG"),
        (build_vocabulary, [".", "s", "--out", "o.npz"], ["--cfg-options", "a=1"], "a config"),
        (score_vocabulary, ["c.py", "train", "v.npz", "--out", "s"], ["--maps-root", "m"], "a data root"),
        (mine_negatives, ["--report-only", "pool"], ["--split", "s"], "mining"),
        (mine_negatives, ["--report-only", "pool"], ["--seed", "1"], "mining"),
        (mine_negatives, ["--report-only", "pool"], ["--part", "0/2"], "mining"),
        (mine_negatives, ["--report-only", "pool"], ["--strategy", "noise=0.3"], "mining"),
        (mine_negatives, ["--report-only", "pool"], ["--cfg-options", "a=1"], "CONFIG"),
    ],
)
def test_options_that_nothing_would_read_are_refused(capsys, tool, words, idle, owner):
    tool.parse_args(words)
    with pytest.raises(SystemExit):
        tool.parse_args([*words, *idle])
    assert f"{idle[0]}: goes with {owner}" in capsys.readouterr().err


def test_options_of_a_config_are_refused_beside_a_data_root(tmp_path, capsys):
    words = [str(tmp_path), "train", "v.npz", "--out", str(tmp_path / "s"), "--cfg-options", "a=1"]
    with pytest.raises(SystemExit):
        score_vocabulary.parse_args(words)
    assert "--cfg-options: goes with a config, and does nothing here" in capsys.readouterr().err
    assert score_vocabulary.parse_args(["config.py", *words[1:]]).cfg_options == {"a": "1"}
