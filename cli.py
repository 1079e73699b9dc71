"""One command for the whole suite: ``beyonddrive VERB ...`` runs the file of that verb in ``tools/``.

``python tools/<file>.py ...`` is the same code. Nothing but this table is imported until the verb is known,
and the tools import what is heavy after they have read their command line, so ``--help`` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from beyonddrive.version import __version__


class Verb(NamedTuple):
    """A command: the module of ``tools/`` that runs it, and what it does."""

    module: str
    help: str


VERBS = {
    "demo": Verb("demo", "the whole method on a generated world, from data to report"),
    "create-data": Verb("create_data", "generate a world in NAVSIM's layout, or write a split for mmdet3d"),
    "split-scene-filter": Verb("split_scene_filter", "cut a scene filter into training and validation"),
    "cache-features": Verb("cache_features", "make the feature caches that a config reads"),
    "cache-metrics": Verb("cache_metrics", "make metric caches, which speed up scoring"),
    "train": Verb("train", "train a planner"),
    "test": Verb("test", "evaluate a planner on the test split"),
    "test-agent": Verb("test_agent", "run an agent of NAVSIM's devkit over our scenes and score it"),
    "reproduce": Verb("reproduce", "evaluate a published checkpoint and compare with its figures"),
    "submit": Verb("submit", "write or check the file that a leaderboard of NAVSIM takes"),
    "sweep": Verb("sweep", "train recipes with several seeds and compare them, with intervals"),
    "mine": Verb("mine_negatives", "mine hard negatives with a trained generator"),
    "build-vocabulary": Verb("build_vocabulary", "make a vocabulary of plans by k-means"),
    "score-vocabulary": Verb("score_vocabulary", "score the plans of a vocabulary in every scene"),
    "score": Verb("score", "score plans from anywhere by the PDM score or EPDMS"),
    "calibrate": Verb("calibrate", "find the turn and stretch of a planner's plans that score best"),
    "drive": Verb("drive", "put a planner behind a simulator: HUGSIM's pipes and HTTP, AlpaSim"),
    "closed-loop": Verb("closed_loop", "drive planners in towns with reactive traffic, and score them"),
    "hugsim-score": Verb("hugsim_score", "score what HUGSIM's closed loop left behind"),
    "convert": Verb("convert_checkpoint", "convert checkpoints of original releases, both ways"),
    "make-zoo": Verb("make_zoo", "make a folder of released checkpoints from trainings"),
    "check-golden": Verb("check_golden", "compare planners with golden outputs of their originals"),
    "export": Verb("export", "export a planner to ONNX or a torch.export program"),
    "visualize": Verb("visualize", "draw scenes with the plans of planners and their scores"),
    "report": Verb("report", "compare planners in a table and an HTML report"),
    "list": Verb("list", "name the planners, heads, losses, configs, releases, metrics and so on"),
    "print-config": Verb("print_config", "print what a config is in the end"),
    "doctor": Verb("doctor", "is this machine fit: versions, numbers, data, caches, GPUs, disk"),
    "validate-data": Verb("validate_data", "find what is wrong with logs and sensor files"),
    "browse": Verb("browse", "draw samples of a data set as a planner gets them"),
    "analyze-logs": Verb("analyze_logs", "curves of trainings, and their best values"),
    "flops": Verb("flops", "parameters, operations and activation memory of a planner"),
}
"""Every verb, in the order in which a project meets them."""

LONG_NAMES = {
    verb.module.replace("_", "-"): name
    for name, verb in VERBS.items()
    if verb.module.replace("_", "-") != name
}
"""Verbs after their files, such as ``mine-negatives``, which are accepted too."""


def overview() -> str:
    """What the command prints about itself."""
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        (
            "usage: beyonddrive VERB ...",
            "",
            "End-to-end driving planners that learn from hard negatives, and a native PDM score.",
            "",
            *lines,
            "",
            "beyonddrive VERB --help tells more; beyonddrive --version names the version.",
        )
    )


def find_verb(name: str) -> str | None:
    """The verb that a word on the command line means; underscores and the names of files are accepted.

    >>> find_verb("create_data"), find_verb("mine-negatives"), find_verb("fly")
    ('create-data', 'mine', None)
    """
    name = name.replace("_", "-")
    name = LONG_NAMES.get(name, name)
    return name if name in VERBS else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code; 2 if there is no such verb."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args:
        print(overview(), file=sys.stderr)
        return 2
    word, *rest = args
    if word in ("-h", "--help", "help"):
        print(overview())
        return 0
    if word in ("-V", "--version"):
        print(f"beyonddrive {__version__}")
        return 0
    name = find_verb(word)
    if name is None:
        close = difflib.get_close_matches(word.replace("_", "-"), [*VERBS, *LONG_NAMES], 1)
        hint = f"did you mean {close[0]!r}?" if close else "beyonddrive --help lists the verbs"
        print(f"beyonddrive: no verb {word!r}; {hint}", file=sys.stderr)
        return 2
    tool = importlib.import_module(f"beyonddrive.tools.{VERBS[name].module}")
    return int(tool.main(rest))


if __name__ == "__main__":
    sys.exit(main())
