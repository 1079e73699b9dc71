"""The whole method on a laptop: ``beyonddrive demo`` (``make demo`` installs first).

Generates a world, trains the generator, mines negatives with it, trains LTF without and with them, compares
the planners on held-out scenes, and drives them in a town that lives. Each stage is one command, printed
before it runs, so that it can be run alone. All of it is in ``work_dirs/demo``. Stages that are complete are
not run again; ``--fresh`` deletes that folder and starts over.
``--all-planners`` goes on with every other planner, without and with negatives.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from beyonddrive.engine.executors import end_command_with_parent
from beyonddrive.engine.files import write_atomically
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.tools._command_line import command_parser, run_command
from beyonddrive.version import __version__

DEMO = Path("work_dirs/demo")
"""All that the demo makes is in here, and nothing else."""
DATA = DEMO / "world"
WORK = DEMO / "trained"
LIVE = DEMO / "closed_loop"

GENERATOR = "flow_policy/flow_policy_tiny_1xb16-12e_synth"
LTF = "ltf/ltf_tiny_1xb16-12e_synth"
BEYONDDRIVE = "ltf/ltf-beyonddrive_tiny_1xb16-12e_synth"
EGO_MLP = "ego_mlp/ego_mlp_1xb16-12e_synth"
HUMAN = "human/human_synth"
CONSTANT_VELOCITY = "constant_velocity/constant_velocity_synth"

ROWS = {
    "Human": HUMAN,
    "Constant velocity": CONSTANT_VELOCITY,
    "Ego-status MLP": EGO_MLP,
    "Generator": GENERATOR,
    "LTF": LTF,
    "LTF + BeyondDrive": BEYONDDRIVE,
}
"""Rows of the table and their configs."""

WITH_NEGATIVES = " + BeyondDrive"
"""Ends the name of a row that is compared with the row without it."""

SIGHT = ("LTF", "Ego-status MLP")
"""Rows that see and that do not; where the first is no better, no other difference says anything."""

VOCABULARY = "hydra_mdp/hydra_mdp_tiny_1xb16-12e_synth"
VOCABULARY_BEYONDDRIVE = "hydra_mdp/hydra_mdp-beyonddrive_tiny_1xb16-12e_synth"
WOTE = "wote/wote_tiny_1xb16-12e_synth"
WOTE_BEYONDDRIVE = "wote/wote-beyonddrive_tiny_1xb16-12e_synth"

MORE_ROWS = {
    "TransFuser": "transfuser/transfuser_tiny_1xb16-12e_synth",
    "DiffusionDrive": "diffusiondrive/diffusiondrive_tiny_1xb16-12e_synth",
    "DiffusionDrive + BeyondDrive": "diffusiondrive/diffusiondrive-beyonddrive_tiny_1xb16-12e_synth",
    "MeanFuser": "meanfuser/meanfuser_tiny_1xb16-12e_synth",
    "MeanFuser + BeyondDrive": "meanfuser/meanfuser-beyonddrive_tiny_1xb16-12e_synth",
    "WoTE": WOTE,
    "WoTE + BeyondDrive": WOTE_BEYONDDRIVE,
    "Vocabulary planner": VOCABULARY,
    "Vocabulary planner + BeyondDrive": VOCABULARY_BEYONDDRIVE,
}
"""Rows that ``--all-planners`` adds."""

FILMED = "hard"
"""Difficulty of the closed-loop scenario that is filmed."""

VOCABULARIES = {WOTE: 32, VOCABULARY: 64}
"""Plans in the vocabularies of the planners that choose from one."""

Command = list[str]
COMMAND = (sys.executable, "-m", "beyonddrive")
"""What ``beyonddrive`` runs, with this interpreter."""


class DemoError(BeyondDriveError, RuntimeError):
    """A stage failed, or what is there is of another demo."""


@dataclass(frozen=True)
class Size:
    """How much of everything the demo makes."""

    splits: str
    epochs: int
    pictures: int
    image_size: str
    driven: str


SIZES = {
    "full": Size("train:3000,val:150,test:600", 12, 6, "480x270", f"--max-steps 120 --video {FILMED}"),
    # Just large enough that every stage has something to do; the table means nothing.
    "smoke": Size("train:16,val:4,test:4", 1, 1, "160x90", f"--max-steps 2 --video --difficulty {FILMED}"),
}


@dataclass(frozen=True)
class Stage:
    """A named part of the demo.

    Attributes:
        name: Of the part.
        commands: Makes its commands when it starts, when what they read exists.
        at_once: How many of the commands run side by side.
    """

    name: str
    commands: Callable[[], list[Command]]
    at_once: int = 1


def tool(verb: str, *args: object) -> Command:
    """A command of this suite."""
    return [*COMMAND, verb, *map(str, args)]


def config(name: str) -> str:
    """Name of a config, wherever the suite is installed."""
    return f"beyonddrive::{name}.py"


def tool_of(verb: str, name: str, *args: object, options: Sequence[str] = ()) -> Command:
    """A command of this suite, of one or two words, with a config, on the world of the demo."""
    return tool(*verb.split(), config(name), *args, "--cfg-options", f"data_root={DATA}", *options)


def last_checkpoint(name: str) -> Path:
    """Return the checkpoint of the last epoch: no choice that follows the noise of a small validation split.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = WORK / Path(name).name
    told = folder / "last_checkpoint"
    if not told.exists():
        raise FileNotFoundError(f"{told}: not there; the training stage of {name} left no checkpoint")
    return folder / Path(told.read_text().strip()).name


