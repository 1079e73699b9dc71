"""Paired differences of a report: figures that are known, and the sentence when sight does not pay."""

import numpy as np
import pytest

from beyonddrive.evaluation.score_results import ResultsError, read_results
from beyonddrive.tools import report as tool
from beyonddrive.visualization.result_differences import paired_differences

NUM_SCENES = 40
COLUMNS = "token,log,NC,DAC,EP,TTC,C,DDC,PDMS\n"


def write(folder, name, scores, backwards=False):
    """A results file of PDM scores by scene, which may stand in any order."""
    lines = [f"t{index:02d},x,1,1,1,1,1,1,{score:.4f}\n" for index, score in enumerate(scores)]
    path = folder / f"{name}.csv"
    path.write_text(COLUMNS + "".join(lines[::-1] if backwards else lines))
    return path


@pytest.fixture
def files(tmp_path):
    """Results whose differences are known: 10 points more in every scene, and 5 in every second one."""
    blind = np.linspace(0.1, 0.6, NUM_SCENES)
    seeing = blind + 0.1
    repelled = seeing + 0.05 * (np.arange(NUM_SCENES) % 2)
    return {
        "MLP": write(tmp_path, "mlp", blind),
        "LTF": write(tmp_path, "ltf", seeing, backwards=True),
        "LTF + BeyondDrive": write(tmp_path, "repelled", repelled),
    }


def report(files, *options):
    rows = [f"--row={name}={path}" for name, path in files.items()]
    return tool.main([*rows, *options])


def test_scenes_are_matched_by_token_and_the_interval_is_over_them(files):
    results = [read_results(name, path) for name, path in files.items()]
    sight, gain = paired_differences(results, [("LTF", "MLP"), ("LTF + BeyondDrive", "LTF")])
    found = sight.found
    # Every scene differs by the same: only scenes that are matched wrongly would widen the interval.
    assert (found.mean, *found.interval) == pytest.approx((10.0, 10.0, 10.0))
    assert (found.num_seeds, found.num_scenes, sight.score) == (1, NUM_SCENES, "PDMS")
    # Differences of 0 and 5, half and half: a standard error of 2.5 / sqrt(40).
    assert gain.found.mean == pytest.approx(2.5)
    half = 1.96 * 2.5 / np.sqrt(NUM_SCENES)
    assert gain.found.interval == pytest.approx((2.5 - half, 2.5 + half), abs=0.15)


def test_the_report_shows_differences_and_that_sight_pays(files, tmp_path, capsys):
    out, markdown = tmp_path / "report.html", tmp_path / "table.md"
    options = ["--sight=LTF=MLP", "--difference=LTF + BeyondDrive=LTF"]
    assert report(files, *options, f"--out={out}", f"--markdown={markdown}") == 0
    text, page = markdown.read_text(), out.read_text()
    assert text in capsys.readouterr().out
    assert "| LTF minus MLP | +10.00 | +10.00 to +10.00 | 40 |\n" in text
    assert "| LTF + BeyondDrive minus LTF | +2.50 |" in text
    assert "<th>LTF minus MLP</th><td>+10.00</td><td>+10.00 to +10.00</td><td>40</td>" in page
    assert "<th>LTF + BeyondDrive minus LTF</th><td>+2.50</td>" in page
    for shown in (text, page):
        assert "Sight pays at this size: LTF minus MLP is +10.00 PDMS" in shown
        assert "a second training may differ by more (docs/results.md)" in shown
        assert "mean nothing" not in shown


@pytest.mark.parametrize("gain", [-0.05, 0.0, 0.01])
def test_where_the_interval_is_not_above_zero_sight_does_not_pay(files, tmp_path, gain):
    noise = 0.1 * (-1.0) ** np.arange(NUM_SCENES)
    seeing = np.linspace(0.15, 0.65, NUM_SCENES)
    files["MLP"] = write(tmp_path, "mlp", seeing - noise - gain)
    files["LTF"] = write(tmp_path, "ltf", seeing)
    out, markdown = tmp_path / "report.html", tmp_path / "table.md"
    assert report(files, "--sight=LTF=MLP", f"--out={out}", f"--markdown={markdown}") == 0
    for shown in (markdown.read_text(), out.read_text()):
        assert f"Sight does not pay at this size: LTF minus MLP is {100 * gain:+.2f} PDMS" in shown
        assert "not above 0. The other differences mean nothing." in shown


def test_a_single_scene_has_no_interval_and_shows_nothing_of_sight(tmp_path, capsys):
    files = {"MLP": write(tmp_path, "mlp", [0.2]), "LTF": write(tmp_path, "ltf", [0.9])}
    assert report(files, "--sight=LTF=MLP") == 0
    printed = capsys.readouterr().out
    assert "| LTF minus MLP | +70.00 | - | 1 |" in printed and "Sight does not pay" in printed


def test_differences_are_over_the_scenes_of_the_table(files, tmp_path, capsys):
    files["other"] = write(tmp_path, "other", np.zeros(10))
    assert report(files, "--sight=LTF=MLP") == 1
    assert "--common-scenes" in capsys.readouterr().err
    assert report(files, "--sight=LTF=MLP", "--common-scenes") == 0
    assert "| LTF minus MLP | +10.00 | +10.00 to +10.00 | 10 |" in capsys.readouterr().out


def test_rows_that_are_not_there_are_named(files, capsys):
    assert report(files, "--difference=LTF=WoTE") == 1
    assert "no row 'WoTE' to compare; there is MLP; LTF; LTF + BeyondDrive" in capsys.readouterr().err
    assert report(files, "--difference=LTF=LTF") == 1
    assert "row 'LTF' is compared with itself" in capsys.readouterr().err
    assert report(files, "--sight=LTF") == 1
    assert "--sight 'LTF': wanted NAME=VALUE" in capsys.readouterr().err


def test_scenes_of_two_stages_do_not_count_alike(tmp_path):
    header = "token,log,NC,DAC,DDC,TLC,EP,TTC,LK,HC,EC,EPDMS,group,half,weight\n"
    path = tmp_path / "two.csv"
    path.write_text(header + "a,x,1,1,1,1,1,1,1,1,1,1,g,first,1\nb,x,1,1,1,1,1,1,1,1,1,1,g,second,1\n")
    results = [read_results(name, path) for name in ("LTF", "MLP")]
    with pytest.raises(ResultsError, match=r"two\.csv: has two stages"):
        paired_differences(results, [("LTF", "MLP")])
