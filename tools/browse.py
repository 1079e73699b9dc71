"""Look at the data of a config: ``beyonddrive browse CONFIG --out DIR [--loader train] [--num 8]``.

Draws samples after the pipeline, as the planner gets them: camera, LiDAR, map target, agents, expert plan,
and negatives if the config has a pool. One PNG for each scene; the exit code is 1 if one could not be made.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from beyonddrive.tools._command_line import (
    add_config,
    add_config_options,
    command_parser,
    refuse_file,
    run_command,
    tell,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("browse", "Draw samples of a data set as a planner gets them.")
    add_config(parser, "config whose data are looked at")
    parser.add_argument("--loader", choices=("train", "val", "test"), default="train")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tokens", nargs="+", help="scenes to draw")
    which.add_argument("--num", type=int, default=8, help="or how many, spread evenly (default 8)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the pictures")
    add_config_options(parser)
    args = parser.parse_args(argv)
    refuse_file(parser, "--out", args.out)
    if args.num < 1:
        parser.error(f"--num: must be positive, got {args.num}")
    return args


def transforms_in(settings: Any) -> Iterator[dict[str, Any]]:
    """Settings of every transform, and of whatever else has a type, in the settings of a data set."""
    if isinstance(settings, dict):
        if "type" in settings:
            yield settings
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for part in settings:
            yield from transforms_in(part)


def setting_of(settings: Any, name: str, key: str) -> float:
    """Value of an argument of a transform, or its default if the data set has no such transform."""
    from beyonddrive.registry import TRANSFORMS

    wanted = TRANSFORMS.get(name)
    kinds = (
        part
        for part in transforms_in(settings)
        if (part["type"] if isinstance(part["type"], type) else TRANSFORMS.get(part["type"])) is wanted
    )
    return float(getattr(TRANSFORMS.build({**next(kinds, {}), "type": name}), key))


def chosen(dataset: Any, tokens: Sequence[str] | None, num: int) -> list[int]:
    """Indices of the samples to draw.

    Raises:
        ValueError: If a token is not in the data set.
    """
    if tokens is None:
        num = min(num, len(dataset))
        return [index * len(dataset) // num for index in range(num)]
    from beyonddrive.engine.wrapped_datasets import tokens_of

    where = {token: index for index, token in enumerate(tokens_of(dataset))}
    absent = [token for token in tokens if token not in where]
    if absent:
        raise ValueError(f"--tokens: {', '.join(absent)}: not among the {len(where)} scenes of this data set")
    return [where[token] for token in tokens]


def browse(args: argparse.Namespace) -> int:
    """Draw the pictures."""
    from beyonddrive.engine.configs import ConfigError, load_config
    from beyonddrive.registry import DATASETS
    from beyonddrive.structures.errors import BeyondDriveError
    from beyonddrive.visualization.panel import save_png
    from beyonddrive.visualization.sample_pictures import draw_sample

    config = load_config(args.config, args.cfg_options)
    loader = config.get(f"{args.loader}_dataloader")
    if loader is None:
        raise ConfigError(f"{args.config}: has no {args.loader}_dataloader to look at")
    dataset = DATASETS.build(loader.dataset)
    cell = setting_of(loader.dataset, "BEVMapTarget", "pixel_size")
    extent = setting_of(loader.dataset, "LoadLidarHistogram", "extent")
    indices = chosen(dataset, args.tokens, args.num)
    failed = 0
    for index in indices:
        try:
            packed = dataset[index]
        except BeyondDriveError as error:
            tell("browse", str(error))
            failed += 1
            continue
        sample = packed["data_samples"]
        picture = draw_sample(packed["inputs"], sample, cell, extent)
        save_png(args.out / f"{sample.metainfo.get('token', index)}.png", picture)
    print(f"{args.out}: {len(indices) - failed} pictures of {len(dataset)} samples")
    return int(failed > 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Draw samples; the exit code is 1 if something is refused or cannot be drawn."""
    args = parse_args(argv)
    return run_command("browse", lambda: browse(args))


if __name__ == "__main__":
    sys.exit(main())
