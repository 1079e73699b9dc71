"""A report is an account of a run, and never a reason for its end."""

import json
import threading

import numpy as np

from beyonddrive.deploy.drivers.run_report import LOG, REPORT, RunReport
from beyonddrive.structures.frame import DrivenPlan, DriverReport

PLAN = DrivenPlan(np.zeros((8, 3)))


def test_a_full_disk_ends_the_log_and_nothing_else(tmp_path, caplog):
    (tmp_path / LOG).symlink_to("/dev/full")
    with RunReport(tmp_path, {}) as report:
        for step in range(3):
            report.planned("s", 0.25 * step, PLAN, 0.1)
        report.session_ended("s", DriverReport({"inference": 3}), "done")
    assert caplog.text.count("driver_log.jsonl: no more lines: OSError: [Errno 28] No space left") == 1
    kept = json.loads((tmp_path / REPORT).read_text())
    assert kept["plans"] == 3 and not kept["trouble"] and "No space left" in kept["log_ended"]


def test_a_run_that_is_killed_leaves_no_report_of_an_earlier_one(tmp_path):
    with RunReport(tmp_path, {}) as report:
        report.session_ended("s", DriverReport({"inference": 3}), "done")
    killed = RunReport(tmp_path, {})
    killed.planned("s", 0.0, PLAN, 0.1)
    assert [path.name for path in tmp_path.iterdir()] == [LOG]


def test_two_sessions_of_one_name_both_count(tmp_path):
    with RunReport(tmp_path, {}) as report:
        report.session_ended("s", DriverReport({"straight_on": 2}), "closed")
        report.session_ended("s", DriverReport({"inference": 3}), "the server ended")
    kept = json.loads((tmp_path / REPORT).read_text())
    assert kept["fallbacks"] == 2 and kept["plans"] == 5
    assert {name: told["ended"] for name, told in kept["sessions"].items()} == {
        "s": "closed", "s (2)": "the server ended"
    }  # fmt: skip


def test_lines_are_json_whatever_is_not_known_and_whole_from_many_threads(tmp_path):
    def work(name):
        for _ in range(50):
            report.planned(name, float("nan"), PLAN, 0.1)

    with RunReport(tmp_path, {}) as report:
        threads = [threading.Thread(target=work, args=(f"s{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report.planned("late", 0.0, PLAN, 0.1)  # (of a session that outlives its server)

    def refuse(constant):
        raise AssertionError(constant)

    lines = (tmp_path / LOG).read_text().splitlines()
    read = [json.loads(line, parse_constant=refuse) for line in lines]
    assert len(read) == 200 and {line["time"] for line in read} == {None}
