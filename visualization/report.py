"""The report: one HTML file with the table, times, coverage and pictures, and nothing outside of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2

from beyonddrive.datasets.navsim.sensors import read_image
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.plan import SCORE_COLUMNS
from beyonddrive.visualization.palette import FAILURE_LABELS, FAILURES, PASS
from beyonddrive.visualization.report_inputs import ReportError, ScenePicture
from beyonddrive.visualization.report_template import PAGE
from beyonddrive.visualization.tables import ScoreRow, best_values, shown_columns

JPEG_QUALITY = 88
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
    """

    title: str
    rows: Sequence[ScoreRow] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    coverage: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[ScenePicture] = ()
    note: str = ""
    labels: Sequence[str] = ()


def write_report(path: Path, report: Report) -> None:
    """Write a report; the file appears complete or not at all.

    Raises:
        SensorError: If a picture is missing or damaged.
    """
    write_atomically(Path(path), render_report(report).encode())


def render_report(report: Report) -> str:
    """The report as HTML; images are part of it, and no other file or address is named in it."""
    parts = [
        _section("Planners", _score_table(report.rows) + _labels(report.labels)) if report.rows else "",
        _section("Negatives", _coverage(report.coverage)) if report.coverage else "",
        _section("Scenes", _scenes(report.pictures)) if report.pictures else "",
        _section("Time", _times(report.times)) if report.times else "",
    ]
    note = f'<p class="note">{escape(report.note)}</p>' if report.note else ""
    # The n-th button shows the n-th picture: one style rule per place, and no script.
    places = range(1, 1 + max((len(group) for group in _by_scene(report.pictures)), default=1))
    tabs = ", ".join(f".scene input:nth-of-type({n}):checked ~ .views img:nth-of-type({n})" for n in places)
    return PAGE.substitute(
        title=escape(report.title), note=note, tabs=tabs, body="\n".join(filter(None, parts))
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


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _labels(labels: Sequence[str]) -> str:
    return "".join(f'\n<p class="note">{escape(label)}</p>' for label in labels)


def _score_table(rows: Sequence[ScoreRow]) -> str:
    best = best_values(rows)
    failed, columns = any(row.num_failed for row in rows), shown_columns(rows)
    titles = COLUMN_TITLES if columns[0] in COLUMN_TITLES else EXTENDED_TITLES
    head = "".join(f'<th title="{escape(titles[name])}">{name}</th>' for name in columns)
    lines = []
    for row in rows:
        cells = []
        for name in columns:
            value = row[name]
            mark = "best" if round(value, 1) == best.get(name) and row.label.lower() != "human" else ""
            bar = f' style="--share:{value:.1f}%"' if name == columns[0] else ""
            kind = " ".join(filter(None, ["bar" if bar else "", mark]))
            cells.append(f'<td class="{kind}"{bar}>{value:.1f}</td>' if kind else f"<td>{value:.1f}</td>")
        tail = f"<td>{row.num_scenes}</td>" + (f"<td>{row.num_failed}</td>" if failed else "")
        lines.append(f"<tr><th>{escape(row.label)}</th>{''.join(cells)}{tail}</tr>")
    extra = "<th>scenes</th>" + ("<th>failed</th>" if failed else "")
    key = "; ".join(f"<b>{name}</b> {escape(titles[name])}" for name in columns)
    return (
        f'<div class="wide"><table class="scores"><thead><tr><th>planner</th>{head}{extra}</tr></thead>'
        + "\n<tbody>"
        + "\n".join(lines)
        + f'</tbody></table></div>\n<p class="key">Means over scenes in percent. {key}.</p>'
    )


def _times(times: Mapping[str, float]) -> str:
    total = sum(times.values())
    lines = [
        f"<tr><th>{escape(stage)}</th><td>{format_duration(seconds)}</td>"
        f'<td class="meter"><i style="width:{100.0 * seconds / max(total, 1e-9):.1f}%"></i></td></tr>'
        for stage, seconds in times.items()
    ]
    lines.append(f'<tr class="total"><th>all</th><td>{format_duration(total)}</td><td></td></tr>')
    return f'<table class="times"><tbody>{"".join(lines)}</tbody></table>'


def _coverage(coverage: Mapping[str, Any]) -> str:
    """Figures of ``coverage.json``: what is known is worded, a part that is missing is left out."""
    rule = f"{coverage.get('column', 'PDMS')} below {coverage.get('threshold', '?')}"
    facts = [
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
    facts_html = "".join(
        f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in facts if value
    )
    by_column = coverage.get("proposals_failing") or {}
    scenes = coverage.get("scenes_failing") or {}
    failing = "".join(
        f"<tr><th>{_dot(name)}{escape(FAILURE_LABELS.get(name, 'score'))} ({name})</th>"
        f"<td>{_share(scenes.get(name)) or '-'}</td><td>{_share(by_column.get(name)) or '-'}</td></tr>"
        for name in SCORE_COLUMNS
        if name in by_column
    )
    table = (
        f"<table><thead><tr><th>below {escape(str(coverage.get('threshold', '?')))}</th><th>scenes</th>"
        f"<th>proposals</th></tr></thead><tbody>{failing}</tbody></table>"
        if failing
        else ""
    )
    return f'<div class="columns"><table><tbody>{facts_html}</tbody></table>{table}</div>'


def _scenes(pictures: Sequence[ScenePicture]) -> str:
    """Per scene one picture at a time, chosen by planner, so that planners are compared in place."""
    colors = [(FAILURE_LABELS[name], color) for name, color in FAILURES.items()] + [("passes", PASS)]
    key = " ".join(f"<span>{_swatch(color)}{escape(label)}</span>" for label, color in colors)
    figures = [f'<p class="key">Proposals are coloured by what they fail: {key}</p>']
    for number, group in enumerate(_by_scene(pictures)):
        token = group[0].token
        tabs, views = [], []
        for index, picture in enumerate(group):
            name = f"s{number}p{index}"
            checked = " checked" if index == len(group) - 1 else ""
            tabs.append(
                f'<input type="radio" name="s{number}" id="{name}"{checked}><label for="{name}">'
                f"{escape(picture.planner)}</label>"
            )
            alt = escape(f"{picture.planner} in scene {token}")
            views.append(f'<img alt="{alt}" src="{_inline(picture.path)}">')
        caption = f"<figcaption>scene {escape(token)}, log {escape(group[0].log_name)}</figcaption>"
        shown = f'{"".join(tabs)}<div class="views">{"".join(views)}</div>{caption}'
        figures.append(f'<figure class="scene">{shown}</figure>')
    return "\n".join(figures)


def _by_scene(pictures: Sequence[ScenePicture]) -> list[list[ScenePicture]]:
    groups: dict[str, list[ScenePicture]] = {}
    for picture in pictures:
        groups.setdefault(picture.token, []).append(picture)
    return list(groups.values())


def _inline(path: Path) -> str:
    """A picture file as a data address; re-encoded as JPEG, a quarter of the size of the PNG."""
    picture = cv2.cvtColor(read_image(path), cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise ReportError(f"{path}: cannot be encoded as JPEG; draw it again with beyonddrive visualize")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _swatch(color: tuple[int, int, int]) -> str:
    return f'<i class="swatch" style="background:rgb{color}"></i>'


def _dot(column: str) -> str:
    return _swatch(FAILURES[column]) if column in FAILURES else ""


def _count(value: Any) -> str:
    return "" if value is None else f"{int(value):,}"


def _share(value: Any) -> str:
    return "" if value is None else f"{100.0 * float(value):.1f} %"


def _metres(value: Any) -> str:
    return "" if value is None else f"{float(value):.2f} m"
