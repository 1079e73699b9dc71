"""Drive planners in towns with reactive traffic: ``beyonddrive closed-loop scenarios|run|compare|serve``.

``scenarios --out DIR`` writes scenarios in towns that no planner was trained on. ``run CONFIG CHECKPOINT
--scenarios DIR --out RESULTS`` drives a planner in all of them: SUMO moves the traffic, which reacts to the
ego, the painter paints what its cameras see, and HUGSIM's tracker and kinematics move it. Run it again after
a kill: it goes on. With ``--video`` what was driven without one is driven again for it. The exit code is 1 if
a scenario gave no episode; then no figures are written, which would be of a part, and the same command makes
what failed again. It is 1, too, if there is no video where one is wanted.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.evaluation.closed_loop.hugsim.scenario import DIFFICULTIES
from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    add_executor_options,
    command_parser,
    executor_of,
    read_token,
    refuse_file,
    refuse_idle,
    refuse_no_port,
    run_command,
    tell,
    tell_all,
)
from beyonddrive.tools._switches import add_switches, switched
from beyonddrive.tools.create_data import image_size

if TYPE_CHECKING:
    from beyonddrive.synth.live.batch import Crew, Filming
    from beyonddrive.synth.live.drive import LiveSettings
    from beyonddrive.synth.live.episode_files import Failed, Job

VERB = "closed-loop"
_READ_BY = {
    "pipes": ("planner", "device", "deadline"),
    "http": ("host", "port", "once", "token_file"),
}
"""Options of ``serve`` that one protocol reads, and the other does not."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(VERB, "Drive planners in generated towns with reactive traffic.")
    actions = parser.add_subparsers(dest="action", required=True)
    write = actions.add_parser("scenarios", help="write scenarios, and the towns that they are in")
    write.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    write.add_argument("--per-kind", type=int, default=40, help="scenarios of each difficulty")
    write.add_argument("--towns", type=int, default=8, help="towns that share them")
    write.add_argument("--seed", type=int, default=0, help="everything follows from it")
    add_executor_options(write)
    run = actions.add_parser("run", help="drive a planner in scenarios, and score it")
    add_config(run, "planner; human_synth lets SUMO drive, pdm_closed_synth PDM-Closed")
    run.add_argument("checkpoint", nargs="?", type=Path, metavar="CHECKPOINT", help="its weights")
    run.add_argument("--scenarios", type=Path, required=True, metavar="DIR", help="folder of scenarios")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results")
    run.add_argument("--seeds", default="0", help="of the traffic, like 0:3 or 0,5")
    run.add_argument("--difficulty", nargs="+", choices=DIFFICULTIES, default=(), help="only these scenarios")
    _add_video(run)
    run.add_argument("--exported", action="store_true", help="plan by the fast copy of the planner")
    run.add_argument(
        "--image-size", type=image_size, default=(480, 270), metavar="WxH", help="of the images [px]"
    )
    _add_settings(run)
    add_config_options(run)
    add_executor_options(run)
    compare = actions.add_parser("compare", help="put runs of the same scenarios beside each other")
    compare.add_argument(
        "--row",
        dest="rows",
        action="append",
        required=True,
        metavar="NAME=RESULTS[,RESULTS]",
        help="folders of one planner, one per training, all with the same seeds of the traffic; the first "
        "row is what the others are compared with",
    )
    compare.add_argument("--out", type=Path, metavar="DIR", help="folder of comparison.json and pairs.csv")
    serve = actions.add_parser("serve", help="be a simulator that speaks HUGSIM's protocols")
    serve.add_argument("--protocol", choices=("pipes", "http"), required=True)
    serve.add_argument("--scenarios", type=Path, required=True, metavar="DIR", help="folder of scenarios")
    serve.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of results, and of pipes"
    )
    serve.add_argument("--seed", type=int, default=0, help="of the traffic")
    serve.add_argument(
        "--difficulty", nargs="+", choices=DIFFICULTIES, default=(), help="only these scenarios"
    )
    serve.add_argument(
        "--planner", type=Path, metavar="SCRIPT", help="pipes: started as SCRIPT DEVICE FOLDER"
    )
    serve.add_argument("--device", default="0", help="pipes: what the script is told to run on")
    serve.add_argument("--deadline", type=float, default=120.0, help="pipes: longest wait for a plan [s]")
    serve.add_argument("--host", default="127.0.0.1", help="http: where it listens; this machine alone")
    serve.add_argument("--port", type=int, default=8065, help="http: 0 takes a free one")
    serve.add_argument("--once", action="store_true", help="http: end with the last scenario")
    serve.add_argument("--token-file", type=Path, help="http: file with the token that clients must send")
    _add_video(serve)
    _add_settings(serve, pivot="camera")
    args = parser.parse_args(argv)
    if args.out is not None:
        refuse_file(parser, "--out", args.out)
    if args.action == "serve":
        other, idle = next(item for item in _READ_BY.items() if item[0] != args.protocol)
        refuse_idle(serve, args, idle, f"--protocol {other}")
        if args.planner is None:
            refuse_idle(serve, args, ("device",), "--planner")
        refuse_no_port(serve, args.port)
        if not args.deadline > 0:  # (not a number would never pass)
            serve.error(f"--deadline: must be positive, got {args.deadline}")
    return args


