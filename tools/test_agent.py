"""Agents of NAVSIM's devkit over our scenes: ``beyonddrive test-agent package.module:Class --checkpoint F``.

Any object with the devkit's methods (``get_sensor_config``, ``initialize``, ``compute_trajectory``) plans for
the scenes of a split, from an ``AgentInput`` as the devkit makes it; its plans are written to ``--plans`` and
scored natively. The agent may also be a yaml file, as hydra reads it. If the devkit cannot be imported,
modules of its names stand in for what agents import of it. With ``--split-file`` both stages of NAVSIM v2 are
planned for.

A scene for which the agent fails or returns NaN is listed and the rest goes on; the exit code is then 1. Run
the same command again after a kill, it goes on where it was.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.structures.errors import describe_error
from beyonddrive.tools._command_line import (
    KeyValues,
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
    from beyonddrive.datasets.navsim.root import NavsimRoot, SceneRef
    from beyonddrive.datasets.navsim.scene import Scene
    from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
    from beyonddrive.evaluation.submissions.checking import Verdict


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("test-agent", "Run an agent of NAVSIM's devkit over our scenes and score it.")
    parser.add_argument("agent", metavar="AGENT", help="package.module:Class, or a yaml file of hydra's")
    parser.add_argument("--checkpoint", help="its weights, given as checkpoint_path")
    parser.add_argument(
        "--agent-options",
        nargs="+",
        action=KeyValues,
        default={},
        metavar="key=value",
        help="other arguments of its constructor",
    )
    parser.add_argument("--data-root", type=Path, required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", type=Path, help="maps, if they are not in DATA_ROOT/maps")
    parser.add_argument("--split", help="split of the logs; default: that of the split file, or test")
    parser.add_argument("--scene-filter", type=Path, metavar="YAML", help="which windows are scenes")
    parser.add_argument("--split-file", type=Path, help="two stages: NAVSIM's train_test_split/<name>.yaml")
    parser.add_argument("--synthetic-scenes", type=Path, metavar="DIR", help="pickles of follow-up scenes")
    parser.add_argument("--synthetic-sensors", type=Path, metavar="DIR", help="their camera images")
    parser.add_argument("--plans", type=Path, required=True, metavar="NPZ", help="plans to write")
    parser.add_argument("--scores", type=Path, metavar="CSV", help="write the scores of each scene")
    parser.add_argument("--plans-only", action="store_true", help="score nothing")
    parser.add_argument("--read-ahead", type=int, default=2, help="threads that read sensor files; 0: none")
    add_executor_options(parser)
    args = parser.parse_args(argv)
    if (args.split_file is None) != (args.synthetic_scenes is None):
        parser.error("--split-file and --synthetic-scenes go together: they are of two stages")
    if args.split_file is not None and args.scene_filter is not None:
        parser.error("--scene-filter: with --split-file that file says which scenes there are")
    if args.split_file is None:
        refuse_idle(parser, args, ("synthetic_sensors",), "--split-file and --synthetic-scenes")
    if args.plans_only:
        refuse_idle(parser, args, ("scores",), "scoring, which --plans-only leaves out")
    if args.read_ahead < 0:
        parser.error("--read-ahead: must not be negative")
    taken = {Path(name).resolve(): "read" for name in (args.agent, args.checkpoint) if name}
    refuse_taken(parser, "--plans", args.plans, taken)
    refuse_taken(parser, "--scores", args.scores, {**taken, args.plans.resolve(): "the file of plans"})
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Plan and score; the exit code is 1 if something is refused or a scene has no plan or score."""
    args = parse_args(argv)
    return run_command("test-agent", lambda: test(args))


def test(args: argparse.Namespace) -> int:
    """Plan, write the plans, and score them."""
    from beyonddrive.datasets.navsim.root import NavsimRoot
    from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit
    from beyonddrive.engine.runner.result_paths import check_results

    check_results({"--plans": args.plans, "--scores": args.scores})
    split = None if args.split_file is None else TwoStageSplit.read(args.split_file)
    logs = args.split or (split.data_split if split else "") or "test"
    root = NavsimRoot(args.data_root, args.maps_root)
    failures = plan(args, root, logs, split)
    tell_all("test-agent", [f"{token} has no plan: {reason}" for token, reason in failures.items()])
    if args.plans_only:
        return int(bool(failures))
    if split is not None and failures:
        tell("test-agent", "with a scene missing there is no score of two stages")
        return 1
    verdict = score(args, root, logs, split)
    for line in verdict.lines():
        print(line)
    if failures or verdict.failures:
        print(f"of {len(verdict.rows)} of {len(verdict.rows) + len(failures | verdict.failures)} scenes")
    tell_all("test-agent", [f"{token} has no score: {why}" for token, why in verdict.failures.items()])
    if args.scores is not None:
        from beyonddrive.evaluation.submissions.checking import write_rows

        verdict.failures = {**failures, **verdict.failures}  # (a table of the rest would not tell of them)
        write_rows(args.scores, [verdict])
    return int(bool(failures or verdict.failures))


