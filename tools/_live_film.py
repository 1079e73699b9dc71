"""The video of an episode of the live world."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beyonddrive.synth.live.drive import Outcome


def write_video(outcome: Outcome, towns: Path, folder: Path) -> None:
    """Write ``video.webp`` of an outcome that kept its film."""
    from beyonddrive.synth.live.episode_files import VIDEO
    from beyonddrive.synth.live.town import open_live_town
    from beyonddrive.visualization.episode_film import draw_step, write_film

    nuplan_map = open_live_town(towns / outcome.scenario.town).nuplan_map
    losses = {round(scored.time, 3): "; ".join(scored.losses) for scored in outcome.score.frames}
    pictures = [draw_step(row, nuplan_map, _lines(outcome, i, losses)) for i, row in enumerate(outcome.film)]
    if pictures:
        write_film(folder / VIDEO, pictures)


def _lines(outcome: Outcome, i: int, losses: Mapping[float, str]) -> tuple[str, str]:
    """What is written below the picture of a step: how it went, and what its frame lost, by the time."""
    row = outcome.film[i]
    speed = float(row["frame"]["ego_dynamic_state"][0])
    if i < len(outcome.frames):
        frame = outcome.frames[i]
        time, lost = frame.time, losses.get(round(frame.time, 3), "")
        what = f"rc {frame.rc:.2f}{_source(row)}"
    else:  # (no plan came, and nothing moved)
        time, lost = row["time"], outcome.report.reasons.get("planner_failure", "")
        what = "no plan"
    head = f"{outcome.scenario.name}  {time:5.2f} s  {speed:4.1f} m/s  {what}"
    if i == len(outcome.film) - 1:
        head += "  END: " + ", ".join(outcome.ends)
    return head, lost


def _source(row: Mapping[str, Any]) -> str:
    return "" if row["source"] == "planner" else f", {row['source'].replace('_', ' ')}"
