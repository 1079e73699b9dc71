"""Score what official HUGSIM runs left behind.

``beyonddrive hugsim-score RECORD.pkl --ground GROUND.ply --scene SCENE.ply`` scores one run, and
``beyonddrive hugsim-score RESULTS --scenarios SCENARIOS`` many at once: RESULTS holds one folder
``<scene>_<mode>`` per run with ``data.pkl``, ``ground.ply`` and ``scene.ply``. Scenarios that wrote nothing
count as 0 and are listed. Folders that belong to no scenario count nowhere, and are listed, too; without
``--scenarios`` these are the ones whose names tell no difficulty. No GPU and no simulator are needed; the
numbers are those of the official scorer. Results with different switches cannot be compared, so those that
acted are named; how a run was driven (controller, anchor of plans, resets), a record does not tell. The exit
code is 1 if a run has no score.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.tools._command_line import command_parser, run_command, tell
from beyonddrive.tools._switches import add_switches, switched

if TYPE_CHECKING:
    from beyonddrive.evaluation.closed_loop.hugsim.hd_score import RunScore
    from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimSettings

SCORED_WITH = ("comfort_lon_max", "scorer_box")
"""Switches that act in the scorer; the others act while a run is driven."""
_SAME_STEP = 1e-6
"""Time steps that differ by less are the same [s]."""
_SHOWN = 20


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("hugsim-score", "Score records of HUGSIM's closed loop.")
    parser.add_argument("record", type=Path, help="data.pkl of a run, or a folder of runs")
    parser.add_argument("--ground", type=Path, help="ground.ply; default: beside the record")
    parser.add_argument("--scene", type=Path, help="scene.ply; default: beside the record")
    parser.add_argument("--scenarios", type=Path, help="with a folder of runs: the scenario files")
    add_switches(parser, " or ".join(SCORED_WITH))
    for name, what in zip(SCORED_WITH, ("largest acceleration [m/s2]", "box above or below"), strict=True):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest="switches",
            action="append",
            type=f"{name}={{}}".format,
            metavar="VALUE",
            help=f"--switch {name}=VALUE: {what}",
        )
    parser.add_argument("--explain", action="store_true", help="print what every frame lost, and why")
    parser.add_argument("--out", type=Path, metavar="eval.json", help="write figures and details")
    args = parser.parse_args(argv)
    if args.record.is_dir() and (args.ground or args.scene):
        parser.error("--ground and --scene go with one record; a folder of runs has them in its folders")
    if args.scenarios is not None and not args.record.is_dir():
        parser.error(f"--scenarios: goes with a folder of runs, and {args.record} is none")
    return args


def settings_of(args: argparse.Namespace) -> HugsimSettings:
    """The preset with the switches of the command line.

    Raises:
        HugsimError: If there is no such switch, it cannot be that, or acts only while a run is driven.
    """
    from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

    settings = switched(args)
    for name in (text.partition("=")[0].strip() for text in args.switches):
        if name not in SCORED_WITH:
            raise HugsimError(
                f"{name}: acts while a run is driven, not in the scorer; switches of the scorer are "
                f"{', '.join(SCORED_WITH)}"
            )
    return settings


def score_record(
    record: Path, settings: HugsimSettings, ground: Path | None = None, scene: Path | None = None
) -> RunScore:
    """Score one run; its points are beside the record unless they are named."""
    from beyonddrive.evaluation.closed_loop.hugsim import run_files
    from beyonddrive.evaluation.closed_loop.hugsim.hd_score import score_run

    frames = run_files.read_record(record)
    road = run_files.read_points(ground or record.parent / run_files.GROUND)
    solid = run_files.read_points(scene or record.parent / run_files.SCENE)
    return score_run(frames, road, solid, settings)


def provenance(settings: HugsimSettings, preset: str, timesteps: set[float]) -> dict[str, Any]:
    """Which switches acted here, which the records tell, and which nobody knows who has records only."""
    switches = asdict(settings)
    return {
        "preset": settings.named(preset, SCORED_WITH),
        "settings": {name: switches[name] for name in SCORED_WITH},
        "from_records": {"plan_timestep": sorted(timesteps)},
        "not_known": [name for name in switches if name not in (*SCORED_WITH, "plan_timestep")],
    }


def describe(settings: HugsimSettings, preset: str, timesteps: set[float]) -> str:
    """The same in one line.

    >>> from beyonddrive.evaluation.closed_loop.hugsim.settings import PRESETS
    >>> print(describe(PRESETS["main"], "main", {0.5}).partition(";")[0])
    scored with (preset main): comfort_lon_max=2.4, scorer_box=up
    >>> print(describe(PRESETS["main"].changed(scorer_box="down"), "main", {0.5}).partition(":")[0])
    scored with (preset main with scorer_box=down)
    """
    found = provenance(settings, preset, timesteps)
    with_what = ", ".join(f"{name}={value}" for name, value in found["settings"].items())
    steps = ", ".join(f"{step:g}" for step in found["from_records"]["plan_timestep"]) or "none"
    return (
        f"scored with (preset {found['preset']}): {with_what}; read from the records: plan_timestep={steps}; "
        f"not known from a record: {', '.join(found['not_known'])}"
    )


def _warn_of_timesteps(settings: HugsimSettings, preset: str, timesteps: set[float]) -> None:
    other = sorted(step for step in timesteps if abs(step - settings.plan_timestep) > _SAME_STEP)
    if other:
        tell(
            "hugsim-score",
            f"records have a plan_timestep of {', '.join(f'{step:g}' for step in other)} s, and preset "
            f"{preset} has {settings.plan_timestep:g} s: it did not make them; scored with their own",
        )


def score_one(args: argparse.Namespace) -> int:
    """Score one record and print it."""
    settings = settings_of(args)
    score = score_record(args.record, settings, args.ground, args.scene)
    timesteps = set(score.timesteps)
    print(describe(settings, args.preset, timesteps))
    _warn_of_timesteps(settings, args.preset, timesteps)
    if args.explain:
        _explain(score)
    print("  ".join(f"{name} {value:.4f}" for name, value in score.means.items()))
    if score.unscored:
        tell("hugsim-score", f"{args.record}: no score: {score.unscored}")
    _write(args.out, {**score.to_dict(), **provenance(settings, args.preset, timesteps)})
    return int(bool(score.unscored))


def score_many(args: argparse.Namespace) -> int:
    """Score a folder of runs and print means in every weighting."""
    from beyonddrive.evaluation.closed_loop.hugsim import run_files
    from beyonddrive.evaluation.closed_loop.hugsim.benchmark import (
        BenchmarkScore,
        listed_by_name,
        read_scenarios,
    )
    from beyonddrive.evaluation.closed_loop.hugsim.settings import HugsimError

    settings = settings_of(args)
    folders = sorted(path.name for path in args.record.iterdir() if path.is_dir())
    if args.scenarios is not None:
        listed = read_scenarios(args.scenarios)
    else:
        listed = [item for item in map(listed_by_name, folders) if item is not None]
    if not listed:
        raise HugsimError(f"{args.record}: holds no folders of runs, <scene>_<difficulty>_<number>")
    known = {item.name for item in listed}
    left_out = [name for name in folders if name not in known]
    runs: dict[str, RunScore] = {}
    absent: dict[str, str] = {}
    for scenario in listed:
        record = args.record / scenario.name / run_files.RECORD
        try:
            score = score_record(record, settings)
        except ImportError:
            raise
        except HugsimError as error:
            absent[scenario.name] = str(error) if record.exists() else "wrote no record"
            continue
        # Foreign records may fail in any way; one must not end the scoring of the others.
        except Exception as error:
            absent[scenario.name] = f"{record}: {type(error).__name__}: {error}"
            continue
        runs[scenario.name] = score
        if score.unscored:
            absent[scenario.name] = score.unscored
    result = BenchmarkScore(listed, runs, absent, left_out)
    found: dict[str, Any] = result.to_dict()
    timesteps = {step for score in runs.values() for step in score.timesteps}
    print(describe(settings, args.preset, timesteps))
    _warn_of_timesteps(settings, args.preset, timesteps)
    if args.explain:
        for name, score in runs.items():
            print(f"{name}  hdscore {score.means['hdscore']:.4f}  rc {score.rc:.4f}")
            _explain(score)
    print(
        f"{len(listed)} scenarios, list {result.list_hash} ({result.list_of}), {len(absent)} without a score "
        "count as 0"
    )
    for weighting in ("mean_per_episode", "mean_of_difficulties"):
        print(f"{weighting:<24}" + _line(found[weighting]))
    for kind, heading in (("by_difficulty", "by difficulty"), ("by_data_set", "by data set")):
        if found[kind]:
            print(heading)
        for name, means in found[kind].items():
            print(f"  {name or '-':<22}" + _line(means))
    for name, reason in list(absent.items())[:_SHOWN]:
        tell("hugsim-score", f"{name}: no score: {reason}")
    if len(absent) > _SHOWN:
        tell("hugsim-score", f"and {len(absent) - _SHOWN} more without a score")
    if left_out:
        shown = ", ".join(left_out[:_SHOWN])
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        whose = "no file of --scenarios" if args.scenarios is not None else "no scenario by their names"
        tell("hugsim-score", f"{args.record}: left out folders that belong to {whose}: {shown}{more}")
    details = {name: score.to_dict() for name, score in runs.items()}
    _write(args.out, {**found, "runs": details, **provenance(settings, args.preset, timesteps)})
    return int(bool(absent))


def _explain(score: RunScore) -> None:
    for frame in score.frames:
        print(f"{frame.time:8.2f} s  {frame.values[-1]:.4f}  {'; '.join(frame.losses)}".rstrip())


def _line(means: dict[str, float]) -> str:
    return "  ".join(f"{name} {100 * value:6.2f}" for name, value in means.items())


def _write(path: Path | None, content: dict[str, Any]) -> None:
    from beyonddrive.engine.environment import environment
    from beyonddrive.engine.files import write_atomically

    if path is not None:
        write_atomically(path, json.dumps({**content, "made_with": environment()}, indent=1).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Score; the exit code is 1 if something is refused or a run has no score."""
    args = parse_args(argv)
    return run_command("hugsim-score", lambda: (score_many if args.record.is_dir() else score_one)(args))


if __name__ == "__main__":
    sys.exit(main())
