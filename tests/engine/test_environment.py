"""The facts that results carry, and the fit that tells a broken linear algebra."""

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beyonddrive.engine import velocity_fit
from beyonddrive.engine.environment import environment, package_versions, write_made_with
from beyonddrive.evaluation.pdm.kernels.simulate import SPEED_MATRIX
from beyonddrive.version import __version__


def test_the_environment_is_plain_json_and_names_what_computes():
    facts = json.loads(json.dumps(environment()))
    assert facts["beyonddrive"] == __version__
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["cpu"]["cores"] >= 1 and facts["cpu"]["model"]
    assert all(entry["library"] and entry["threads"] >= 1 for entry in facts["blas"])
    assert facts["blas"] and facts["blas"][0]["kernel"]


def test_the_environment_imports_nothing_heavy():
    script = (
        "import sys\nfrom beyonddrive.engine.environment import environment\nenvironment()\n"
        "assert not {'torch', 'mmengine', 'scipy', 'numba'} & sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_result_says_what_it_was_made_with(tmp_path):
    result = tmp_path / "results.csv"
    result.write_bytes(b"token,PDMS\n")
    facts = json.loads(write_made_with(result).read_text())
    assert facts["sha256"] == hashlib.sha256(b"token,PDMS\n").hexdigest() and facts["file"] == "results.csv"
    assert facts["packages"] == environment()["packages"] and facts["cpu"] == environment()["cpu"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.csv", "results.csv.made_with.json"]
    with pytest.raises(FileNotFoundError):
        write_made_with(tmp_path / "nothing.csv")


def test_a_package_that_is_not_installed_is_left_out():
    assert list(package_versions(("numpy", "no-such-package-of-anyone"))) == ["numpy"]


@pytest.mark.parametrize("plan", range(4))
def test_the_fit_is_the_one_of_the_score(plan):
    headings, speeds = velocity_fit.headings_and_speeds(plan)
    fitted = velocity_fit.fitted_speeds(
        velocity_fit.eliminate(*velocity_fit.normal_equations(headings, speeds))
    )
    np.testing.assert_allclose(SPEED_MATRIX @ np.multiply(speeds, 0.1), fitted, rtol=0, atol=1e-11)


def test_a_sound_library_passes_and_a_broken_one_does_not(monkeypatch):
    assert max(velocity_fit.fit_error().values()) < velocity_fit.TOLERANCE
    sound = np.linalg.pinv
    # What the broken kernel does: a singular value decomposition with one vector wrong.
    monkeypatch.setattr(np.linalg, "pinv", lambda a: sound(a) + 1e-3 * np.eye(len(a)))
    error = velocity_fit.fit_error()
    assert error["pinv"] > 1e-3 and error["solve"] < velocity_fit.TOLERANCE

    def fail(a):
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "pinv", fail)
    assert velocity_fit.fit_error()["pinv"] == math.inf


def test_the_script_runs_by_itself(tmp_path):
    copy = tmp_path / "alone.py"
    copy.write_text(Path(velocity_fit.__file__).read_text())
    done = subprocess.run(
        [sys.executable, "-I", str(copy)], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    facts = json.loads(done.stdout)
    assert facts["numpy"] == np.__version__ and facts["error"]["pinv"] < velocity_fit.TOLERANCE
