"""The whole method end to end, at the smallest size that has something to do in every stage."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sumo")
DEMO = Path(__file__).parents[2] / "tools/demo.py"
ROWS = ("Human", "Constant velocity", "Ego-status MLP", "Generator", "LTF", "LTF + BeyondDrive")


def _demo(folder, *args):
    command = [sys.executable, str(DEMO), "--size", "smoke", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_ends_with_its_table_and_does_nothing_twice(tmp_path):
    first = _demo(tmp_path)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    table = (tmp_path / "work_dirs/demo/table.md").read_text()
    for row in ROWS:
        figures = re.search(rf"\| {re.escape(row)} \|(.*)", table)
        assert figures, f"no row {row} in\n{table}"
        values = [float(v) for v in re.findall(r"\d+\.\d+", figures.group(1))]
        assert len(values) >= 7 and all(0 <= v <= 100 for v in values)
    assert "<img" in (tmp_path / "work_dirs/demo/report.html").read_text()
    stages = json.loads((tmp_path / "work_dirs/demo/stages.json").read_text())
    assert len(stages["seconds"]) == 9

    again = _demo(tmp_path)
    assert again.returncode == 0
    assert again.stdout.count(": complete (") == 9
    assert "tools/train.py" not in again.stdout

    other = _demo(tmp_path, "--seed", "1")
    assert other.returncode == 1
    assert "--fresh" in other.stderr
