"""``benchmarks/closed_loop.py`` in its smallest size: what is driven is what is counted."""

import re
import time

import pytest
import torch

pytest.importorskip("libsumo", reason="the extra 'synth' is not installed")

from beyonddrive.benchmarks import closed_loop

STEPS = 3
RATE = re.compile(
    r"^(.+): ([\d.]+) steps/s in 1 scenarios of (\d+) steps \(([\d.]+) without set-up and score; "
    r"([\d.]+) s of set-up each; (\d+) fallbacks\)\n    (.+)$",
    re.MULTILINE,
)


@pytest.fixture
def driven(monkeypatch):
    """What became of each scenario."""
    found = []

    def drive(*arguments):
        found.append(closed_loop_drive(*arguments))
        return found[-1]

    closed_loop_drive = closed_loop.drive
    monkeypatch.setattr(closed_loop, "drive", drive)
    monkeypatch.setattr(closed_loop.Clock, "timer", staticmethod(time.perf_counter))  # (it sets another)
    return found


@pytest.fixture(autouse=True)
def threads():
    """Threads of this process, which the benchmark changes."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_rates_are_of_the_steps_that_were_driven(driven, capsys):
    given = ["--kinds", "easy", "--per-kind", "1", "--steps", str(STEPS), "--points", "5000", "--cpu-time"]
    closed_loop.main(given)
    printed = capsys.readouterr().out
    # By the planner and its fast copy, once to warm up and once that counts.
    assert [len(outcome.frames) for outcome in driven] == [STEPS] * 4
    assert [outcome.report.counts for outcome in driven] == [{"inference": STEPS}] * 4
    rows = RATE.findall(printed)
    assert len(rows) == 2 and rows[1][0] == f"{rows[0][0]}, fast copy"
    for (_, whole, steps, driving, set_up, fallbacks, parts), outcome in zip(rows, driven[1::2], strict=True):
        assert (int(steps), int(fallbacks)) == (STEPS, 0)
        assert 0 < float(whole) < float(driving) and float(set_up) > 0
        assert float(set_up) == pytest.approx(outcome.seconds["set up"], abs=0.006)
        shares = dict(part.rsplit(" ", 2)[:2] for part in parts.split(", "))
        assert shares.keys() == outcome.seconds.keys() >= {"set up", "paint", "plan", "move", "score"}
        assert 0 < sum(float(share) for share in shares.values()) <= 100 + len(shares)  # (rounded)
    ratio, goal = re.search(
        r"fast copy / planner: ([\d.]+); goal: ([\d.]+) times 10 steps/s", printed
    ).groups()
    rates = [float(row[1]) for row in rows]
    assert float(ratio) == pytest.approx(rates[1] / rates[0], rel=0.05, abs=0.01)
    assert float(goal) == pytest.approx(rates[0] / closed_loop.GOAL, abs=0.06)
    seconds, frames, road, solid = re.search(
        r"score: ([\d.]+) s for a record of (\d+) frames .* (\d+) points of road and (\d+) of what", printed
    ).groups()
    assert int(frames) == STEPS and float(seconds) >= 0
    assert re.search(r"score from files: [\d.]+ s with 5000 points of road and as many", printed)
    assert (int(road), int(solid)) == (len(driven[-1].ground), len(driven[-1].solid)) > (0, 0)
