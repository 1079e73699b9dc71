"""A scene on one page: bird's-eye view, camera, sub-scores and reasons, saved as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from beyonddrive.engine.files import write_atomically
from beyonddrive.evaluation.score_results import TABLE_COLUMNS
from beyonddrive.visualization import palette
from beyonddrive.visualization.canvas import Canvas, Picture, text_width
from beyonddrive.visualization.failures import Verdict, count_failures
from beyonddrive.visualization.palette import EXTENDED_FAILURES, FAILURE_LABELS, PASS, Color

MARGIN = 20
HEADER = 64
ROW = 32


@dataclass(frozen=True)
class PanelRow:
    """One plan in the table of a panel.

    Attributes:
        label: Name of the planner.
        color: Its colour in the pictures.
        verdict: Its scores and failures.
    """

    label: str
    color: Color
    verdict: Verdict


@dataclass(frozen=True)
class Bundle:
    """Scored proposals, summed up in a bar.

    Attributes:
        label: For example ``negatives``.
        verdicts: One per proposal.
    """

    label: str
    verdicts: Sequence[Verdict] = field(default_factory=tuple)


def draw_panel(
    bev: Picture,
    camera: Picture | None,
    title: str,
    subtitle: str = "",
    rows: Sequence[PanelRow] = (),
    bundle: Bundle | None = None,
) -> Picture:
    """Lay out a bird's-eye view beside a camera view over a table of sub-scores.

    Args:
        bev: Bird's-eye view (H, W, 3).
        camera: Camera view; None leaves its place out.
        title: What is shown, for example the planner.
        subtitle: Where, for example log and token.
        rows: The table.
        bundle: Proposals to sum up below it.

    Returns:
        uint8 RGB: H + 104 pixels high, as wide as both views and three margins.
    """
    side_width = 560 if camera is None else camera.shape[1]
    width = 3 * MARGIN + bev.shape[1] + side_width
    height = HEADER + bev.shape[0] + 2 * MARGIN
    canvas = Canvas(width, height, palette.PAPER, supersample=2)
    canvas.text(MARGIN, 0.5 * (HEADER + MARGIN), title, 26, bold=True, anchor="lm")
    if subtitle:
        canvas.text(width - MARGIN, 0.5 * (HEADER + MARGIN), subtitle, 15, palette.MUTED_INK, anchor="rm")
    left, top = 2 * MARGIN + bev.shape[1], HEADER + MARGIN
    below = top if camera is None else top + camera.shape[0] + MARGIN
    bottom = _draw_table(canvas, rows, left, below, side_width)
    bottom = _draw_reasons(canvas, rows, left, bottom + 16.0, side_width)
    if bundle is not None and len(bundle.verdicts):
        _draw_bundle(canvas, bundle, left, bottom + 14.0, side_width)
    page = canvas.finish()
    page[top : top + bev.shape[0], MARGIN : MARGIN + bev.shape[1]] = bev
    if camera is not None:
        page[top : top + camera.shape[0], left : left + side_width] = camera
    return page


def _draw_table(canvas: Canvas, rows: Sequence[PanelRow], left: float, top: float, width: float) -> float:
    """The table; returns where it ends."""
    if not rows:
        return top
    columns = rows[0].verdict.columns
    # The score comes first; that of EPDMS is without extended comfort, which its caption says.
    shown = TABLE_COLUMNS if columns[-1] == TABLE_COLUMNS[0] else (columns[-1], *columns[:-1])
    name_width = min(0.36 * width, 300.0)
    step = (width - name_width) / len(shown)
    middles = [left + name_width + step * (index + 0.5) for index in range(len(shown))]
    for middle, column in zip(middles, shown, strict=True):
        name = column.split("_", maxsplit=1)[0]
        canvas.text(middle, top + 0.5 * ROW, name, 14, palette.MUTED_INK, bold=True, anchor="mm")
    canvas.stroke([[(left, top + ROW), (left + width, top + ROW)]], palette.RULE, 1.5)
    for index, row in enumerate(rows):
        line = top + ROW * (index + 1)
        middle_row = line + 0.5 * ROW + 1.0
        if index % 2:
            canvas.rectangle(left, line + 1.0, width, ROW, palette.SHADE)
        canvas.disc((left + 10.0, middle_row), 6.0, row.color)
        canvas.text(left + 26.0, middle_row, shorten(row.label, name_width - 30.0, 15), 15, anchor="lm")
        for middle, column in zip(middles, shown, strict=True):
            value = row.verdict[column]
            if column in row.verdict.failed:
                canvas.rectangle(
                    middle - 0.42 * step,
                    line + 4.0,
                    0.84 * step,
                    ROW - 6.0,
                    EXTENDED_FAILURES[column],
                    alpha=0.2,
                    radius=5.0,
                )
            canvas.text(middle, middle_row, f"{value:.2f}", 15, bold=column == shown[0], anchor="mm")
    return top + ROW * (len(rows) + 1)


def _draw_reasons(canvas: Canvas, rows: Sequence[PanelRow], left: float, top: float, width: float) -> float:
    """What every failing plan fails, and when; returns where it ends."""
    size, indent = 14, 26.0
    for row in rows:
        if not row.verdict.failed:
            continue
        canvas.disc((left + 10.0, top + 12.0), 5.0, row.verdict.color)
        name = f"{row.label}: "
        canvas.text(left + indent, top + 12.0, name, size, bold=True, anchor="lm")
        start = text_width(name, size, bold=True)
        for index, line in enumerate(wrap_text(str(row.verdict), width - indent, size, start)):
            offset = start if index == 0 else 0.0
            canvas.text(left + indent + offset, top + 12.0, line, size, anchor="lm")
            top += 22.0
        top += 4.0
    return top


def _draw_bundle(canvas: Canvas, bundle: Bundle, left: float, top: float, width: float) -> None:
    """A bar of proposals by what they fail, with its key below."""
    counts = count_failures(bundle.verdicts)  # the gravest first
    failing, total = sum(counts.values()), len(bundle.verdicts)
    canvas.text(left, top, f"{bundle.label}: {failing} of {total} fail", 14, bold=True)
    parts: list[tuple[str, int, Color]] = [
        (FAILURE_LABELS[name], count, EXTENDED_FAILURES[name]) for name, count in counts.items()
    ]
    if total > failing:
        parts.append(("passes", total - failing, PASS))
    at, key, key_row = left, left, top + 60.0
    for label, count, color in parts:
        extent = width * count / total
        canvas.rectangle(at, top + 26.0, max(extent - 2.0, 1.0), 16.0, color)
        at += extent
        text = f"{label} {count}"
        needed = 18.0 + text_width(text, 13) + 20.0
        if key + needed > left + width:
            key, key_row = left, key_row + 20.0
        canvas.disc((key + 6.0, key_row), 5.0, color)
        canvas.text(key + 18.0, key_row, text, 13, anchor="lm")
        key += needed


def shorten(text: str, width: float, size: int) -> str:
    """``text``, cut with an ellipsis if it is wider than ``width`` pixels.

    >>> shorten('ltf', 100.0, 14)
    'ltf'
    """
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def wrap_text(text: str, width: float, size: int, first: float = 0.0) -> list[str]:
    """Lines of at most ``width`` pixels; the first one has ``first`` pixels less.

    >>> wrap_text('leaves the road', 80.0, 14)
    ['leaves the', 'road']
    """
    lines = [""]
    for word in text.split():
        room = width - (first if len(lines) == 1 else 0.0)
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save_png(path: Path, picture: Picture) -> None:
    """Write an RGB picture; the file appears complete or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    done, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"{path}: a picture of shape {picture.shape} cannot be encoded as PNG")
    write_atomically(Path(path), data.tobytes())
