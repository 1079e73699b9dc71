"""Evaluate a published checkpoint, and compare: ``beyonddrive reproduce RELEASE --data-root ROOT``.

The data are looked at first, as ``beyonddrive doctor`` does: without a log or a map no figure can be met.
The checkpoint is fetched from its hub (or given by ``--checkpoint``), its checksum is compared if one is
known, it is converted on the way into its planner and evaluated on navtest; then each published figure is
compared, as it was printed. The exit code is 1 if the data are not whole, a figure is not met or a scene has
no score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beyonddrive.tools._command_line import add_config_options, command_parser, run_command, tell, tell_all

if TYPE_CHECKING:
    from mmengine.config import Config

    from beyonddrive.checkpoints.published_weights import PublishedRow


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("reproduce", "Evaluate a published checkpoint and compare with its figures.")
    parser.add_argument("release", metavar="RELEASE", help="name in a planner's metafile.yml")
    parser.add_argument("--data-root", required=True, help="data root in NAVSIM's layout")
    parser.add_argument("--maps-root", help="folder of the maps; default: DATA_ROOT/maps")
    parser.add_argument("--checkpoint", type=Path, help="the file, if it is here already")
    parser.add_argument("--metafile", type=Path, help="another metafile than those of the configs")
    parser.add_argument("--endpoint", metavar="URL", help="address of the hub")
    parser.add_argument("--any-data", action="store_true", help="evaluate on what there is of the data")
    parser.add_argument("--out", metavar="CSV", help="write one row per scene")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate and compare."""
    args = parse_args(argv)
    return run_command("reproduce", lambda: reproduce(args))


def find_row(name: str, metafile: Path | None) -> PublishedRow:
    """The entry of a release.

    Raises:
        PublishedError: If there is none.
    """
    import beyonddrive
    from beyonddrive.checkpoints.published_weights import METAFILE, PublishedError, read_metafile

    folder = Path(beyonddrive.__path__[0]) / "configs"
    paths = [metafile] if metafile else sorted(folder.glob(f"*/{METAFILE}"))
    rows = {key: row for path in paths for key, row in read_metafile(path).items()}
    if name not in rows:
        raise PublishedError(f"{name}: no metafile has this release; there are {', '.join(sorted(rows))}")
    return rows[name]


def reproduce(args: argparse.Namespace) -> int:
    """Fetch, check, evaluate, compare."""
    from beyonddrive.checkpoints.loading import load_weights
    from beyonddrive.checkpoints.published_weights import check_sum, fetch
    from beyonddrive.engine import runner

    row = find_row(args.release, args.metafile)
    places = {"data_root": args.data_root, **({"maps_root": args.maps_root} if args.maps_root else {})}
    options = {**places, **(args.cfg_options or {})}
    config = runner.load_config(row.config, options)
    unsound = check_data(row.config, config)
    if unsound and not args.any_data:
        tell("reproduce", "these data cannot give the published figures; mend them, or give --any-data")
        return 1
    path = args.checkpoint or fetch(row, args.endpoint)
    found = check_sum(path, row.sha256)
    known = "as published" if row.sha256 else "no published one is known"
    print(f"{path}: sha256 {found}, {known}", flush=True)
    testing = runner.build_test_runner(config, out_file=args.out, inputs=[path])
    load_weights(testing.model, path)
    metrics, failures, shares, unwritten, labels = runner.evaluate(testing)
    tell_all("reproduce", [f"{name} has no score: {reason}" for name, reason in failures.items()])
    tell_all("reproduce", unwritten)
    figures = {name.removeprefix("pdms/"): value for name, value in metrics.items()}
    met = True
    for line, same in compared(row.metrics, figures):
        print(line)
        met &= same
    print(f"{figures.get('num_scenes', 0):.0f} scenes scored" + "".join(f", {s}" for s in shares.values()))
    for prefix, label in labels.items():
        print(f"{prefix}/...: {label}")
    if not met:
        first = "what the check of the data found, then " if unsound else ""
        tell("reproduce", f"not met: compare {first}the number of scenes, the checksum and the options")
    return int(not met or bool(failures) or bool(unwritten))


def check_data(name: str, config: Config) -> bool:
    """Print what the doctor says of the data that a test reads; whether something of it has failed.

    Args:
        name: Of the config.
        config: The config.
    """
    from beyonddrive.tools._doctor_configs import needs_of
    from beyonddrive.tools._doctor_data import needed_data_checks

    failed = False
    for check in needed_data_checks([needs_of(name, config, ("test",))]):
        print(check, flush=True)
        failed |= check.status == "fail"
    return failed


def compared(published: Mapping[str, float], figures: Mapping[str, float]) -> Iterator[tuple[str, bool]]:
    """One line per published figure, and whether ours is it, rounded as printed (one decimal).

    >>> for line, met in compared({'PDMS': 88.1, 'NC': 98.2}, {'PDMS': 88.14, 'NC': 98.0}): print(line, met)
    PDMS    published  88.1, here  88.14: met True
    NC      published  98.2, here  98.00: differs by -0.20 False
    """
    for name, value in published.items():
        ours = figures.get(name)
        if ours is None:
            yield f"{name:<7} published {value:5.1f}, here none", False
            continue
        same = abs(ours - value) <= 0.05 + 1e-9
        said = "met" if same else f"differs by {ours - value:+.2f}"
        yield f"{name:<7} published {value:5.1f}, here {ours:6.2f}: {said}", same


if __name__ == "__main__":
    sys.exit(main())
