"""Seconds of training steps on a CPU, by planner: ``steps.csv``, which ``results/check.py --write`` writes.

Reads what ``benchmarks/train_step.py --json`` has written beside this file, in the order of the names; of a
planner that was measured again the later file counts. The table has the seconds of each variant, and how many
times as fast as the plain step the last one is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beyonddrive.engine.text_tables import csv_text

TABLE = Path(__file__).with_name("steps.csv")
NAMES = {
    "ltf": "LTF",
    "ltf-beyonddrive": "LTF + BeyondDrive",
    "meanfuser": "MeanFuser",
    "diffusiondrive": "DiffusionDrive",
    "wote": "WoTE",
}
"""Rows by the planner of the benchmark."""
VARIANTS = {
    "plain": "plain",
    "float32": "float32",
    "bf16": "and bfloat16",
    "channels_last": "and channels_last",
    "fused_adamw": "and fused AdamW",
}
"""Columns by the variant; they add up from left to right."""


def table() -> str:
    """The table as csv."""
    measured: dict[str, dict[str, Any]] = {}
    for path in sorted(TABLE.parent.glob("*.json")):
        steps = json.loads(path.read_text())["steps"]
        for planner in {step["planner"] for step in steps}:
            measured[planner] = {step["variant"]: step for step in steps if step["planner"] == planner}
    lines = [
        {
            "row": row,
            **{column: f"{measured[planner][key]['ms'] / 1000.0:.2f}" for key, column in VARIANTS.items()},
            "times": f"{measured[planner]['fused_adamw']['ratio']:.1f}",
        }
        for planner, row in NAMES.items()
    ]
    return csv_text(lines)
