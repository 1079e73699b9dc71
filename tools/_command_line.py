"""What the command lines share: options, messages and exit codes.

Nothing heavy is imported before a command line has been read, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beyonddrive.engine.config_values import OptionText, read_text
from beyonddrive.structures.errors import BeyondDriveError

if TYPE_CHECKING:
    from beyonddrive.datasets.navsim.log_jobs import CacheReport
    from beyonddrive.engine.executors import Executor

LAUNCHERS = ("none", "pytorch", "slurm", "mpi")
SHOWN_PROBLEMS = 20
"""Problems of one kind that are printed; beyond that they are only counted."""


class Parser(argparse.ArgumentParser):
    """A parser of which an option with several values may be given several times, and keeps all of them.

    Its parsers of subcommands are of the same kind.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, _Store)  # (what options have that name no action)


class _Store(argparse.Action):
    """Keeps what was given; of an option of one value the last, as argparse does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        if option_string and self.nargs in ("+", "*") and before is not self.default:
            values = [*(before or ()), *values]  # (argparse would forget those before without a word)
        setattr(namespace, self.dest, values)


def command_parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser that calls itself as the verb is called."""
    return Parser(prog=f"beyonddrive {verb}", description=description)


class KeyTexts(argparse.Action):
    """Reads ``key=value ...``; the values stay as they were typed until it is known what they are for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the values to those that the namespace has."""
        given = dict(getattr(namespace, self.dest, None) or {})
        for word in values or ():
            key, equals, text = str(word).partition("=")
            if not equals or not key.strip():
                parser.error(f"{option_string} {word}: write key=value")
            try:
                given[key.strip()] = self.read(text)
            except ValueError as error:  # of brackets that do not match
                parser.error(f"{option_string} {word}: {error}")
        setattr(namespace, self.dest, given)

    def read(self, text: str) -> Any:
        """What is kept of a value."""
        return OptionText(text)


class KeyValues(KeyTexts):
    """Reads ``key=value ...``: numbers, true or false, lists, or else texts."""

    def read(self, text: str) -> Any:
        """The value that a text means."""
        return read_text(text, None, None)


def add_config(parser: argparse.ArgumentParser, what: str, optional: bool = False) -> None:
    """Give a command line the argument CONFIG, which :func:`find_config` finds.

    Args:
        parser: The command line.
        what: What it is the config of.
        optional: Whether it may be left out.
    """
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?" if optional else None,
        help=f"{what}: a file, package::folder/name.py, or a bare name (beyonddrive list configs)",
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the option ``--cfg-options``."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=KeyTexts,
        metavar="key=value",
        help="change config: train_cfg.max_epochs=3 data_root=data/other",
    )


def refuse_file(parser: argparse.ArgumentParser, option: str, path: str | Path | None) -> None:
    """End a command line that names a file, or a place below one, where a folder is wanted."""
    for place in () if path is None else (Path(path), *Path(path).parents):
        if place.exists():
            if not place.is_dir():
                parser.error(f"{option}: {place} is a file; give the name of a folder")
            return


def refuse_taken(
    parser: argparse.ArgumentParser, option: str, path: Path | None, taken: Mapping[Path, str]
) -> None:
    """End a command line that writes a file where a folder is, or one of ``taken``: whole path -> its use."""
    if path is not None and path.is_dir():
        parser.error(f"{option}: {path} is a folder; give the name of a file")
    if path is not None and (use := taken.get(path.resolve())):
        parser.error(f"{option}: {path} is {use}; give another name")


def refuse_no_port(parser: argparse.ArgumentParser, port: int) -> None:
    """End a command line whose ``--port`` is none; a library may serve at what is left of it."""
    if not 0 <= port < 2**16:
        parser.error(f"--port: must be 0 to {2**16 - 1}, got {port}")


def refuse_idle(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str], owner: str
) -> None:
    """End a command line that sets options which do nothing there.

    Args:
        parser: The command line.
        args: What was read of it.
        names: Options, as ``args`` has them, that something else reads.
        owner: What reads them, such as another option.
    """
    for name in names:
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')}: goes with {owner}, and does nothing here")


