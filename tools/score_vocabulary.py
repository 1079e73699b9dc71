"""Score a vocabulary: ``beyonddrive score-vocabulary CONFIG_OR_ROOT SPLIT VOCABULARY --out STORE``.

Gives every plan of VOCABULARY (``beyonddrive build-vocabulary``) its PDM sub-scores in every scene of a
split; CONFIG_OR_ROOT and SPLIT are as there. ``LoadVocabularyScores`` reads the store in training, for WoTE
and for the vocabulary planner. A scene takes 6 bytes per plan on disk.

Run it again after a kill, or when logs have changed: it does what is missing. The exit code is 1 if a scene
has no scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from beyonddrive.tools._command_line import (
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    refuse_file,
    refuse_idle,
    run_command,
    tell,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("score-vocabulary", "Score the plans of a vocabulary in every scene of a split.")
    parser.add_argument("source", metavar="CONFIG_OR_ROOT", type=Path, help="config, or data root")
    parser.add_argument("split", help="train, val or test of a config; a split of a data root")
    parser.add_argument("vocabulary", type=Path, help="file made by beyonddrive build-vocabulary")
    parser.add_argument("--out", type=Path, required=True, metavar="STORE", help="folder of the store")
    parser.add_argument("--scene-filter", type=Path, help="with a data root: yaml file of its scenes")
    parser.add_argument("--maps-root", type=Path, help="with a data root: maps, if they are not in ROOT/maps")
    parser.add_argument(
        "--cache-dir", type=Path, help="read metric caches from here (beyonddrive cache-metrics)"
    )
    add_executor_options(parser)
    add_config_options(parser)
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    if args.source.is_dir():
        refuse_idle(parser, args, ("cfg_options",), "a config")
    else:
        refuse_idle(parser, args, ("maps_root",), "a data root; a config has its own")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Score the vocabulary; the exit code is 1 if something is refused or a scene has no scores."""
    args = parse_args(argv)
    return run_command("score-vocabulary", lambda: score(args))


def score(args: argparse.Namespace) -> int:
    """Score the vocabulary and tell which scenes have no scores."""
    from beyonddrive.generators.vocabulary_scoring import score_vocabulary
    from beyonddrive.structures.vocabulary import read_vocabulary
    from beyonddrive.tools.build_vocabulary import source_of

    vocabulary = read_vocabulary(args.vocabulary)
    report = score_vocabulary(source_of(args), vocabulary, args.out, executor_of(args), args.cache_dir)
    for problem in report.problems:
        tell("score-vocabulary", problem)
    for token, reason in report.failures.items():
        tell("score-vocabulary", f"scene {token}: {reason}")
    print(
        f"{args.out}: scores of {len(vocabulary.plans)} plans in {report.num_scenes} scenes, "
        f"{report.num_new_logs} logs done now"
    )
    return int(bool(report.failures or report.problems))


if __name__ == "__main__":
    sys.exit(main())
