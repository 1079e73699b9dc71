"""Convert a checkpoint of an original release: ``beyonddrive convert SRC DST``.

The planner and its variant are recognised from the names and sizes of the weights. Nothing is left over: a
weight that is missing, unexpected, of another size, NaN or infinite is an error, and DST is not written. With
``--reverse``, SRC is ours and DST becomes a file that the original code loads. Files that end in
``.safetensors`` are read and written as such. The exit code is 1 if anything is refused.

MeanFuser's original keeps the means of its noise outside of the checkpoint. They are known for the published
clusters; for others ``--data`` brings them, and without it a warning says that DST cannot plan yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from beyonddrive.tools._command_line import command_parser, run_command, tell


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("convert", "Convert checkpoints of original releases, both ways.")
    parser.add_argument("source", metavar="SRC", type=Path, help="checkpoint to read")
    parser.add_argument("target", metavar="DST", type=Path, help="checkpoint to write")
    parser.add_argument(
        "--planner", metavar="NAME", help="what SRC is a checkpoint of; recognised by default"
    )
    parser.add_argument(
        "--reverse", action="store_true", help="from ours to the original's names, as Lightning stores them"
    )
    parser.add_argument(
        "--data", metavar="FILE.npz", type=Path, help="arrays that the original reads from a file of its own"
    )
    args = parser.parse_args(argv)
    if args.source.resolve() == args.target.resolve():
        parser.error("SRC and DST are the same file")
    if args.reverse and args.data is not None:
        parser.error("--data has no use with --reverse: our checkpoints hold those arrays")
    return args


def convert(
    source: Path,
    target: Path,
    planner: str | None = None,
    reverse: bool = False,
    data_file: Path | None = None,
) -> str:
    """Convert a file and return one line about it.

    Args:
        source: Checkpoint to read.
        target: Checkpoint to write.
        planner: What it is a checkpoint of; recognised by default.
        reverse: From ours to the original's names.
        data_file: npz file with arrays that the original's checkpoint lacks.

    Raises:
        FileNotFoundError: If there is no source.
        CheckpointError: If the source cannot be read.
        ConversionError: If it is not exactly a checkpoint of a published planner.
    """
    from beyonddrive.checkpoints.conversion import lacks_data, to_native, to_official
    from beyonddrive.checkpoints.recognition import AGENT
    from beyonddrive.checkpoints.weight_files import read_data, read_weights, write_weights
    from beyonddrive.version import __version__

    state = read_weights(source).state
    if reverse:
        conversion = to_official(state, planner, str(source))
    else:
        data = read_data(data_file) if data_file is not None else None
        conversion = to_native(state, planner, str(source), data)
    meta: dict[str, Any] = {
        "planner": conversion.model["type"],
        "release": conversion.release.name,
        "settings": conversion.settings,
        "model": conversion.model,
        "names": "official" if reverse else "beyonddrive",
        "converted_from": source.name,
        "beyonddrive_version": __version__,
    }
    if conversion.absent and not reverse:
        meta["absent"] = list(conversion.absent)
        problem = lacks_data(str(target), conversion.release.name, conversion.absent)
        tell("convert", f"written, but no planner can use it: {problem}")
    state = conversion.state
    if reverse:
        state = {f"{AGENT}{key}": value for key, value in state.items()}
    write_weights(target, state, meta)
    return f"{target}: {len(state)} weights of {conversion}"


def main(argv: Sequence[str] | None = None) -> int:
    """Convert; the exit code is 1 if anything is refused."""
    args = parse_args(argv)

    def work() -> int:
        print(convert(args.source, args.target, args.planner, args.reverse, args.data))
        return 0

    return run_command("convert", work)


if __name__ == "__main__":
    sys.exit(main())
