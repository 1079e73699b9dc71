"""A split of two stages: which original scenes, which follow-up scenes, and their pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.datasets.navsim.scene_filter import SceneFilter
from beyonddrive.structures.errors import BeyondDriveError

NUM_FUTURE_FRAMES = 8
"""Frames after now of the windows of original scenes (EPDMS_TWO_STAGE, section 0)."""
FIRST, SECOND, PAIRS = "tokens", "reactive_synthetic_initial_tokens", "reactive_all_mapping"


class TwoStageSplitError(BeyondDriveError, ValueError):
    """A file of a two-stage split is missing or lacks something; the message names file and key."""


@dataclass(frozen=True)
class TwoStageSplit:
    """A split of two stages (EPDMS_TWO_STAGE, section 1.1).

    Attributes:
        path: The file it was read from.
        first: Tokens of original scenes.
        second: Tokens of follow-up scenes.
        pairs: The table ``[[now, previous, [[now2, previous2], ...]], ...]``, as it is in the file; None if
            it has none.
        data_split: Split whose logs hold the original scenes; empty if the file does not say.
        log_names: Logs that scenes may be of; None for all.
    """

    path: Path
    first: tuple[str, ...]
    second: tuple[str, ...]
    pairs: Any = field(repr=False)
    data_split: str = ""
    log_names: tuple[str, ...] | None = None

    @property
    def scene_filter(self) -> SceneFilter:
        """The windows of the original scenes."""
        return SceneFilter(
            num_future_frames=NUM_FUTURE_FRAMES,
            frame_interval=1,
            log_names=self.log_names,
            tokens=self.first,
        )

    @classmethod
    def read(cls, path: Path, with_pairs: bool = True) -> TwoStageSplit:
        """Read a split: one yaml or JSON file with all keys, or NAVSIM's two.

        Args:
            path: ``train_test_split/<name>.yaml`` of NAVSIM; its ``scene_filter/<name>.yaml`` is looked for
                beside it and beside its folder.
            with_pairs: Whether there must be a table of pairs; that of the private test is not public.

        Raises:
            TwoStageSplitError: If a file or key is missing, or a list holds something else than texts.
        """
        path = Path(path)
        values = _read(path)
        if FIRST not in values:
            places = [folder / "scene_filter" / path.name for folder in (path.parent, path.parent.parent)]
            found = next((place for place in places if place.is_file()), None)
            if found is None:
                raise TwoStageSplitError(
                    f"{path}: has no {FIRST}, and there is no {places[0]}; put NAVSIM's scene filter of "
                    f"the same name there"
                )
            values = {**_read(found), **values}
        if with_pairs and PAIRS not in values:
            raise TwoStageSplitError(
                f"{path}: has no {PAIRS}, the table of pairs; give NAVSIM's train_test_split/{path.name}, "
                f"which has it"
            )
        logs = values.get("log_names")
        return cls(
            path,
            _texts(path, FIRST, values[FIRST]),
            _texts(path, SECOND, values.get(SECOND)),
            values.get(PAIRS),
            str(values.get("data_split") or ""),
            None if logs is None else _texts(path, "log_names", logs),
        )


def _read(path: Path) -> Mapping[str, Any]:
    # JSON is yaml; the C loader reads the 6,000 tokens of navhard in a fraction of a second.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(path.read_text(), Loader=loader)
    except FileNotFoundError:
        raise TwoStageSplitError(
            f"{path}: there is no such split file; give NAVSIM's train_test_split/<name>.yaml"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise TwoStageSplitError(f"{path}: is no yaml or JSON file ({error})") from error
    if not isinstance(values, dict):
        raise TwoStageSplitError(f"{path}: a split is a mapping of keys to values")
    return values


def _texts(path: Path, key: str, values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TwoStageSplitError(f"{path}: {key}: expected a list of texts")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise TwoStageSplitError(f"{path}: {key}: {twice} is there twice")
    return tuple(values)