def results(name: str) -> Path:
    """Folder of what a planner does on the test split."""
    return DEMO / "results" / Path(name).name


def train(size: Size, *names: str) -> Callable[[], list[Command]]:
    """Commands that train planners, or go on where a killed training stopped; they share the cores."""
    threads = max(1, len(os.sched_getaffinity(0)) // len(names))
    options = [f"train_cfg.max_epochs={size.epochs}", f"num_threads={threads}"]
    if size.epochs < 4:
        options.append("train_cfg.val_interval=1")
    return lambda: [
        tool_of("train", name, "--work-dir", WORK / Path(name).name, "--resume", options=options)
        for name in names
    ]


def evaluate(name: str) -> Command:
    """Command that evaluates a planner on the test split."""
    out = results(name)
    args = ["--out", out / "results.csv", "--plans", out / "plans.npz", "--work-dir", out]
    return tool_of("test", name, *weights(name), *args)


def weights(name: str) -> list[Path]:
    """Checkpoint of a planner, if it has any."""
    return [] if name in (HUMAN, CONSTANT_VELOCITY) else [last_checkpoint(name)]


def mine(split: str, workers: int) -> Command:
    """Command that mines the negatives of a split."""
    where = ["--split", split, "--out", f"{DATA}/pool/{split}"]
    return tool_of("mine", GENERATOR, last_checkpoint(GENERATOR), *where, "--num-workers", workers)


def pictures(size: Size, rows: Mapping[str, str]) -> list[Command]:
    """Commands that draw scenes: each planner's plan, and the negatives by what they fail.

    The human has a page of every scene anyway.
    """
    scenes = ["--data-root", DATA, "--split", "test", "--scene-filter", f"{DATA}/scene_filters/test.yaml"]
    plans = [f"{row}={results(name) / 'plans.npz'}" for row, name in rows.items() if name != HUMAN]
    look = ["--num", size.pictures, "--pool", f"{DATA}/pool/test", "--out", DEMO / "pictures"]
    return [tool("visualize", *scenes, *look, "--plans", *plans)]


def scenarios(seed: int) -> list[Command]:
    """Command that makes a scenario of each difficulty in a new town."""
    made = ["scenarios", "--out", LIVE / "scenarios", "--per-kind", 1, "--towns", 1, "--seed", seed]
    return [tool("closed-loop", *made, "--num-workers", 0)]


def driven(size: Size, rows: Mapping[str, str]) -> list[Command]:
    """Commands that drive every planner in the scenarios.

    Each in one process, several planners at a time: to start a process takes as long as to drive a scenario.
    """
    where, look = ["--scenarios", LIVE / "scenarios"], ["--image-size", size.image_size, *size.driven.split()]
    commands = []
    for name in rows.values():
        out = ["--out", LIVE / Path(name).name, "--num-workers", 0]
        commands.append(tool_of("closed-loop run", name, *weights(name), *where, *look, *out))
    return commands


def closed_loop_table(rows: Mapping[str, str]) -> Command:
    """Command that prints what the planners did in the closed loop; the human there is SUMO."""
    found = [f"--row={row}={LIVE / Path(name).name}" for row, name in rows.items()]
    return tool("closed-loop", "compare", *found, "--out", LIVE / "table")


def show_films(rows: Mapping[str, str]) -> None:
    """Put a film of each planner beside the report, and say where it is."""
    for row, name in rows.items():
        for film in sorted((LIVE / Path(name).name).glob(f"seed_*/*_{FILMED}_00/video.webp")):
            beside = DEMO / f"{Path(name).name}.webp"
            shutil.copyfile(film, beside)
            print(f"{row} in a closed loop: {beside}", flush=True)


def vocabulary(name: str, plans: int, workers: int) -> list[Command]:
    """Commands that make the vocabulary of a planner, and score its plans in the training split."""
    file, scores = f"{DATA}/vocabularies/plans_{plans}.npz", f"{DATA}/vocabularies/scores_{plans}/train"
    build = ["train", "--size", plans, "--out", file, "--num-workers", workers]
    return [
        tool_of("build-vocabulary", name, *build),
        tool_of("score-vocabulary", name, "train", file, "--out", scores, "--num-workers", workers),
    ]


def stages(size: Size, seed: int, workers: int) -> list[Stage]:
    """List the stages of the demo, in order."""
    return [
        *_data(size, seed, workers, lidar=False, cached=(LTF,)),
        # (two trainings with one thread each take less time than one after the other with two)
        Stage("train the generator and LTF", train(size, GENERATOR, LTF), at_once=2),
        _negatives(workers),
        Stage("train LTF + BeyondDrive and the ego-status MLP", train(size, BEYONDDRIVE, EGO_MLP), at_once=2),
        *_conclusion(size, ROWS, seed, workers),
    ]


def stages_of_all_planners(size: Size, seed: int, workers: int) -> list[Stage]:
    """List the stages of the demo with every planner."""
    rows = ROWS | MORE_ROWS
    made = [command for name, plans in VOCABULARIES.items() for command in vocabulary(name, plans, workers)]
    trained = [
        Stage(f"train {row}", train(size, name))
        for row, name in rows.items()
        if name not in (HUMAN, CONSTANT_VELOCITY, GENERATOR)
    ]
    return [
        *_data(size, seed, workers, lidar=True, cached=(LTF, MORE_ROWS["TransFuser"], WOTE)),
        Stage("train the generator", train(size, GENERATOR)),
        _negatives(workers),
        Stage("make vocabularies", lambda: made),
        *trained,
        *_conclusion(size, rows, seed, workers),
    ]


def _data(size: Size, seed: int, workers: int, lidar: bool, cached: Sequence[str]) -> list[Stage]:
    """Stages up to the trainings; ``cached`` are planners whose features differ."""
    world = ["--out", DATA, "--seed", seed, "--splits", size.splits, "--image-size", size.image_size]
    world += ["--cameras", "front", "--lidar" if lidar else "--no-lidar", "--num-workers", workers]
    caches = [tool_of("cache-features", name, "--num-workers", workers) for name in cached]
    caches.append(tool_of("cache-metrics", LTF, "--num-workers", workers))
    return [
        Stage("generate the world", lambda: [tool("create-data", "synth", *world)]),
        Stage("cache features and metrics", lambda: caches),
    ]


def _negatives(workers: int) -> Stage:
    """Mining; the negatives of the test split are for the pictures, no planner sees them."""
    return Stage("mine and score negatives", lambda: [mine("train", workers), mine("test", workers)])


def _conclusion(size: Size, rows: Mapping[str, str], seed: int, workers: int) -> list[Stage]:
    """Stages after the trainings."""
    return [
        Stage("evaluate on held-out scenes", lambda: [evaluate(name) for name in rows.values()]),
        Stage("draw pictures", lambda: pictures(size, ROWS)),
        Stage("make closed-loop scenarios", lambda: scenarios(seed)),
        Stage("drive in a closed loop", lambda: driven(size, rows), at_once=max(1, workers)),
    ]


def report(seconds: dict[str, float], rows: Mapping[str, str]) -> Command:
    """Command that prints the table and writes the report."""
    found = [f"--row={row}={results(name) / 'results.csv'}" for row, name in rows.items()]
    repelled = [row for row in rows if row.endswith(WITH_NEGATIVES)]
    compared = [f"--difference={row}={row.removesuffix(WITH_NEGATIVES)}" for row in repelled]
    compared.append(f"--sight={'='.join(SIGHT)}")
    times = [f"--time={name}={value:.0f}" for name, value in seconds.items()]
    parts = ["--coverage", f"{DATA}/pool/train/coverage.json", "--pictures", DEMO / "pictures"]
    out = ["--title", "BeyondDrive on a generated world", "--out", DEMO / "report.html"]
    return tool("report", *found, *compared, *times, *parts, *out, "--markdown", DEMO / "table.md")


def shown(command: Command) -> str:
    """A command as a person would type it."""
    return shlex.join(["beyonddrive", *command[len(COMMAND) :]])


def run(command: Command) -> None:
    """Print a command as a person would type it, and run it.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    print(f"$ {shown(command)}", flush=True)
    subprocess.run(command, check=True, preexec_fn=end_command_with_parent)


def run_at_once(commands: Sequence[Command], at_once: int) -> None:
    """Run commands side by side; the first one's output is shown, that of the others goes to files.

    Args:
        commands: All of them.
        at_once: How many run at a time.

    Raises:
        subprocess.CalledProcessError: If one fails; those that run then are ended. Its ``output`` is the file
            that the command wrote to, if there is one.
    """
    left = list(enumerate(commands))
    running: list[tuple[Command, Path | None, subprocess.Popen[bytes]]] = []
    try:
        while left or running:
            while left and len(running) < at_once:
                number, command = left.pop(0)
                log = None if number == 0 else DEMO / "logs" / f"{_name_of(command)}.txt"
                running.append((command, log, _started(command, log)))
            for item in list(running):
                command, log, process = item
                code = process.poll()
                if code is not None:
                    running.remove(item)
                    if code:
                        raise subprocess.CalledProcessError(code, command, str(log) if log else None)
            time.sleep(0.05)
    finally:
        for _, _, process in running:
            process.terminate()
            process.wait()


def _started(command: Command, log: Path | None) -> subprocess.Popen[bytes]:
    if log is None:
        print(f"$ {shown(command)} &", flush=True)
        return subprocess.Popen(command, preexec_fn=end_command_with_parent)
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"$ {shown(command)} > {log} 2>&1 &", flush=True)
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, preexec_fn=end_command_with_parent)


def _name_of(command: Command) -> str:
    """Verb and config of a command, for a file name."""
    words = command[len(COMMAND) :]
    place = next((i for i, word in enumerate(words) if word.endswith(".py")), 0)
    return "-".join([*words[:place], Path(words[place]).stem])


def run_stage(stage: Stage) -> None:
    """Run the commands of a stage.

    Raises:
        DemoError: If one fails, or what it reads is not there.
    """
    try:
        commands = stage.commands()
        if stage.at_once > 1:
            run_at_once(commands, stage.at_once)
        else:
            for command in commands:
                run(command)
    except subprocess.CalledProcessError as error:
        said = f"{shown(error.cmd)} ended with exit code {error.returncode}"
        if error.output:
            said += f"; {error.output} has what it wrote"
        raise DemoError(f"stage '{stage.name}' failed: {said}") from error
    except FileNotFoundError as error:
        raise DemoError(f"stage '{stage.name}' failed: {error}") from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("demo", "Run the whole method on a generated world.")
    parser.add_argument("--size", choices=SIZES, default="full", help="how much of everything to make")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world")
    parser.add_argument("--num-workers", type=int, default=2, help="processes of the stages that use several")
    parser.add_argument("--epochs", type=int, help="epochs of every training; 12 by default")
    parser.add_argument(
        "--all-planners", action="store_true", help="train and compare every planner (over an hour)"
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help=f"delete {DEMO}, which holds all that a demo makes, and start over",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages that are not complete, then print the table; the exit code is 1 if one fails."""
    args = parse_args(argv)
    return run_command("demo", lambda: demo(args))


def demo(args: argparse.Namespace) -> int:
    """Run the stages that are not complete, then print the table."""
    rows = ROWS | MORE_ROWS if args.all_planners else ROWS
    size = SIZES[args.size]
    if args.epochs is not None:
        size = replace(size, epochs=args.epochs)
    if args.fresh and (DEMO.exists() or DEMO.is_symlink()):
        shutil.rmtree(DEMO)  # (what it cannot delete it tells: what stays would count as complete)
    wanted = {
        "version": __version__,
        "world": str(DATA),
        "size": asdict(size),
        "seed": args.seed,
        "planners": len(rows),
    }
    ledger = DEMO / "stages.json"
    done = json.loads(ledger.read_text()) if ledger.exists() else {**wanted, "seconds": {}}
    if {key: done.get(key) for key in wanted} != wanted:
        raise DemoError(f"{ledger} is of another demo ({done}); run with --fresh to start over")

    plan = stages_of_all_planners if args.all_planners else stages
    for stage in plan(size, args.seed, args.num_workers):
        if stage.name in done["seconds"]:
            print(f"== {stage.name}: complete ({done['seconds'][stage.name]:.0f} s)", flush=True)
            continue
        print(f"\n== {stage.name}", flush=True)
        start = time.perf_counter()
        run_stage(stage)
        done["seconds"][stage.name] = time.perf_counter() - start
        write_atomically(ledger, json.dumps(done, indent=2).encode())
    run_stage(Stage("report", lambda: [report(done["seconds"], rows), closed_loop_table(rows)]))
    show_films(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