def _add_video(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--video",
        nargs="*",
        choices=DIFFICULTIES,
        help="write an animated video.webp of every episode, or of those of these difficulties",
    )


def _add_settings(parser: argparse.ArgumentParser, pivot: str = "rear_axle") -> None:
    add_switches(parser)
    parser.add_argument(
        "--pivot",
        choices=("rear_axle", "camera"),
        default=pivot,
        help=f"what HUGSIM's kinematics move; in HUGSIM it is the front camera (default: {pivot})",
    )
    parser.add_argument(
        "--max-steps", type=int, default=400, help="an episode ends after so many; at most 400"
    )


def settings_of(args: argparse.Namespace, lidar: bool, resets: int = 1) -> LiveSettings:
    """How a command line wants scenarios to be driven.

    Args:
        args: The command line.
        lidar: Whether the planner reads a sweep.
        resets: As the switch, unless that is given.

    Raises:
        HugsimError: If there is no such switch, or it cannot be that.
    """
    from beyonddrive.synth.live.drive import LiveSettings

    size = getattr(args, "image_size", LiveSettings.image_size)
    return LiveSettings(size, lidar, switched(args, resets=resets), args.pivot, args.max_steps)


def write(args: argparse.Namespace) -> int:
    """Write scenarios."""
    from beyonddrive.synth.live.writer import ListPlan, write_scenarios

    made = write_scenarios(args.out, ListPlan(args.per_kind, args.towns, args.seed), executor_of(args))
    counts = ", ".join(f"{count} {name}" for name, count in made["scenarios"].items())
    print(f"{args.out}: {counts} scenarios in {args.towns} towns")
    return 0


def run(args: argparse.Namespace) -> int:
    """Drive a planner in scenarios."""
    from dataclasses import replace

    from beyonddrive.apis import load_config
    from beyonddrive.engine.sweeps.folder import recipe_digest
    from beyonddrive.engine.sweeps.plan import read_seeds
    from beyonddrive.synth.live import batch, run_folder
    from beyonddrive.tools._live_crew import PlannerSpec, crew_of, wants_lidar

    spec = PlannerSpec(args.config, args.checkpoint, args.cfg_options or {}, args.exported)
    settings = settings_of(args, wants_lidar(spec))
    crew = crew_of(spec, settings.hugsim.controller)
    jobs = batch.jobs_of(args.scenarios, args.out, settings, read_seeds(args.seeds), args.difficulty)
    recipe = recipe_digest(load_config(spec.config, spec.options))
    with run_folder.alone_in(args.out):
        _claim(args.out, {**_about(spec, settings), "recipe": recipe, **batch.about_list(jobs)})
        return _drive_all(args, jobs, replace(crew, filming=_filming(args)), settings, recipe)


