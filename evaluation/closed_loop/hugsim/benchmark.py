"""Many runs at once: which there should be, and means in every weighting (HUGSIM, sections 8, 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from beyonddrive.evaluation.closed_loop.hugsim.hd_score import RunScore
from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES, read_scenario
from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError
from beyonddrive.structures.digests import digest_of_bytes, digest_of_lines

FIGURES = ("nc", "dac", "ttc", "c", "pdms", "rc", "hdscore")


@dataclass(frozen=True)
class Listed:
    """One scenario of a list.

    Attributes:
        name: Folder of its results, ``<scene>_<mode>``.
        difficulty: ``easy``, ``medium``, ``hard`` or ``extreme``.
        data_set: Folder of its file below that of the list; empty if it is there itself.
        digest: Of the file's bytes; empty if only the folder of its results is known.
    """

    name: str
    difficulty: str
    data_set: str = ""
    digest: str = ""


def read_scenarios(folder: Path) -> list[Listed]:
    """All scenarios in a folder and those below it.

    Raises:
        HugsimError: If there is none, one cannot be read, or two have one name.
    """
    found = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        scenario = read_scenario(path)
        digest = digest_of_bytes(path.read_bytes())
        below = path.parent.relative_to(folder).as_posix()
        name = f"{scenario.scene}_{scenario.mode}"
        found.append(Listed(name, scenario.difficulty, "" if below == "." else below, digest))
    if not found:
        raise HugsimError(f"{folder}: holds no scenario files (*.yaml)")
    names = [item.name for item in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise HugsimError(f"{folder}: two scenarios write to {twice}; give one of them another mode")
    return found


def listed_by_name(name: str) -> Listed | None:
    """The scenario that a folder of results is named after; None if its name tells no difficulty.

    >>> listed_by_name("scene-0383_hard_00").difficulty
    'hard'
    >>> listed_by_name("logs")
    """
    difficulty = name.split("_")[-2] if name.count("_") > 1 else ""
    return Listed(name, difficulty) if difficulty in DIFFICULTIES else None


@dataclass(frozen=True)
class BenchmarkScore:
    """Scores of many runs.

    Attributes:
        scenarios: What there should be.
        runs: Name -> score; a run without a score counts as 0.
        absent: Scenarios that wrote nothing, or nothing that can be scored, with the reason; they count as 0.
        left_out: Folders that belong to no scenario; they count nowhere.
    """

    scenarios: Sequence[Listed]
    runs: Mapping[str, RunScore]
    absent: Mapping[str, str] = field(default_factory=dict)
    left_out: Sequence[str] = ()

    @property
    def list_hash(self) -> str:
        """Hash of the scenario list: names and files, or what :attr:`list_of` says."""
        return digest_of_lines(f"{item.name} {item.digest}" for item in self.scenarios)

    @property
    def list_of(self) -> str:
        """What the hash of the list covers.

        >>> BenchmarkScore([Listed("a_easy_00", "easy")], {}).list_of
        'names of folders alone'
        """
        known = all(item.digest for item in self.scenarios)
        return "names and contents of scenario files" if known else "names of folders alone"

    def means(self, scenarios: Sequence[Listed] | None = None) -> dict[str, float]:
        """Means per episode of some scenarios, all by default."""
        chosen = self.scenarios if scenarios is None else scenarios
        rows = [
            self.runs[s.name].means if s.name in self.runs else dict.fromkeys(FIGURES, 0.0) for s in chosen
        ]
        return {name: float(np.mean([row[name] for row in rows])) for name in FIGURES}

    def by(self, attribute: str) -> dict[str, dict[str, float]]:
        """Means per ``difficulty`` or ``data_set``."""
        groups: dict[str, list[Listed]] = {}
        for scenario in self.scenarios:
            groups.setdefault(getattr(scenario, attribute), []).append(scenario)
        return {name: self.means(group) for name, group in sorted(groups.items())}

    def to_dict(self) -> dict[str, Any]:
        """Every mean under its weighting, as JSON values."""
        difficulties = self.by("difficulty")
        unweighted = {
            name: float(np.mean([means[name] for means in difficulties.values()])) for name in FIGURES
        }
        return {
            "num_scenarios": len(self.scenarios),
            "num_absent": len(self.absent),
            "scenario_list": self.list_hash,
            "scenario_list_of": self.list_of,
            "scenario_files": {item.name: item.digest for item in self.scenarios if item.digest},
            "mean_per_episode": self.means(),
            "mean_of_difficulties": unweighted,
            "by_difficulty": difficulties,
            "by_data_set": self.by("data_set") if any(item.data_set for item in self.scenarios) else {},
            "absent": dict(self.absent),
            "left_out": list(self.left_out),
        }
