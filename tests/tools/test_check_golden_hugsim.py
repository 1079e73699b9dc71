"""What was recorded of HUGSIM's cameras and messages, compared by ``beyonddrive check-golden``."""

import json
from pathlib import Path

import pytest

from beyonddrive.tools.check_golden import main

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "hugsim"


@pytest.fixture
def recorded(tmp_path):
    """Writes one of the files, changed or not, to a directory; gives that."""

    def write(name, change=lambda content: None):
        content = json.loads((GOLDEN / name).read_text())
        change(content)
        (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path)

    return write


def test_cameras_and_messages_are_compared_line_by_line(recorded, capsys):
    recorded("cameras.json")
    assert main([recorded("http.json")]) == 0
    cameras, messages, passed_over = capsys.readouterr().out.splitlines()
    # Four data sets of six cameras, each with four matrices, two focal lengths and a centre.
    assert cameras.split()[:3] == ["cameras.json", str(4 * 6 * 20), "rows,"] and cameras.endswith("pass")
    assert messages.split()[0] == "http.json" and " pass (where the official server breaks" in messages
    assert passed_over.startswith("not compared: http.json: retries and ports")


@pytest.mark.parametrize(
    "name, change, said",
    [
        (
            "cameras.json",
            lambda c: c["waymo"]["cams"]["CAM_BACK"]["focal"].__setitem__(1, 400.0),
            "waymo CAM_BACK focal lengths: differs by",
        ),
        (
            "cameras.json",
            lambda c: c["pandaset"]["cam_rect"]["trans"].__setitem__(1, 0.3),
            "pandaset CAM_BACK to the ego: differs by 4.0e-01",
        ),
        (
            "cameras.json",
            lambda c: c["kitti360"]["cams"]["CAM_FRONT"]["l2c"][0].__setitem__(3, 1e-9),
            "kitti360 CAM_FRONT l2c: differs by",
        ),
        (
            "http.json",
            lambda c: c["client"]["execute_action_bodies"][0]["plan"][1].__setitem__(0, 0.2),
            "plan 0: differs by 4.0e-01",
        ),
        (
            "http.json",
            lambda c: c["server"]["errors"][0].update(status=404),
            "transaction_id missing: differs by 1.8e+01",
        ),
        (
            "http.json",
            lambda c: c["server"]["ok"][1].update(state_keys=["obs"]),
            "GET /get_current_state: keys: differs by 1.0e+00",
        ),
        (
            "http.json",
            lambda c: c["server"]["errors"].append({"case": "a plan in Latin", "status": 500}),
            "HugsimError: http.json: the case 'a plan in Latin' is not known here",
        ),
    ],
)
def test_what_differs_is_noticed(recorded, capsys, name, change, said):
    assert main([recorded(name, change)]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert "FAIL: " in line and said in line


def test_a_file_without_anything_to_compare_is_no_success(recorded, capsys):
    assert main([recorded("cameras.json", lambda content: content.clear())]) == 1
    assert "nothing was compared" in capsys.readouterr().err
