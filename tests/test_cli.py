"""``beyonddrive VERB``: the same code as ``tools/``, light until it works, and clear about what it lacks."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import beyonddrive
from beyonddrive import cli
from beyonddrive.version import __version__

ROOT = Path(beyonddrive.__path__[0])
HEAVY = ("torch", "numba", "matplotlib", "cv2", "mmengine")


def test_every_tool_is_a_verb():
    files = {path.stem for path in (ROOT / "tools").glob("[!_]*.py")}
    assert {verb.module for verb in cli.VERBS.values()} == files


@pytest.mark.parametrize("name", cli.VERBS)
def test_help_of_every_verb_is_its_own(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: beyonddrive {name} ")


def test_help_loads_nothing_heavy():
    """Of all verbs, one after another in one process."""
    script = (
        "import sys\n"
        "from beyonddrive import cli\n"
        "for name in cli.VERBS:\n"
        "    try:\n"
        "        cli.main([name, '--help'])\n"
        "    except SystemExit:\n"
        f"        loaded = sys.modules.keys() & {set(HEAVY)}\n"
        "        assert not loaded, (name, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_overview_names_every_verb(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.VERBS)
    assert cli.main([]) == 2
    assert "usage: beyonddrive VERB" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"beyonddrive {__version__}\n"


def test_an_unknown_verb_names_the_nearest(capsys):
    assert cli.main(["trian", "config.py"]) == 2
    assert capsys.readouterr().err == "beyonddrive: no verb 'trian'; did you mean 'train'?\n"
    assert cli.main(["quux"]) == 2
    assert capsys.readouterr().err == "beyonddrive: no verb 'quux'; beyonddrive --help lists the verbs\n"


@pytest.mark.parametrize(
    ("word", "verb"), [("mine-negatives", "mine"), ("convert_checkpoint", "convert"), ("train", "train")]
)
def test_long_names_are_accepted(word, verb):
    assert cli.find_verb(word) == verb


def test_a_verb_hands_over_its_words_and_its_exit_code(monkeypatch):
    tool = importlib.import_module("beyonddrive.tools.mine_negatives")
    monkeypatch.setattr(tool, "main", lambda argv: len(argv))
    assert cli.main(["mine", "config.py", "a.pth", "--out", "pool"]) == 4
