"""Submissions to NAVSIM's leaderboards: ``beyonddrive submit CONFIG CHECKPOINT --board B --team T ...``.

The planner plans for every scene of the board, and the official file is written, without the devkit. Several
checkpoints become several seeds in one file. With ``--plans`` files of plans are taken instead of a planner,
with ``--merge`` files of single seeds. If a plan is missing or is not finite nothing is written: with one
scene missing a board gives no score at all.

Boards of two stages need ``--split-file`` and the folders of the follow-up scenes. ``--check FILE`` reads an
official file, in which nothing is run, says what is in it, compares its scenes with those of the split file,
and scores it as the board would if ``--data-root`` is given.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    refuse_idle,
    refuse_taken,
    run_command,
    tell,
    tell_all,
)

if TYPE_CHECKING:
    from beyonddrive.evaluation.submissions.boards import Board, Wanted
    from beyonddrive.evaluation.submissions.checking import Verdict
    from beyonddrive.evaluation.submissions.official_file import Plans, Submission

BOARD_NAMES = ("navtest", "warmup", "navhard", "private")
_TEAM = ("team", "authors", "email", "institution", "country")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("submit", "Write or check the file that a leaderboard of NAVSIM takes.")
    add_config(parser, "config of the planner", optional=True)
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="its weights; several: seeds")
    parser.add_argument("--board", choices=BOARD_NAMES, help="leaderboard")
    parser.add_argument("--plans", nargs="+", type=Path, metavar="NPZ", help="plans by token, one per seed")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="PKL", help="submissions of single seeds")
    parser.add_argument("--check", type=Path, metavar="PKL", help="read and score this submission")
    parser.add_argument("--out", type=Path, metavar="submission.pkl", help="file to write")
    for name in _TEAM:
        parser.add_argument(f"--{name}", metavar="TEXT", help=f"{name} that the file states")
    data = parser.add_argument_group("data")
    data.add_argument(
        "--split-file",
        type=Path,
        help="scenes of the board: NAVSIM's scene_filter/navtest.yaml, or train_test_split/<two stages>.yaml",
    )
    data.add_argument("--synthetic-scenes", type=Path, metavar="DIR", help="pickles of follow-up scenes")
    data.add_argument("--synthetic-sensors", type=Path, metavar="DIR", help="their camera images")
    data.add_argument("--data-root", type=Path, help="--check: data root, to score with")
    data.add_argument("--maps-root", type=Path, help="--check: maps, if they are not in DATA_ROOT/maps")
    data.add_argument("--split", help="split of the logs; default: that of the split file, or test")
    data.add_argument("--cache-dir", type=Path, help="--check: metric caches of one stage")
    parser.add_argument("--scores", type=Path, metavar="CSV", help="--check: write the scores of each scene")
    add_executor_options(parser)
    add_config_options(parser)
    args = parser.parse_args(argv)
    modes = [name for name in ("config", "plans", "merge", "check") if getattr(args, name)]
    if len(modes) != 1:
        parser.error("give one of CONFIG CHECKPOINT, --plans, --merge and --check")
    args.mode = modes[0]
    for names, owner in _idle_options(args.mode, args.board):
        refuse_idle(parser, args, names, owner)
    if args.mode != "check":
        _check_writing(parser, args)
    elif args.out is not None:
        parser.error("--out: nothing is written by --check but --scores")
    elif args.data_root is None:
        scoring = ("scores", "maps_root", "cache_dir", "split", "num_workers", "ray")
        refuse_idle(parser, args, scoring, "--data-root, without which nothing is scored")
    elif args.scores is not None:
        read = {path.resolve() for path in (args.check, args.split_file) if path is not None}
        if args.scores.is_dir() or args.scores.resolve() in read:
            parser.error(f"--scores: {args.scores} is a folder, or read by this command; give another name")
    return args


def _idle_options(mode: str, board: str | None) -> Iterator[tuple[tuple[str, ...], str]]:
    """Options that a way of use does not read, and who does."""
    if mode != "config":
        yield ("cfg_options",), "CONFIG"
    if mode != "check":
        yield ("scores", "data_root", "maps_root", "cache_dir", "num_workers", "ray"), "--check"
    if mode in ("merge", "check"):
        yield _TEAM, "CONFIG or --plans (a file states its own, merged ones that of the first)"
    if mode in ("merge", "plans"):
        yield ("split", "synthetic_scenes"), "CONFIG or --check"
    if mode != "config":
        yield ("synthetic_sensors",), "CONFIG, which alone reads images"
    if mode == "config" and board == "navtest":
        yield ("split", "synthetic_scenes", "synthetic_sensors"), "a board of two stages"


def _check_writing(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.out is None:
        parser.error("--out: name the file to write, submission.pkl")
    read = [*(args.plans or ()), *(args.merge or ()), *map(Path, args.checkpoints)]
    refuse_taken(parser, "--out", args.out, {path.resolve(): "read by this command" for path in read})
    if args.mode == "merge":
        if args.split_file is not None and args.board is None:
            parser.error("--split-file: compares the scenes with those of a board; give --board, too")
        return
    if args.board is None:
        parser.error(f"--board: name the leaderboard ({', '.join(BOARD_NAMES)})")
    if lacking := [f"--{name}" for name in _TEAM if not getattr(args, name)]:
        parser.error(f"{', '.join(lacking)}: the boards want all of them")
    two_stages = args.board != "navtest"
    if args.split_file is None and (two_stages or args.mode == "plans"):
        parser.error("--split-file: needed to know which scenes the board wants")
    if args.mode == "config" and two_stages and args.synthetic_scenes is None:
        parser.error(f"--synthetic-scenes: board {args.board} wants plans of follow-up scenes")


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; the exit code is 1 if something is refused, missing or without a score."""
    args = parse_args(argv)
    if args.mode == "check":
        return run_command("submit", lambda: check(args))
    return run_command("submit", lambda: write(args))


