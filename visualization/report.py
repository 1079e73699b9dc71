"""The report: one HTML file with the table, times, coverage and pictures, and nothing outside of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from beyonddrive.datasets.navsim.sensors import read_image
from beyonddrive.datasets.stores.selection import DEFAULT_THRESHOLD
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.palette import FAILURE_LABELS, FAILURES, PASS
from beyonddrive.visualization.report_inputs import ReportError, ScenePicture
from beyonddrive.visualization.result_differences import Difference
from beyonddrive.visualization.sweep_tables import signed
from beyonddrive.visualization.tables import ScoreRow, best_values, shown_columns

JPEG_QUALITY = 88
TEMPLATE = "report.html.j2"
"""Layout of the page, beside this file."""
COLUMN_TITLES = {
    "PDMS": "PDM score: NC x DAC x (5 EP + 5 TTC + 2 C) / 12",
    "NC": "no at-fault collision",
    "DAC": "drivable area compliance",
    "EP": "ego progress",
    "TTC": "time to collision",
    "C": "comfort",
    "DDC": "driving direction compliance; reported, not part of the score",
}
EXTENDED_TITLES = COLUMN_TITLES | {
    "EPDMS": "EPDMS: NC x DAC x DDC x TLC x (5 EP + 5 TTC + 2 LK + 2 HC + 2 EC) / 16",
    "DDC": "driving direction compliance",
    "TLC": "traffic light compliance",
    "LK": "lane keeping",
    "HC": "history comfort",
    "EC": "extended comfort; over the scenes that have a neighbour",
}


@dataclass(frozen=True)
class Report:
    """What a report shows; empty parts are left out.

    Attributes:
        title: Headline.
        rows: Planners.
        times: Seconds by stage, in order.
        coverage: Figures of a negative pool, as ``coverage.json`` holds them.
        pictures: Pictures; those of one token are shown together, in this order.
        note: A sentence below the headline, for example the data set.
        labels: What the figures of the planners are of.
        differences: Between planners.
        remarks: What the differences are worth, in sentences.
    """

    title: str
    rows: Sequence[ScoreRow] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    coverage: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[ScenePicture] = ()
    note: str = ""
    labels: Sequence[str] = ()
    differences: Sequence[Difference] = ()
    remarks: Sequence[str] = ()


def write_report(path: Path, report: Report) -> None:
    """Write a report; the file appears complete or not at all.

    Raises:
        SensorError: If a picture is missing or damaged.
    """
    write_atomically(Path(path), render_report(report).encode())


def render_report(report: Report) -> str:
    """The report as HTML; images are part of it, and no other file or address is named in it."""
    scenes = list(_by_scene(report.pictures).values())
    columns = shown_columns(report.rows) if report.rows else []
    return _TEMPLATES.get_template(TEMPLATE).render(
        report=report,
        columns=columns,
        titles=COLUMN_TITLES if set(columns) <= COLUMN_TITLES.keys() else EXTENDED_TITLES,
        best=best_values(report.rows) if report.rows else {},
        has_failures=any(row.num_failed for row in report.rows),
        facts=_facts(report.coverage),
        failing=_failing(report.coverage),
        limit="" if isinstance(limit := report.coverage.get("threshold", "?"), Mapping) else f"below {limit}",
        scenes=scenes,
        most_pictures=max(map(len, scenes), default=0),
        colors=[*((FAILURE_LABELS[name], color) for name, color in FAILURES.items()), ("passes", PASS)],
    )


def format_duration(seconds: float) -> str:
    """Seconds for a reader.

    >>> [format_duration(s) for s in (4.25, 75.0, 3700.0)]
    ['4.2 s', '1 min 15 s', '1 h 01 min']
    """
    if seconds < 60.0:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _facts(coverage: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Figures of ``coverage.json`` with their names; the text of one that is missing is empty."""
    limits = coverage.get("threshold", "?")
    if not isinstance(limits, Mapping):
        limits = {coverage.get("column", "PDMS"): limits}
    rule = ", ".join(f"{column} below {limit}" for column, limit in limits.items())
    return [
        ("scenes", _count(coverage.get("num_scenes"))),
        ("scenes that could not be mined", _count(coverage.get("num_failed"))),
        ("proposals", _count(coverage.get("num_proposals"))),
        (f"scenes with a negative ({rule})", _share(coverage.get("scenes_with_negative"))),
        ("proposals that are negatives", _share(coverage.get("proposals_negative"))),
        ("nearest negative to the expert, mean", _metres(coverage.get("nearest_negative_mean"))),
        ("nearest negative to the expert, median", _metres(coverage.get("nearest_negative_median"))),
        ("proposal to the expert, mean", _metres(coverage.get("expert_distance_mean"))),
        ("between two proposals of a scene, mean", _metres(coverage.get("proposal_diversity"))),
        ("between two negatives of a scene, mean", _metres(coverage.get("negative_diversity"))),
    ]


def _failing(coverage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of scenes and proposals that fail each sub-score that ``coverage.json`` knows."""
    proposals, scenes = coverage.get("proposals_failing") or {}, coverage.get("scenes_failing") or {}
    limits = coverage.get("threshold")
    below: dict[str, str] = {}
    if isinstance(limits, Mapping):
        below = {name: f" below {limits.get(name, DEFAULT_THRESHOLD)}" for name in SCORE_COLUMNS}
    return [
        {
            "label": f"{FAILURE_LABELS.get(name, 'score')} ({name}){below.get(name, '')}",
            "color": FAILURES.get(name),
            "scenes": _share(scenes.get(name)),
            "proposals": _share(proposals[name]),
        }
        for name in SCORE_COLUMNS
        if name in proposals
    ]


def _by_scene(pictures: Sequence[ScenePicture]) -> dict[str, list[ScenePicture]]:
    groups: dict[str, list[ScenePicture]] = {}
    for picture in pictures:
        groups.setdefault(picture.token, []).append(picture)
    return groups


def _inline(path: Path) -> str:
    """A picture file as a data address; re-encoded as JPEG, a quarter of the size of the PNG."""
    picture = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ReportError(f"{path}: cannot be encoded as JPEG; draw it again with beyonddrive visualize")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _count(value: Any) -> str:
    return "" if value is None else f"{int(value):,}"


def _share(value: Any) -> str:
    return "" if value is None else f"{100.0 * float(value):.1f} %"


def _metres(value: Any) -> str:
    return "" if value is None else f"{float(value):.2f} m"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"duration": format_duration, "inlined": _inline, "signed": signed}
