"""The scripts that start distributed runs hand everything over; a real run is in test_train_test_cli.py."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def words_of(name, *args, **variables):
    """Words of the command that a script runs; ``echo`` stands in for Python."""
    env = {**os.environ, "PYTHON": "echo", **variables}
    done = subprocess.run([TOOLS / name, *args], env=env, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


def test_several_processes_of_one_machine():
    words = words_of("dist_train.sh", "ltf_tiny", "4", "--resume", "--cfg-options", "a=b c")
    torchrun, own = words[: words.index("beyonddrive")], words[words.index("beyonddrive") :]
    assert torchrun[:2] == ["-m", "torch.distributed.run"] and "--nproc_per_node 4" in " ".join(torchrun)
    assert own[:3] == ["beyonddrive", "train", "ltf_tiny"]
    assert own[3:6] == ["--launcher", "pytorch", "--resume"]
    words = words_of("dist_test.sh", "ltf_tiny", "best.pth", "2", "--out", "x.csv", NNODES="3", NODE_RANK="1")
    assert "--nnodes 3 --node_rank 1 --nproc_per_node 2" in " ".join(words)
    assert words[-7:] == ["test", "ltf_tiny", "best.pth", "--launcher", "pytorch", "--out", "x.csv"]


def test_slurm_gets_its_tasks(tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = words_of("slurm_train.sh", "gpu", "job", "ltf_tiny", "--amp", GPUS="4", PATH=path)
    assert {"--partition=gpu", "--job-name=job", "--ntasks=4", "--gres=gpu:4"} <= set(words)
    assert words[-5:] == ["train", "ltf_tiny", "--launcher", "slurm", "--amp"]


@pytest.mark.parametrize("name", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_missing_words_are_told(name):
    done = subprocess.run([TOOLS / name], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage: " in done.stderr
