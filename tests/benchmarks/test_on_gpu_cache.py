"""What the script for a machine with a GPU makes of its cache, on the CPU: a training, its row, exports."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beyonddrive.benchmarks.on_gpu import exports, make_cache, rows, train_one, trainings

CHECKOUT = Path(__file__).parents[2]
LTF = str(CHECKOUT / "configs" / "ltf" / "ltf_tiny_1xb16-12e_synth.py")
MLP = str(CHECKOUT / "configs" / "ego_mlp" / "ego_mlp_1xb16-12e_synth.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of the two smallest recipes, and what was said of it."""
    folder = tmp_path_factory.mktemp("made") / "cache"
    assert make_cache.main([str(folder), "--recipes", LTF, MLP]) == 0
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Folder of the trainings."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def train(cache, work, monkeypatch):
    """Trains a job in this process, for two epochs, and returns what was seen."""
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(trainings, "EPOCHS", 2)

    def trained(job):
        assert train_one.main(job.arguments(cache, work)) == 0
        return json.loads((work / f"{job.name}.json").read_text())

    return trained


def test_the_cache_is_as_small_as_it_is_said_to_be(cache, capsys):
    said = re.search(r"make_cache CACHE +# (\d+) MB", (CHECKOUT / "docs" / "training_speed.md").read_text())
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert 0 < size < 1e6 * int(said[1])
    assert not (cache / "sensor_blobs").exists() and not cache.with_name(".partial-cache").exists()
    with pytest.raises(SystemExit):
        make_cache.main([str(cache)])
    assert f"{cache}: is there already" in capsys.readouterr().err


def test_all_settings_together_have_a_row(train):
    """Each is at work, and the losses stay near those of accumulation and clipping in float32."""
    together, accumulated = trainings.all_settings(LTF, "cpu")
    found = {job.name: train(job) for job in (together, accumulated)}
    assert found["ltf_tiny-accumulated"]["settings"] == {
        "autocast": None, "tf32": False, "channels_last": False, "fused": False, "averaged": False,
        "updates": 3, "max_norm": 1.0, "checkpointed": [], "compiled": [],
    }  # fmt: skip
    (row,) = trainings.compare(found, "cpu", [LTF], LTF)
    assert (row.what, row.verdict, row.allowed) == ("ltf_tiny, all settings together", rows.PASS, "0.05")
    assert row.found.startswith("6 steps by None on cpu, losses differ by ")
    assert row.found.endswith(
        "; bfloat16, TF32, channels_last, fused optimizer, averaged weights, 3 updates, clipped at 1, "
        "activations of backbone and decoder computed again; compile is left out on the CPU"
    )
    assert (
        trainings.largest(found[together.name], found[accumulated.name]) > 0
    )  # (it is not the same training)


def test_only_the_smallest_ltf_is_trained_with_all_settings():
    names = [job.name for job in trainings.jobs_of([LTF, MLP], "cuda", LTF)]
    assert names[-2:] == ["ltf_tiny-together", "ltf_tiny-accumulated"]
    assert len(trainings.jobs_of([MLP], "cuda", MLP)) == 4
    together, accumulated = trainings.all_settings(LTF, "cuda")
    assert together.is_long and not accumulated.is_long and accumulated.device == "cpu"
    assert "compile.parts=['decoder']" in together.arguments(Path("d"), Path("w"))
    assert not trainings.all_settings(LTF, "cpu")[0].is_long


def test_a_trained_planner_is_exported_in_every_way(train, cache, work, tmp_path, monkeypatch):
    train(trainings.Job("ego_mlp-cpu", MLP, "cpu"))
    monkeypatch.setattr(exports, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(1))
    given = ["--device", "cpu", "--data", str(cache), "--work", str(work), "--recipes", MLP, LTF]
    assert exports.main([*given, "--out", str(tmp_path / "rows.jsonl")]) == 0
    found = {row.what: row for row in rows.read(tmp_path / "rows.jsonl")}
    names = [
        f"{name}, {way}" for way in ("plans", "torch.export", "ONNX") for name in ("ego_mlp", "ltf_tiny")
    ]
    assert list(found) == names and {row.part for row in found.values()} == {"export"}
    for way in exports.WAYS:
        assert found[f"ltf_tiny, {way}"].found == "its training left no checkpoint"
        assert found[f"ltf_tiny, {way}"].verdict == rows.SKIPPED
        assert (found[f"ego_mlp, {way}"].verdict, found[f"ego_mlp, {way}"].allowed) == (rows.PASS, "0.001")
    assert found["ego_mlp, plans"].found.startswith("4 plans differ by 0.0e+00 from the CPU's")

    monkeypatch.setattr(exports, "ALLOWED", -1.0)
    assert exports.main([*given[:-1], "--ways", "plans", "--out", str(tmp_path / "far.jsonl")]) == 1
    (row,) = rows.read(tmp_path / "far.jsonl")
    assert row.verdict == rows.FAIL and "ValueError: plans differ by" in row.found