def _drive_all(
    args: argparse.Namespace, jobs: Sequence[Job], crew: Crew, settings: LiveSettings, recipe: str
) -> int:
    """Drive, and write the figures if there is an episode of each."""
    from beyonddrive.synth.live import batch, episode_files, run_folder

    if any(episode_files.read_episode(job.folder) is None for job in jobs):
        run_folder.forget_figures(args.out)
    results = list(batch.run_jobs(jobs, crew, executor_of(args)))
    failed = [result for result in results if isinstance(result, episode_files.Failed)]
    tell_all(VERB, [_no_episode(item) for item in failed])
    if failed:
        tell(
            VERB,
            f"{args.out}: {len(failed)} of {len(results)} episodes failed: no figures were written, which "
            f"would be of a part; the {len(results) - len(failed)} others are kept, and the same command "
            "makes those that failed again",
        )
        return 1
    unfilmed = [result for result in results if isinstance(result, batch.Unfilmed)]
    tell_all(VERB, [f"{item.name}: no video: {item.reason}" for item in unfilmed])
    episodes = [
        result.episode if isinstance(result, batch.Unfilmed) else result
        for result in results
        if not isinstance(result, episode_files.Failed)
    ]
    _write_figures(args, episodes, settings, recipe)
    return int(bool(unfilmed))


def _claim(out: Path, about: dict[str, Any]) -> None:
    from beyonddrive.synth.live import run_folder

    untold = run_folder.claim(out, about)
    if untold:
        tell(
            VERB,
            f"{out / run_folder.SETTINGS}: does not say {', '.join(untold)}: the run there is of an earlier "
            "version, and what it has driven may have been made otherwise",
        )


def _filming(args: argparse.Namespace) -> Filming | None:
    if args.video is None:
        return None
    from beyonddrive.synth.live.batch import Filming
    from beyonddrive.tools._live_film import write_video

    return Filming(write_video, tuple(args.video))


def _no_episode(item: Failed) -> str:
    kept = "" if item.record is None else f"; its record up to there is {item.record}"
    return f"{item.name}: no episode: {item.reason}{kept}"


def _write_figures(
    args: argparse.Namespace,
    episodes: Sequence[dict[str, Any]],
    settings: LiveSettings,
    recipe: str | None = None,
) -> None:
    from beyonddrive.engine.environment import environment, utc_day
    from beyonddrive.engine.files import write_atomically
    from beyonddrive.synth.live import run_folder, summary

    figures = summary.summarise(episodes)
    preset = settings.hugsim.named(args.preset)
    write_atomically(args.out / "episodes.csv", summary.as_csv(episodes).encode())
    content = {**figures, "preset": preset, "hugsim": vars(settings.hugsim), "made_with": environment()}
    content["date"] = utc_day()
    if recipe is not None:  # (who drove a server it does not know)
        content["recipe"] = recipe
        content["checkpoint_file"] = None if args.checkpoint is None else str(args.checkpoint)
    write_atomically(args.out / run_folder.SUMMARY, summary.as_json(content).encode())
    print(summary.as_text(figures))
    print(f"HUGSIM's switches: preset {preset}")


def _about(spec: Any, settings: LiveSettings) -> dict[str, Any]:
    return {
        "config": Path(spec.config).stem,
        "options": {key: str(value) for key, value in spec.options.items()},
        "checkpoint": _digest(spec.checkpoint),
        "exported": spec.exported,
        **settings_dict_of(settings),
    }


def _digest(path: Path | None) -> str | None:
    from beyonddrive.structures.digests import digest_of_bytes

    return None if path is None else digest_of_bytes(path.read_bytes())


def serve(args: argparse.Namespace) -> int:
    """Be a simulator; what it drove is summarised as a run is."""
    from beyonddrive.synth.live import batch, episode_files, run_folder

    # (HUGSIM, section 3)
    settings = settings_of(args, False, resets=2 if args.protocol == "pipes" else 1)
    jobs = batch.jobs_of(args.scenarios, args.out, settings, (args.seed,), args.difficulty)
    about = {**settings_dict_of(settings), "protocol": args.protocol}
    if args.protocol == "pipes":
        about["planner"] = _digest(args.planner)
    with run_folder.alone_in(args.out):
        _claim(args.out, {**about, **batch.about_list(jobs)})
        # (a client may drive all of it anew)
        run_folder.forget_figures(args.out)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        # (so that the record so far is written when somebody ends the server)
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        failures = _serve_pipes(args, jobs) if args.protocol == "pipes" else _serve_http(args, jobs)
        episodes = [episode_files.read_episode(job.folder) for job in jobs]
        driven = [episode for episode in episodes if episode is not None]
        if len(driven) == len(jobs):
            _write_figures(args, driven, settings)
        return int(failures or len(driven) < len(jobs))


