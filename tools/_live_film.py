"""The video of an episode of the live world."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beyonddrive.synth.live.drive import Outcome

VIDEO = "video.webp"


def write_video(outcome: Outcome, towns: Path, folder: Path) -> None:
    """Write ``video.webp`` of an outcome that kept its film."""
    from beyonddrive.synth.live.town import open_live_town
    from beyonddrive.visualization.episode_film import draw_step, write_film

    nuplan_map = open_live_town(towns / outcome.scenario.town).nuplan_map
    losses = {round(frame.time, 3): frame for frame in outcome.score.frames}
    pictures = []
    for i, (row, frame) in enumerate(zip(outcome.film, outcome.frames, strict=False)):
        scored = losses.get(round(frame.time, 3))
        lost = "" if scored is None else "; ".join(scored.losses)
        speed = float(row["frame"]["ego_dynamic_state"][0])
        source = "" if row["source"] == "planner" else f", {row['source'].replace('_', ' ')}"
        head = f"{outcome.scenario.name}  {frame.time:5.2f} s  {speed:4.1f} m/s  rc {frame.rc:.2f}{source}"
        if i == len(outcome.frames) - 1:
            head += "  END: " + ", ".join(outcome.ends)
        pictures.append(draw_step(row, nuplan_map, (head, lost)))
    if pictures:
        write_film(folder / VIDEO, pictures)