def wanted_scenes(board: Board | None, split_file: Path | None, form: str) -> Wanted | None:
    """Which scenes the board wants; None if no file says."""
    from beyonddrive.datasets.navsim.scene_filter import SceneFilter
    from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
    from beyonddrive.evaluation.submissions.boards import SubmissionError, Wanted

    if split_file is None:
        return None
    if form == "v1":
        tokens = SceneFilter.from_yaml(split_file).tokens
        if tokens is None:
            raise SubmissionError(f"{split_file}: lists no tokens; give NAVSIM's scene_filter/navtest.yaml")
        wanted = Wanted(str(split_file), tokens)
    else:
        split = TwoStageSplit.read(split_file, with_pairs=board is not None and board.has_pairs)
        wanted = Wanted(str(split_file), split.first, split.second)
    if board is not None and (warning := wanted.counts_differ(board)):
        tell("submit", f"warning: {warning}")
    return wanted


# ------------------------------------------------------------------ write
def write(args: argparse.Namespace) -> int:
    """Collect the plans of all seeds and write the file."""
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.submissions.boards import BOARDS
    from beyonddrive.evaluation.submissions.official_file import (
        Submission,
        Team,
        merged,
        read_submission,
        split_stages,
        write_submission,
    )

    check_results({"--out": args.out})  # (now, not after hours of planning)
    if args.mode == "merge":
        submission = merged([read_submission(path) for path in args.merge], [str(p) for p in args.merge])
        if args.board is not None:
            board = BOARDS[args.board]
            check_board(submission, board, wanted_scenes(board, args.split_file, board.form), args.merge[0])
    else:
        board = BOARDS[args.board]
        wanted = wanted_scenes(board, args.split_file, board.form)
        if wanted is None:
            tell_uncompared(board)
        seeds: list[tuple[Plans, ...]] = []
        if args.mode == "plans":
            assert wanted is not None
            for path in args.plans:
                plans = PlanFile(path)
                seeds.append(split_stages(plans, wanted, board.form, str(path)))
                if others := len(plans) - sum(map(len, seeds[-1])):
                    tell("submit", f"{path}: {others} scenes that the board does not want are left out")
        else:
            for checkpoint in args.checkpoints or [None]:
                with planned(args, checkpoint) as (plans, here):
                    source = str(checkpoint or args.config)
                    if wanted is not None and not board.has_pairs:
                        wanted = wanted.with_partners(plans)
                    if wanted is None and not seeds and (warning := here.counts_differ(board)):
                        tell("submit", f"warning: {warning}")
                    seeds.append(split_stages(plans, wanted or here, board.form, source))
        team = Team(args.team, args.authors, args.email, args.institution, args.country)
        submission = Submission(team, board.form, tuple(seeds))
    write_submission(args.out, submission)
    print(f"{args.out}: {describe(submission)}")
    if args.out.name != "submission.pkl":
        tell("submit", "note: the boards want the file to be called submission.pkl")
    if submission.form == "v2" and len(submission.seeds) > 1:
        tell("submit", "note: the boards of two stages read the first seed only")
    return 0