def compare(args: argparse.Namespace) -> int:
    """Compare runs."""
    from beyonddrive.engine.files import write_atomically
    from beyonddrive.synth.live import compare as comparison
    from beyonddrive.synth.live.summary import as_json
    from beyonddrive.synth.live.town import LiveError

    rows = []
    for text in args.rows:
        name, equals, folders = text.partition("=")
        if not (name and equals and folders):
            raise LiveError(f"--row: expected NAME=RESULTS[,RESULTS], got {text!r}")
        rows.append(comparison.Row(name, tuple(map(Path, folders.split(",")))))
    if len({row.name for row in rows}) < len(rows):
        raise LiveError("--row: two rows have one name")
    result = comparison.compare(rows)
    if args.out is not None:
        write_atomically(args.out / "comparison.json", as_json(result).encode())
        write_atomically(args.out / "pairs.csv", comparison.pairs_csv(rows).encode())
    print(comparison.comparison_text(result))
    return 0


def settings_dict_of(settings: LiveSettings) -> dict[str, Any]:
    """Settings as JSON values, with the version."""
    from beyonddrive.synth.live.run_folder import settings_dict
    from beyonddrive.version import __version__

    return {**settings_dict(settings), "version": __version__}


def _serve_pipes(args: argparse.Namespace, jobs: Sequence[Job]) -> int:
    from beyonddrive.synth.live.batch import lacks_video
    from beyonddrive.synth.live.episode_files import Failed, read_episode
    from beyonddrive.synth.live.serve_pipes import serve_pipes

    print("obs has rgb; semantic and depth, which HUGSIM has there too, are absent", flush=True)
    filming = _filming(args)
    left, failures = [], 0
    for job in jobs:
        episode = read_episode(job.folder)
        if episode is None:
            left.append(job)
        elif lacks_video(job, episode, filming):
            tell(VERB, f"{job.folder}: no video: it was driven before; remove it to drive it anew")
            failures += 1
    for job in left:
        print(f"{job.folder}: waits for a planner" if args.planner is None else f"{job.folder}", flush=True)
    for result in serve_pipes(left, args.deadline, args.planner, args.device, filming):
        if isinstance(result, Failed):
            tell(VERB, _no_episode(result))
            failures += 1
            continue
        scores = ", ".join(f"{name} {value:.4f}" for name, value in result["scores"].items())
        told = [*result["driver"]["reasons"].values(), *filter(None, [result["unscored"]])]
        reasons = "".join(f"; {text}" for text in told)
        print(f"{result['name']}: {', '.join(result['ends'])}; {scores}{reasons}", flush=True)
        failures += "planner_failure" in result["driver"]["counts"]
    return failures


def _serve_http(args: argparse.Namespace, jobs: Sequence[Job]) -> int:
    from beyonddrive.synth.live.serve_http import HttpSimulator, http_server

    simulator = HttpSimulator(jobs, read_token(args.token_file) or "", _filming(args))
    server = http_server(simulator, args.host, args.port)
    print(f"http://{args.host}:{server.server_address[1]}: {len(jobs)} scenarios", flush=True)
    server.timeout = 0.2
    try:
        while not (args.once and simulator.is_done):
            server.handle_request()
    except (KeyboardInterrupt, SystemExit):  # (what was driven to the end has figures however it ends)
        pass
    finally:
        # (the record first: who ends a server may not wait for its last client)
        simulator.close()
        server.server_close()
    return len(simulator.failed)


def main(argv: Sequence[str] | None = None) -> int:
    """Write scenarios, or drive in them."""
    args = parse_args(argv)
    actions = {"scenarios": write, "run": run, "compare": compare, "serve": serve}
    return run_command(VERB, lambda: actions[args.action](args))


if __name__ == "__main__":
    sys.exit(main())
