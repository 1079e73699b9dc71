"""Results files and the table of planners."""

import numpy as np
import pytest

from beyonddrive.visualization.tables import (
    ResultsError,
    ScoreRow,
    format_table,
    parse_named,
    read_results,
    summarise,
)

HEADER = "token,log,NC,DAC,EP,TTC,C,DDC,PDMS,oracle_PDMS,error\n"


def write(path, *lines, header=HEADER):
    path.write_text(header + "".join(line + "\n" for line in lines))
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "a.csv", "a,x,1,1,0.5,1,1,1,0.8,,", "b,x,0,1,0,0,1,0.5,0,,", "c,x,,,,,,,,,no map")


def test_means_are_percent_over_scored_scenes(good):
    (row,) = summarise([read_results("LTF", good)])
    assert (row.num_scenes, row.num_failed) == (2, 1)
    assert row["PDMS"] == pytest.approx(40.0) and row["NC"] == pytest.approx(50.0)
    assert row["EP"] == pytest.approx(25.0) and row["DDC"] == pytest.approx(75.0)


def test_reasons_may_hold_commas_and_new_lines(tmp_path):
    path = write(tmp_path / "a.csv", "a,x,1,1,1,1,1,1,1,,", 'b,x,,,,,,,,,"two,\nlines"')
    assert read_results("LTF", path).failures == {"b": "two,\nlines"}


def test_a_log_that_is_lost_as_a_whole_counts_as_failed(tmp_path):
    path = write(tmp_path / "a.csv", "a,x,1,1,1,1,1,1,1,,", ",y,,,,,,,,,truncated", ",z,,,,,,,,,gone")
    assert read_results("LTF", path).failures == {"y": "truncated", "z": "gone"}
    write(path, "a,x,1,1,1,1,1,1,1,,", ",y,,,,,,,,,truncated", ",y,,,,,,,,,truncated")
    with pytest.raises(ResultsError, match="line 4: token 'y' is empty or there twice"):
        read_results("LTF", path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",y,1,1,1,1,1,1,1,,", "line 3: token '' is empty"),
        (",,,,,,,,,,gone", "line 3: token '' is empty"),
        ("b,x,nan,1,1,1,1,1,1,,", "line 3: NC is 'nan'"),
        ("b,x,1,1,1.5,1,1,1,1,,", "line 3: EP is '1.5'"),
        ("b,x,1,1,1,1,1,,1,,", "line 3: DDC is ''"),
        ("b,x,,,,,,,,,", "line 3: NC is ''"),
        ("b,x,one,1,1,1,1,1,1,,", "line 3: NC is 'one'"),
        ("a,x,1,1,1,1,1,1,1,,", "token 'a' is empty or there twice"),
    ],
)
def test_a_bad_cell_is_named_and_never_averaged(tmp_path, line, message):
    path = write(tmp_path / "a.csv", "a,x,1,1,1,1,1,1,1,,", line)
    with pytest.raises(ResultsError, match=message):
        read_results("LTF", path)


def test_files_that_are_no_results_are_refused(tmp_path):
    with pytest.raises(ResultsError, match=r"missing\.csv: cannot be read"):
        read_results("LTF", tmp_path / "missing.csv")
    with pytest.raises(ResultsError, match="no column EP, PDMS"):
        read_results("LTF", write(tmp_path / "b.csv", header="token,NC,DAC,TTC,C,DDC\n"))
    with pytest.raises(ResultsError, match="not a single scored scene"):
        read_results("LTF", write(tmp_path / "c.csv", "c,x,,,,,,,,,no map"))


def test_planners_are_compared_on_the_same_scenes(tmp_path, good):
    other = write(tmp_path / "b.csv", "a,x,1,1,1,1,1,1,1,,", "d,x,1,1,1,1,1,1,1,,")
    results = [read_results("LTF", good), read_results("human", other)]
    with pytest.raises(ResultsError, match=r"a\.csv: 1 of 2 scenes .* the first is b"):
        summarise(results)
    rows = summarise(results, common_scenes=True)
    assert [(row.num_scenes, row["PDMS"]) for row in rows] == [(1, pytest.approx(80.0)), (1, 100.0)]
    alone = read_results("x", write(tmp_path / "d.csv", "z,x,1,1,1,1,1,1,1,,"))
    with pytest.raises(ResultsError, match="no scene is scored in all"):
        summarise([results[0], alone], common_scenes=True)


def test_text_columns_line_up_and_every_planner_has_a_line():
    rows = [ScoreRow("human", np.full(7, 100.0), 12), ScoreRow("LTF + BeyondDrive", np.full(7, 5.25), 12, 3)]
    lines = format_table(rows).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["planner", "PDMS", "NC", "DAC", "EP", "TTC", "C", "DDC", "scenes", "failed"]
    assert lines[3].startswith("LTF + BeyondDrive") and lines[3].split()[-2:] == ["12", "3"]
    assert format_table([]).count("\n") == 1


def test_markdown_marks_the_best_planner_but_not_the_human():
    rows = [
        ScoreRow("human", np.full(7, 100.0), 2),
        ScoreRow("a|b", np.full(7, 50.0), 2),
        ScoreRow("LTF", np.full(7, 60.0), 2),
    ]
    lines = format_table(rows, "markdown").splitlines()
    assert lines[1] == "| --- |" + " ---: |" * 8
    assert "**" not in lines[2] and "**" not in lines[3] and lines[4].count("**60.0**") == 7
    assert lines[3].startswith("| a\\|b |")


def test_named_arguments_must_be_pairs_with_different_names():
    assert parse_named(["a = b=c.csv"], "--row") == [("a", " b=c.csv")]
    for bad in (["a"], ["=x"], ["a="], ["a=b", "a=c"]):
        with pytest.raises(ResultsError, match="--row"):
            parse_named(bad, "--row")


EXTENDED = "token,log,NC,DAC,DDC,TLC,EP,TTC,LK,HC,EC,EPDMS,oracle_EPDMS,error\n"


def test_results_of_navsim_v2_are_read_and_compared_with_their_like(tmp_path, good):
    lines = ("a,x,1,1,1,1,0.5,1,1,1,,0.8,,", "b,x,1,0,1,1,0,1,1,1,1,0,,")
    first, second = (
        read_results(name, write(tmp_path / f"{name}.csv", *lines, header=EXTENDED))
        for name in ("one", "two")
    )
    rows = summarise([first, second])
    assert rows[0]["EPDMS"] == pytest.approx(40.0) and rows[0]["DAC"] == pytest.approx(50.0)
    assert rows[0]["EC"] == 100.0  # over the scene that has it
    assert format_table(rows).split()[:3] == ["planner", "EPDMS", "NC"]
    with pytest.raises(ResultsError, match=r"a\.csv: holds PDM score.*one\.csv holds EPDMS"):
        summarise([first, read_results("v1", good)])


def test_a_file_that_a_spreadsheet_saved_is_read(good):
    good.write_bytes(b"\xef\xbb\xbf" + good.read_bytes())
    assert len(read_results("LTF", good).values) == 2


def test_a_missing_column_of_navsim_v2_is_named(tmp_path):
    path = write(tmp_path / "a.csv", header=EXTENDED.replace("TLC,", ""))
    with pytest.raises(ResultsError, match="no column TLC;"):
        read_results("LTF", path)