def tell_uncompared(board: Board) -> None:
    """Say that no list of the scenes of a board was given."""
    folder = "scene_filter" if board.form == "v1" else "train_test_split"
    tell(
        "submit",
        f"warning: nobody compares the scenes with those of the board, and with a single one missing it "
        f"gives no score: give --split-file, NAVSIM's {folder}/{board.split}.yaml",
    )


def check_board(submission: Submission, board: Board, wanted: Wanted | None, source: Path) -> None:
    """Compare a submission with a board; where no list has all of its scenes, their numbers, too."""
    from beyonddrive.evaluation.submissions.boards import Wanted

    submission.check(board, wanted, str(source))
    if wanted is None:
        tell_uncompared(board)
    elif board.has_pairs:  # (otherwise partners of the scenes that are listed may be in no list)
        return
    first, *more = submission.seeds[0]
    own = Wanted(str(source), list(first), [token for stage in more for token in stage])
    if warning := own.counts_differ(board):
        tell("submit", f"warning: {warning}")


def describe(submission: Submission) -> str:
    """One line about a submission."""
    counts = " + ".join(str(len(stage)) for stage in submission.seeds[0])
    team = submission.team
    return f"{submission.form}, {counts} plans, {len(submission.seeds)} seed(s), of {team.team_name!r}"


@contextmanager
def planned(args: argparse.Namespace, checkpoint: str | None) -> Iterator[tuple[Any, Wanted]]:
    """Plans of a planner, and the scenes that its split has.

    Raises:
        SubmissionError: If a scene could not be planned for.
    """
    from beyonddrive.checkpoints.loading import load_weights
    from beyonddrive.engine import runner
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.plan_writer import plan_only
    from beyonddrive.evaluation.submissions.boards import SubmissionError, Wanted, shown

    config = runner.load_config(args.config, args.cfg_options)
    if args.board != "navtest":
        plan_two_stages(config, args)
    with tempfile.TemporaryDirectory(prefix="beyonddrive-submit-") as folder:
        path = Path(folder) / "plans.npz"
        inputs = [checkpoint] if checkpoint else []
        plan_only(config, path, inputs)
        testing = runner.build_test_runner(config, inputs=inputs)
        load_weights(testing.model, checkpoint)
        failures = runner.evaluate(testing).failures
        if failures:
            tell_all("submit", [f"{name} has no plan: {reason}" for name, reason in failures.items()])
            raise SubmissionError(
                f"{len(failures)} scenes have no plan ({shown(failures)}), and with one missing there is no "
                f"score: nothing was written; mend the data, or name the split that you have"
            )
        plans = PlanFile(path)
        yield plans, Wanted(f"the test split of {args.config}", list(plans))


def plan_two_stages(config: Any, args: argparse.Namespace) -> None:
    """Make the test of a config plan for the scenes of both stages, in place."""
    from mmengine.config import ConfigDict

    from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
    from beyonddrive.engine.configs import ConfigError
    from beyonddrive.engine.wrapped_datasets import unwrapped_settings
    from beyonddrive.evaluation.submissions.boards import BOARDS

    loader = config.get("test_dataloader")
    if not loader:
        raise ConfigError("test_dataloader: the config has none, so there are no scenes to plan for")
    settings = unwrapped_settings(loader["dataset"])[0]
    has_pairs = BOARDS[args.board].has_pairs
    kept = ("data_root", "maps_root", "feature_pipeline", "pipeline")
    loader["dataset"] = ConfigDict(
        type="TwoStageDataset" if has_pairs else "PrivateTestDataset",
        split=args.split
        or TwoStageSplit.read(args.split_file, has_pairs).data_split
        or settings.get("split"),
        two_stage=str(args.split_file),
        synthetic_scenes=str(args.synthetic_scenes),
        synthetic_sensors=None if args.synthetic_sensors is None else str(args.synthetic_sensors),
        **{key: settings[key] for key in kept if key in settings},
    )