def plan(
    args: argparse.Namespace, root: NavsimRoot, logs: str, split: TwoStageSplit | None
) -> dict[str, str]:
    """Plan for all scenes, write the file of plans, and return which scenes have none, and why."""
    from tqdm import tqdm

    from beyonddrive.evaluation.agents.devkit import find_devkit
    from beyonddrive.evaluation.agents.loading import build_agent, named_files
    from beyonddrive.evaluation.agents.running import describe_agent, run_agent
    from beyonddrive.evaluation.scene_scoring import SceneScores
    from beyonddrive.evaluation.score_files import describe_inputs, open_parts

    scenes = _Scenes(args, root, logs, split)
    devkit = find_devkit()
    agent = build_agent(args.agent, devkit, args.checkpoint, args.agent_options)
    follow_ups = [ref.log_path for of, ref in scenes.refs if of is not root]
    config = {
        **describe_inputs(root, logs, Path(inspect.getfile(type(agent))), follow_ups),
        **describe_agent(agent, args.agent, sorted((k, str(v)) for k, v in args.agent_options.items())),
        "checkpoint": _state(args.checkpoint),
        "files": [_state(path) for path in named_files(args.agent, args.agent_options)],
        "follow_ups": [str(args.synthetic_scenes), str(args.synthetic_sensors)],
    }
    failures = dict(scenes.lost)
    with open_parts(args.plans, config) as parts:
        if parts.done:
            tell("test-agent", f"{len(parts.done)} scenes were planned for before")
        with tqdm(total=len(scenes.refs), desc="plans", unit="scene", dynamic_ncols=True) as bar:
            bar.update(len(parts.done))
            for result in run_agent(agent, scenes.read(parts.done, failures), devkit, args.read_ahead):
                bar.update()
                if result.plan is None:
                    failures[result.token] = result.reason
                else:
                    parts.add(SceneScores(result.token, result.log_name, result.plan[None]))  # type: ignore[arg-type]
        count, _ = parts.finish([ref.token for _, ref in scenes.refs], args.plans)
    kind = "the devkit's classes" if devkit.is_real else "look-alikes of the devkit's classes"
    print(f"{args.plans}: plans of {count} scenes by {type(agent).__name__}, over {kind}")
    return failures


class _Scenes:
    """The scenes to plan for, and those that should be there and are not."""

    def __init__(
        self, args: argparse.Namespace, root: NavsimRoot, logs: str, split: TwoStageSplit | None
    ) -> None:
        from beyonddrive.datasets.navsim.account import SplitAccount, places_of
        from beyonddrive.datasets.navsim.follow_ups import SPLIT, FollowUpRoot
        from beyonddrive.datasets.navsim.root import NavsimRootError, doubled_scene
        from beyonddrive.datasets.navsim.scene_filter import SceneFilter

        scene_filter = split.scene_filter if split else SceneFilter.from_config(args.scene_filter)
        self.refs: list[tuple[NavsimRoot, SceneRef]] = []
        log_of: dict[str, Path] = {}
        # (a plan needs no future)
        for ref in root.refs(logs, scene_filter.without_future() if args.plans_only else scene_filter):
            if (other := log_of.setdefault(ref.token, ref.log_path)) != ref.log_path:
                raise NavsimRootError(doubled_scene(ref.token, other, ref.log_path))
            self.refs.append((root, ref))
        found = [(ref.token, ref.log_path.stem) for _, ref in self.refs]
        self.lost = dict(SplitAccount.of(places_of(scene_filter, found, {}, root.lost_logs)).lost)
        if split is not None:
            second = FollowUpRoot(args.synthetic_scenes, args.synthetic_sensors, root.maps_root)
            wanted = SceneFilter(num_future_frames=0, tokens=split.second)
            self.refs += [(second, ref) for ref in second.refs(SPLIT, wanted)]
            self.lost |= second.lost_scenes
        self.logs = logs

    def read(self, done: frozenset[str], failures: dict[str, str]) -> Iterator[tuple[Scene, NavsimRoot]]:
        """Scenes that are not done, each with the root of its sensor files."""
        for root, ref in self.refs:
            if ref.token in done:
                continue
            try:
                yield root.load(ref, self.logs), root
            except (OSError, ValueError) as error:
                failures[ref.token] = describe_error(error, ref.token)


def _state(path: str | None) -> list[Any] | None:
    """What tells a checkpoint from another one of the same name."""
    if path is None:
        return None
    state = Path(path).stat()
    return [str(Path(path).resolve()), state.st_size, state.st_mtime_ns]


def score(args: argparse.Namespace, root: NavsimRoot, logs: str, split: TwoStageSplit | None) -> Verdict:
    """Scores of the plans: EPDMS of two stages, or PDMS."""
    from beyonddrive.evaluation.bases.places import TwoStageData
    from beyonddrive.evaluation.plan_files import PlanFile
    from beyonddrive.evaluation.submissions.checking import score_one_stage, score_two_stages

    file = PlanFile(args.plans)
    plans = {token: file.one(token) for token in file}
    if split is None:
        return score_one_stage(root, logs, plans, executor_of(args), partial=True)
    data = TwoStageData(split, root.root, args.synthetic_scenes, root.maps_root, logs)
    return score_two_stages(data, [plans], executor_of(args))


if __name__ == "__main__":
    sys.exit(main())
