"""The planner of an agent's folder, for ``deploy/navsim_agent.py``: in its process, or as a worker.

As a worker, ``python -m`` this module, it reads arrays from standard input and writes plans to standard
output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from beyonddrive.apis import init_planner, load_config
from beyonddrive.deploy.navsim_agent import read_arrays, write_arrays

Run = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]


def load(folder: Path) -> Run:
    """The planner of a folder that ``beyonddrive export --navsim-agent`` made.

    Returns:
        What takes batched float arrays by name, and gives plans (B, 8, 3).
    """
    planner = init_planner(load_config(folder / "config.py"), folder / "weights.pth")

    def run(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        inputs = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with torch.inference_mode():
            outputs = planner(inputs, mode="tensor")
        plans: NDArray[np.float32] = outputs["trajectory"].float().cpu().numpy()
        return plans

    return run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until standard input ends."""
    (folder,) = sys.argv[1:] if argv is None else argv
    # Whatever the planner prints goes where messages go: standard output is for arrays.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        run = load(Path(folder))
    except Exception as error:
        write_arrays(answers, {}, f"cannot load {folder}: {type(error).__name__}: {error}")
        return 1
    write_arrays(answers, {})
    while (arrays := read_arrays(sys.stdin.buffer)) is not None:
        try:
            plans, problem = {"trajectory": run(arrays)}, ""
        except Exception as error:  # (one bad scene does not end the worker)
            plans, problem = {}, f"{type(error).__name__}: {error}"
        write_arrays(answers, plans, problem)
    return 0


if __name__ == "__main__":
    sys.exit(main())