# ------------------------------------------------------------------ check
def check(args: argparse.Namespace) -> int:
    """Read a submission, say what is in it, and score it if there are data."""
    from beyonddrive.engine.runner.result_paths import check_results
    from beyonddrive.evaluation.submissions.boards import BOARDS, SubmissionError
    from beyonddrive.evaluation.submissions.checking import write_rows
    from beyonddrive.evaluation.submissions.official_file import read_submission

    submission = read_submission(args.check)
    print(f"{args.check}: {describe(submission)}")
    board = BOARDS[args.board] if args.board else None
    wanted = wanted_scenes(board, args.split_file, board.form if board else submission.form)
    if board is not None:
        check_board(submission, board, wanted, args.check)
    elif wanted is not None:
        for stages in submission.seeds:
            wanted.check(stages, str(args.check))
    if board is not None and not board.has_pairs and args.data_root is not None:
        raise SubmissionError(
            f"--data-root: board {board.name} cannot be scored here: neither its table of pairs nor "
            f"annotations and maps of its scenes are public; leave --data-root out to check the file alone"
        )
    if args.data_root is None:
        tell("submit", "not scored: give --data-root to score it")
        return 0
    check_results({"--scores": args.scores})
    verdicts = []
    for number, stages in enumerate(submission.seeds):
        if submission.form == "v1" and wanted is not None:
            stages = (_of_the_board(stages[0], wanted),)
        verdict = score_seed(args, submission.form, stages)
        if len(submission.seeds) > 1:
            print(f"seed {number}")
        for line in verdict.lines():
            print(line)
        tell_all("submit", [f"{token} has no score: {why}" for token, why in verdict.failures.items()])
        if verdict.failures:
            tell("submit", f"{len(verdict.failures)} scenes have no score, so the board would give none")
        verdicts.append(verdict)
    if args.scores is not None:
        write_rows(args.scores, verdicts)
    return int(any(verdict.failures for verdict in verdicts))


def _of_the_board(plans: Plans, wanted: Wanted) -> Plans:
    """Plans of one stage that a board looks at: it walks over its own scenes and passes over others."""
    of_board = set(wanted.first)
    kept = {token: plan for token, plan in plans.items() if token in of_board}
    if others := len(plans) - len(kept):
        tell("submit", f"{others} plans are of scenes that {wanted.source} does not list: they do not count")
    return kept


def score_seed(args: argparse.Namespace, form: str, stages: Sequence[Plans]) -> Verdict:
    """Score the plans of one seed as the board would."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
    from beyonddrive.evaluation.bases.places import TwoStageData
    from beyonddrive.evaluation.submissions.boards import SubmissionError
    from beyonddrive.evaluation.submissions.checking import score_one_stage, score_two_stages

    executor = executor_of(args)
    if form == "v1":
        root = NavsimRoot(args.data_root, args.maps_root)
        return score_one_stage(root, args.split or "test", stages[0], executor, args.cache_dir)
    if args.cache_dir is not None:
        raise SubmissionError(
            f"--cache-dir {args.cache_dir}: holds no traffic that reacts, which two stages have; leave it out"
        )
    if args.split_file is None or args.synthetic_scenes is None:
        raise SubmissionError(
            f"{args.check}: two stages are scored with --split-file, which has the table of pairs, and "
            f"--synthetic-scenes"
        )
    table = TwoStageSplit.read(args.split_file)
    if not (args.split or table.data_split):
        raise SubmissionError(
            f"{args.split_file}: has no data_split, the split whose logs the original scenes are in; add it, "
            f"or give --split"
        )
    data = TwoStageData(
        table,
        args.data_root,
        args.synthetic_scenes,
        args.maps_root,
        args.split or "",
    )
    return score_two_stages(data, stages, executor)


if __name__ == "__main__":
    sys.exit(main())
