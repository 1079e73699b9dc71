"""Eclipse SUMO's command-line programs, from the wheel ``eclipse-sumo`` (extra ``synth``)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.structures.errors import BeyondDriveError


class SumoError(BeyondDriveError, RuntimeError):
    """A SUMO program is missing or has failed."""


def sumo_home() -> Path:
    """Return the folder of the installed SUMO.

    Raises:
        SumoError: If the wheel ``eclipse-sumo`` is not installed.
    """
    try:
        import sumo
    except ImportError as error:
        raise SumoError(
            "the generated world needs Eclipse SUMO, which is not installed: pip install 'beyonddrive[synth]'"
        ) from error
    return Path(sumo.SUMO_HOME)


def run_sumo_program(program: str, arguments: Sequence[str], folder: Path) -> None:
    """Run ``netgenerate``, ``netconvert`` or ``sumo`` in ``folder``.

    Args:
        program: Name of the program.
        arguments: Its options; relative files are taken relative to ``folder``.
        folder: Working directory.

    Raises:
        SumoError: If SUMO is missing or the program fails; the message ends with what the program said.
    """
    home = sumo_home()
    binary = home / "bin" / (program + (".exe" if os.name == "nt" else ""))
    if not binary.exists():
        raise SumoError(f"{binary} does not exist: reinstall with pip install 'beyonddrive[synth]'")
    result = subprocess.run(
        [str(binary), *arguments, "--xml-validation", "never", "--no-warnings", "true"],
        cwd=folder,
        env={**os.environ, "SUMO_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise SumoError(f"{program} {' '.join(arguments)} (in {folder}) failed: {' | '.join(said[-5:])}")
