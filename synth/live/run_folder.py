"""The folder of a run: what the run was made with, and who is at work there.

::

    <out>/settings.json                 what the run was made with; another run is refused
    <out>/seed_<k>/<scene>_<mode>/      one episode: :mod:`beyonddrive.synth.live.episode_files`
    <out>/summary.json, episodes.csv    all of it, with intervals; not of a part
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from beyonddrive.engine.files import LockedError, lock_if_possible, write_atomically
from beyonddrive.structures.errors import shown
from beyonddrive.synth.live.drive import LiveSettings
from beyonddrive.synth.live.town import LiveError

SETTINGS, SUMMARY = "settings.json", "summary.json"
FIGURE_FILES = (SUMMARY, "episodes.csv")
"""Files of the figures of all episodes."""
LOCK = ".driving.lock"
"""File in a folder that a run holds a lock on while it is at work there."""
TRAFFIC_CHANGES = {
    2: "closed lanes are where their cones stand, nobody stops in a lane where no traffic is wanted, and "
    "kilometres have the first step",
    3: "vehicles that stop in their lane are there before the ego comes, who turned in or pulled out goes "
    "on, seeds of the traffic are other traffic, and plans of SUMO's driver follow the way beyond its end",
}
"""What each version has changed of what is about in an episode, and of how far it is said to have gone.

Figures of two versions do not mix. Runs that do not tell a version are of the first.
"""
TRAFFIC_VERSION = max(TRAFFIC_CHANGES)
TOWNS_TOLD = "towns"
"""Setting with the digests of towns by name; two runs are compared by the towns that both tell."""
NOT_ALWAYS_TOLD = ("recipe", "scenarios", "sumo", "planner", TOWNS_TOLD)
"""Settings that runs of earlier versions do not tell; they are compared where both tell them."""


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Let no other run drive into a folder meanwhile; where a file system knows no locks the log says so.

    Raises:
        LiveError: If another run is at work in it.
    """
    with ExitStack() as held:
        try:
            held.enter_context(lock_if_possible(out / LOCK, logging.getLogger(__name__).warning))
        except LockedError as error:
            raise LiveError(
                f"{out}: another run is at work in it; wait until it has ended, or give another --out"
            ) from error
        yield


def claim(out: Path, about: Mapping[str, Any]) -> list[str]:
    """Begin or resume a run in a folder; one that has driven nothing yet may begin otherwise.

    Returns:
        Settings that the run there, of an earlier version, does not tell: it may have been made otherwise.

    Raises:
        LiveError: If the folder holds a run that was made otherwise; names what differs.
    """
    path = out / SETTINGS
    wanted = json.loads(json.dumps(about))
    if path.exists():
        there = read_settings(out)
        differing = differing_settings(there, wanted)
        if not differing:
            _tell_more_towns(path, there, wanted)
            return sorted(set(wanted) - set(there))
        if any(out.glob("seed_*")):
            raise LiveError(
                f"{path}: the run there was made with another {', '.join(differing)}; take another --out or "
                "remove it"
            )
    elif out.exists() and any(path.name != LOCK for path in out.iterdir()):
        raise LiveError(f"{out}: is not empty and holds no closed-loop run; choose another --out")
    write_atomically(path, json.dumps(wanted, indent=1).encode())
    return []


def _tell_more_towns(path: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Note towns that were not there when the run began, so that nothing of it was driven in them."""
    told, now = there.get(TOWNS_TOLD), wanted.get(TOWNS_TOLD)
    if isinstance(told, dict) and isinstance(now, dict) and now.keys() - told.keys():
        settings = {**there, TOWNS_TOLD: {**now, **told}}
        write_atomically(path, json.dumps(settings, indent=1).encode())


def read_settings(out: Path) -> dict[str, Any]:
    """What the run in a folder was made with.

    Raises:
        LiveError: If that cannot be read.
    """
    try:
        found = json.loads((out / SETTINGS).read_text())
    except (OSError, ValueError) as error:
        raise LiveError(f"{out / SETTINGS}: cannot be read ({error})") from error
    if not isinstance(found, dict):
        raise LiveError(f"{out / SETTINGS}: holds no settings")
    return found


def differing_settings(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In which settings two runs differ.

    >>> differing_settings({"pivot": "camera", "sumo": "1.26"}, {"pivot": "camera", "scenarios": 8})
    []
    >>> differing_settings({"pivot": "camera", "sumo": "1.26"}, {"pivot": "camera", "sumo": "1.27"})
    ['sumo']
    """
    there, wanted = ({"traffic_version": 1, **settings} for settings in (there, wanted))
    untold = {key for key in NOT_ALWAYS_TOLD if key not in there or key not in wanted}
    keys = (set(there) | set(wanted)) - untold
    differing = sorted(key for key in keys if there.get(key) != wanted.get(key))
    versions = [settings["traffic_version"] for settings in (there, wanted)]
    words = {"traffic_version": f"version of the traffic ({traffic_changes(*versions)})"}
    before, now = there.get(TOWNS_TOLD), wanted.get(TOWNS_TOLD)
    if TOWNS_TOLD in differing and isinstance(before, dict) and isinstance(now, dict):
        others = sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
        if not others:
            differing.remove(TOWNS_TOLD)
        words[TOWNS_TOLD] = f"town behind the same name ({', '.join(others)})"
    return [words.get(key, key) for key in differing]


def traffic_changes(there: Any, wanted: Any) -> str:
    """Two versions of the traffic, and what lies between them as far as that is known.

    >>> traffic_changes(2, 1)
    '2 and 1; since 2 closed lanes are where their cones stand, nobody stops in a lane where no traffic is \
wanted, and kilometres have the first step'
    """
    told = f"{shown(there)} and {shown(wanted)}"
    if not isinstance(there, int) or not isinstance(wanted, int):
        return told
    since = [
        f"; since {version} {change}"
        for version, change in TRAFFIC_CHANGES.items()
        if min(there, wanted) < version <= max(there, wanted)
    ]
    return told + "".join(since)


def forget_figures(out: Path) -> None:
    """Remove figures of a run that is about to go on: they would be of a part."""
    for name in FIGURE_FILES:
        (out / name).unlink(missing_ok=True)


def settings_dict(settings: LiveSettings) -> dict[str, Any]:
    """Settings as JSON values, without the seed; with the version of the traffic."""
    told = {key: value for key, value in asdict(settings).items() if key != "seed"}
    return {**told, "traffic_version": TRAFFIC_VERSION}
