"""Results files: what is read from them, and what is refused by name."""

import numpy as np
import pytest

from beyonddrive.evaluation.score_labels import BASES, ScoreLabel
from beyonddrive.evaluation.score_results import (
    EPDMS,
    PDMS,
    ResultsError,
    label_differences,
    read_results,
)
from beyonddrive.evaluation.score_rows import ScoredScene, scenes_to_csv
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.tables import summarise

HEADER = "token,log,NC,DAC,EP,TTC,C,DDC,PDMS,oracle_PDMS,error\n"
EXTENDED = "token,log,NC,DAC,DDC,TLC,EP,TTC,LK,HC,EC,EPDMS,oracle_EPDMS,error\n"


def write(path, *lines, header=HEADER):
    path.write_text(header + "".join(line + "\n" for line in lines))
    return path


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "a.csv", "a,x,1,1,0.5,1,1,1,0.8,,", "b,x,0,1,0,0,1,0.5,0,,", "c,x,,,,,,,,,no map")


def test_scores_are_read_by_scene_with_what_has_none(good):
    results = read_results("LTF", good)
    assert (results.kind, results.scored, results.failures) == (PDMS, None, {"c": "no map"})
    assert list(results.values) == ["a", "b"] and results.values["b"].tolist() == [0, 1, 0, 0, 1, 0.5, 0]


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


def test_a_scene_of_navsim_v2_may_lack_extended_comfort(tmp_path):
    lines = ("a,x,1,1,1,1,0.5,1,1,1,,0.8,,", "b,x,1,0,1,1,0,1,1,1,1,0,,")
    results = read_results("LTF", write(tmp_path / "a.csv", *lines, header=EXTENDED))
    comfort = [row[results.kind.columns.index("EC")] for row in results.values.values()]
    assert results.kind == EPDMS and np.isnan(comfort[0]) and comfort[1] == 1.0


def test_a_file_that_a_spreadsheet_saved_is_read(good):
    good.write_bytes(b"\xef\xbb\xbf" + good.read_bytes())
    assert len(read_results("LTF", good).values) == 2


def test_a_missing_column_of_navsim_v2_is_named(tmp_path):
    path = write(tmp_path / "a.csv", header=EXTENDED.replace("TLC,", ""))
    with pytest.raises(ResultsError, match="no column TLC;"):
        read_results("LTF", path)


def test_files_of_the_same_scenes_are_compared_by_what_their_logs_held(tmp_path):
    def file(name, tokens, data):
        scenes = [ScoredScene(token, "log", np.ones(len(SCORE_COLUMNS))) for token in tokens]
        text = scenes_to_csv(scenes, SCORE_COLUMNS, ScoreLabel.of(BASES["pdms"], tokens, data=data))
        (tmp_path / name).write_text(text)
        return read_results(name, tmp_path / name)

    untold, one, other = file("untold", "ab", ""), file("one", "ab", "1"), file("other", "ab", "2")
    fewer = file("fewer", "a", "2")
    assert untold.scored is not None and "data" not in untold.scored.to_text()
    assert one.scored == ScoreLabel.parse(one.scored.to_text()) != other.scored
    assert label_differences([untold, one]) == label_differences([one, untold]) == []
    assert label_differences([one, other]) == label_differences([untold, one, other]) == ["data: 1, 2"]
    assert label_differences([one, fewer]) == []  # (of other scenes, whose logs are others)
    with pytest.raises(ResultsError, match="they differ in data: 1, 2"):
        summarise([one, other])
    (row, _) = summarise([one, fewer], common_scenes=True)
    assert row.scored is not None and (row.scored.num_scenes, row.scored.data) == (1, "")
