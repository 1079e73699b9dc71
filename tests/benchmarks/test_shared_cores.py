"""``benchmarks/shared_cores.py`` in its smallest size."""

import json

from beyonddrive.benchmarks import shared_cores


def test_a_process_trains_until_all_are_timed():
    (median,) = shared_cores.timed(1, 1, shared_cores.SLEEPS, 1)
    assert median > 0


def test_what_is_gained_counts_all_processes_and_the_slowest_of_them(monkeypatch, capsys, tmp_path):
    asked = []

    def timed(count, threads, environment, steps):
        asked.append((count, threads, environment == shared_cores.SLEEPS))
        return [100.0, 200.0, 400.0][:count]

    monkeypatch.setattr(shared_cores, "timed", timed)
    assert shared_cores.main(["--cores", "3", "--json", str(tmp_path / "f.json")]) == 0
    assert asked == [(n, t, sleeps) for n in (1, 3) for t, sleeps in ((3, False), (3, True), (1, False))]
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["3", "1", "-", "400.0", "0.75"]
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert len(rows) == 6
    assert rows[-1] == {"processes": 3, "threads": 1, "waiting": "-", "ms": 400.0, "times": 0.75}
