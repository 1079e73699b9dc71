"""``benchmarks/pdm_score.py``: the official code is compared on the scenes that it was timed on."""

import pytest

from beyonddrive.benchmarks import pdm_score


@pytest.mark.parametrize("of_golden", [True, False])
def test_other_scenes_have_no_ratio(of_golden, capsys):
    row = dict.fromkeys(pdm_score.FIGURES, 0.5) | {"objects": 3, "polygons": 9}
    pdm_score.print_table([row], "light", of_golden)
    printed = capsys.readouterr().out
    told = [f"{value:g}" for value in pdm_score.OFFICIAL["light"].values()]
    assert all((f" {value} " in printed) == of_golden for value in told)
    assert printed.count("x\n") == (len(told) if of_golden else 0)