def read_token(path: Path | None) -> str | None:
    """The token that a file holds; None if there is no file.

    Raises:
        ValueError: If it holds none: nobody means to ask for an empty one.
        OSError: If it cannot be read.
    """
    if path is None:
        return None
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path}: holds no token; leave --token-file out where none is asked for")
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            f"{path}: a token is sent in a header of HTTP: use letters, digits and signs of ASCII"
        )
    return token


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line what torchrun, Slurm or MPI need."""
    parser.add_argument(
        "--launcher", choices=LAUNCHERS, default="none", help="what starts the processes of a distributed run"
    )
    parser.add_argument("--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    """Give a command line the options that :func:`executor_of` reads."""
    parser.add_argument("--num-workers", type=_count, default=0, help="processes; 0 works in this one")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="work on the Ray cluster at this address, or on one that is started here",
    )


def executor_of(args: argparse.Namespace) -> Executor:
    """The executor that a command line asks for.

    Raises:
        ImportError: If that is Ray, which is not installed.
        ConnectionError: If there is no cluster at that address.
    """
    from beyonddrive.engine.executors import RayExecutor, make_executor

    if args.ray is None:
        return make_executor(args.num_workers)
    try:
        return RayExecutor(args.ray or None, args.num_workers or None)
    except (ConnectionError, ValueError) as error:
        raise ConnectionError(f"--ray: {error}") from error


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must not be negative, got {value}")
    return value


def run_command(verb: str, work: Callable[[], int], launcher: str = "none", refused: int = 1) -> int:
    """Do the work of a command; what is refused becomes one line.

    Args:
        verb: Name of the command, for messages.
        work: Returns the exit code.
        launcher: What started the process. One of several processes raises: the launcher shows which
            one failed, and ends the others.
        refused: Exit code if the work raises.

    Raises:
        BaseException: What the work raises and is no refusal, or was raised below a launcher.
    """
    try:
        return work()
    except BrokenPipeError:  # of ``beyonddrive list | head``: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return refused
    except (BeyondDriveError, ImportError, OSError, RuntimeError, ValueError) as error:
        if launcher != "none":
            raise
        tell(verb, explain(error))
        return refused


def run_distributed(verb: str, work: Callable[[], int], launcher: str) -> int:
    """As :func:`run_command`, for work that starts process groups and workers: they end with it.

    Args:
        verb: Name of the command, for messages.
        work: Returns the exit code, and keeps no runner.
        launcher: What started the process.
    """

    def work_and_end() -> int:
        from beyonddrive.engine.runner import ending_processes

        with ending_processes():
            return work()

    return run_command(verb, work_and_end, launcher)


def tell(verb: str, message: str) -> None:
    """Print what goes wrong to standard error, behind the name of the command."""
    print(f"{verb}: {message}", file=sys.stderr, flush=True)


def tell_all(verb: str, problems: Sequence[str]) -> None:
    """Print the first problems, and how many there are."""
    for problem in problems[:SHOWN_PROBLEMS]:
        tell(verb, problem)
    if len(problems) > SHOWN_PROBLEMS:
        tell(verb, f"and {len(problems) - SHOWN_PROBLEMS} more of this kind, {len(problems)} in all")


def explain(error: BaseException) -> str:
    r"""Return what went wrong in one line, also if it went wrong in a worker of a data loader.

    >>> explain(ValueError('Caught E in DataLoader worker process 0.\nTraceback ...\nValueError: no image'))
    'no image'
    """
    message = str(error) or type(error).__name__
    if "DataLoader worker process" in message:
        # torch puts the traceback of the worker into the message; its last line is the error.
        message = message.strip().splitlines()[-1].partition(": ")[2] or message
    return " ".join(message.split())


def fill_stores(verb: str, what: str, reports: Iterable[tuple[str, CacheReport]]) -> int:
    """Fill stores one after another and print what became of each.

    Args:
        verb: Name of the command, for messages.
        what: What the stores hold.
        reports: Name of each split, and the report of the run that fills its store; the work is done as they
            are drawn.

    Returns:
        The exit code: 1 if something was left out.
    """
    failed = False
    for name, report in reports:
        print(
            f"{name}: {what} of {report.num_scenes} scenes, {report.num_new_logs} logs done now", flush=True
        )
        tell_all(verb, [f"scene {token}: {reason}" for token, reason in report.failures.items()])
        tell_all(verb, report.problems)
        failed |= not report.complete
    return int(failed)
