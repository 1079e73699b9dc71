"""``benchmarks/latency.py``: the official figure is of two threads and the clock."""

from types import SimpleNamespace

import pytest
import torch

from beyonddrive.benchmarks import latency


@pytest.mark.parametrize(
    ("words", "beside"), [([], True), (["--cpu-time"], False), (["--threads", "1"], False)]
)
def test_the_official_figure_stands_beside_what_it_compares_with(words, beside, monkeypatch, capsys):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(latency, "load_config", lambda path: SimpleNamespace(model={}))
    monkeypatch.setattr(latency, "example", lambda planner: {})
    ones = {"trajectory": torch.ones(1)}
    built = SimpleNamespace(eval=lambda: _Planner(ones))
    monkeypatch.setattr(latency, "MODELS", SimpleNamespace(build=lambda model: built))
    monkeypatch.setattr(latency, "ExportedPlanner", lambda planner: lambda inputs: ones)
    assert latency.main(["wote_r34.py", "--repeats", "1", *words]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("wote_r34")]
    assert (" 813 " in row) == beside


class _Planner:
    def __init__(self, outputs):
        self.outputs = outputs

    def buffers(self):
        return []

    def __call__(self, inputs):
        return self.outputs
