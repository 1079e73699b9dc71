"""The report: everything in one file, nothing outside of it."""

import base64
import json
import re

import cv2
import numpy as np
import pytest

from beyonddrive.datasets.navsim.sensors import SensorError
from beyonddrive.tools import report as tool
from beyonddrive.visualization.panel import save_png
from beyonddrive.visualization.report import Report, render_report
from beyonddrive.visualization.report_inputs import (
    ReportError,
    ScenePicture,
    parse_times,
    read_coverage,
    read_picture_index,
    write_picture_index,
)
from beyonddrive.visualization.tables import ScoreRow

COVERAGE = {
    "column": "PDMS",
    "threshold": 0.6,
    "num_scenes": 40,
    "num_failed": 0,
    "num_proposals": 2560,
    "scenes_with_negative": 0.625,
    "nearest_negative_mean": 1.5,
    "negative_diversity": None,
    "proposals_failing": {"NC": 0.125, "PDMS": 0.5},
    "scenes_failing": {"NC": 0.25, "PDMS": None},
}
RESULTS = "token,log,NC,DAC,EP,TTC,C,DDC,PDMS\na,x,1,1,0.5,1,1,1,0.79\nb,x,1,0,0,1,1,1,0\n"


@pytest.fixture
def pictures(tmp_path):
    shown = []
    for index, planner in enumerate(["human", "LTF + BeyondDrive"]):
        path = tmp_path / "pictures" / f"t_{index}.png"
        save_png(path, np.full((40, 60, 3), 100 + 50 * index, dtype=np.uint8))
        shown.append(ScenePicture("t", "log", planner, path))
    write_picture_index(tmp_path / "pictures", shown)
    return shown


def embedded(html):
    """All pictures of a page, decoded."""
    codes = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_COLOR) for code in codes]


def full_report(pictures):
    rows = [
        ScoreRow("human", np.full(7, 95.0), 8),
        ScoreRow("<b>LTF</b>", np.full(7, 81.25), 8),
        ScoreRow("LTF + BeyondDrive", np.full(7, 88.0), 8, 2),
    ]
    return Report("Demo & more", rows, {"mine": 75.0, "train": 3.5}, COVERAGE, pictures, "8 scenes")


def test_all_rows_figures_and_pictures_are_in_it(pictures):
    html = render_report(full_report(pictures))
    for expected in (
        "human",
        "&lt;b&gt;LTF&lt;/b&gt;",
        "LTF + BeyondDrive",
        "95.0",
        "88.0",
        "Demo &amp; more",
    ):
        assert expected in html
    for expected in ("1 min 15 s", "3.5 s", "62.5 %", "1.50 m", "2,560", "collision (NC)", "12.5 %"):
        assert expected in html
    shown = embedded(html)
    assert [picture.shape for picture in shown] == [(40, 60, 3)] * 2
    assert [int(picture.mean().round()) for picture in shown] == [100, 150]


def test_limits_that_differ_stand_beside_their_columns():
    html = render_report(Report("one", coverage=COVERAGE))
    assert "<th>below 0.6</th>" in html and "collision (NC)<" in html
    html = render_report(Report("several", coverage={**COVERAGE, "threshold": {"NC": 0.9, "DAC": 0.5}}))
    assert "<th></th>" in html and "collision (NC) below 0.9<" in html and "score (PDMS) below 0.6<" in html
    assert "{" not in html[html.index("<h2>Negatives") :]


def test_nothing_outside_is_named(pictures):
    html = render_report(full_report(pictures))
    without_data = re.sub(r'src="data:[^"]+"', "", html)
    for forbidden in ("http", "//", "src=", "href=", "@import", "url(", "<script", "<link"):
        assert forbidden not in without_data
    assert "prefers-color-scheme: dark" in html


def test_empty_parts_are_left_out():
    html = render_report(Report("nothing yet"))
    assert "<section>" not in html and "nothing yet" in html


def test_each_picture_has_a_button_and_a_rule_that_shows_it(pictures):
    html = render_report(full_report(pictures))
    assert html.count('type="radio"') == 2 and html.count(" checked") == 1
    for place in (1, 2):
        assert f".scene input:nth-of-type({place}):checked ~ .views img:nth-of-type({place})" in html


def test_pictures_are_found_by_their_index(tmp_path, pictures):
    assert read_picture_index(tmp_path / "pictures") == pictures
    with pytest.raises(ReportError, match=r"index\.json.*beyonddrive visualize"):
        read_picture_index(tmp_path)
    pictures[1].path.unlink()
    with pytest.raises(SensorError, match=r"t_1\.png"):
        render_report(Report("x", pictures=pictures))


def test_times_and_coverage_are_checked(tmp_path):
    assert parse_times(["train LTF=12.5", "mine=3"]) == {"train LTF": 12.5, "mine": 3.0}
    for bad in ("train=long", "train=-1", "train=inf"):
        with pytest.raises(ReportError, match="wanted seconds"):
            parse_times([bad])
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"other": 1}))
    with pytest.raises(ReportError, match="not a coverage report"):
        read_coverage(path)


def test_the_tool_prints_both_tables_and_writes_the_page(tmp_path, pictures, capsys):
    results, coverage = tmp_path / "r.csv", tmp_path / "coverage.json"
    results.write_text(RESULTS)
    coverage.write_text(json.dumps(COVERAGE))
    out = tmp_path / "out" / "report.html"
    arguments = ["--row", f"human={results}", "--row", f"LTF={results}", "--time", "train=3"]
    arguments += ["--coverage", str(coverage), "--pictures", str(tmp_path / "pictures"), "--out", str(out)]
    assert tool.main([*arguments, "--markdown", str(tmp_path / "table.md")]) == 0
    printed = capsys.readouterr().out
    assert "planner" in printed and "| LTF |" in printed and "39.5" in printed
    assert "| human |" in (tmp_path / "table.md").read_text()
    assert len(embedded(out.read_text())) == 2


def test_the_tool_refuses_what_it_cannot_read(tmp_path, capsys):
    assert tool.main(["--row", f"LTF={tmp_path / 'none.csv'}"]) == 1
    assert "none.csv" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--markdown"])
def test_a_report_never_takes_the_place_of_what_it_reads(tmp_path, pictures, capsys, option):
    results, coverage = tmp_path / "a.csv", tmp_path / "coverage.json"
    results.write_text(RESULTS)
    coverage.write_text(json.dumps(COVERAGE))
    words = ["--row", f"a={results}", "--coverage", str(coverage), "--pictures", str(tmp_path / "pictures")]
    for path in (results, coverage, pictures[0].path):
        before = path.read_bytes()
        assert tool.main([*words, option, str(path)]) == 1
        assert f"{option} {path}: is read by this command; give" in capsys.readouterr().err
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    "option", ["--time=train=3", "--coverage=coverage.json", "--pictures=pictures", "--title=x", "--note=x"]
)
def test_what_only_the_page_shows_asks_for_a_page(tmp_path, pictures, capsys, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.csv").write_text(RESULTS)
    (tmp_path / "coverage.json").write_text(json.dumps(COVERAGE))
    assert tool.main(["--row=LTF=r.csv", option]) == 1
    said = capsys.readouterr()
    assert f"{option.split('=')[0]}: is seen on the page alone" in said.err and not said.out
    assert tool.main(["--row=LTF=r.csv", option, "--out=report.html"]) == 0


def test_a_report_of_nothing_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--markdown=t.md"], ["--markdown=t.md", "--out=report.html"]):
        assert tool.main(words) == 1
        assert "give --row NAME=results.csv" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
