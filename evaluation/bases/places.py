"""Where the data of two stages are: the table of pairs and the follow-up scenes, given or found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from beyonddrive.datasets.navsim.two_stage_split import TwoStageSplit, TwoStageSplitError

SCENES = "synthetic_scene_pickles"
"""Folder of follow-up scenes, as the download calls it."""
SPLIT_FILES = ("*two_stage*.json", "*two_stage*.yaml", "*/*two_stage*.yaml", "*/*two_stage*/*two_stage*.yaml")
"""Where split files are looked for, below the data root."""


@dataclass(frozen=True, eq=False)
class TwoStageData:
    """Where the scenes of both stages are.

    Attributes:
        split: Which scenes, and their pairs.
        data_root: Folder of logs and maps.
        scenes_dir: Folder of the follow-up scenes.
        maps_root: Folder of the maps; ``data_root/maps`` if None.
        data_split: Split of the logs; that of the split file if empty.
    """

    split: TwoStageSplit
    data_root: Path
    scenes_dir: Path
    maps_root: Path | None = None
    data_split: str = ""

    @property
    def logs(self) -> str:
        """Split of the logs."""
        return self.data_split or self.split.data_split


def find_two_stages(
    data_root: Path,
    split: str,
    split_file: Path | None = None,
    scenes_dir: Path | None = None,
    maps_root: Path | None = None,
) -> TwoStageData | str:
    """The data of two stages of a split, or in one line why there are none.

    A split file is looked for in the data root and the folders in it, such as ``train_test_split`` and
    ``scene_filters``: one whose name has ``two_stage`` in it and whose ``data_split`` (or name) is the split.
    Follow-up scenes are looked for in ``<name of the split file>/synthetic_scene_pickles``, then in the same
    folder of the split, then in ``synthetic_scene_pickles`` itself.

    Args:
        data_root: Folder of logs and maps.
        split: Split of the logs, or name of the two-stage split.
        split_file: The table of pairs, if it is not to be looked for.
        scenes_dir: Folder of the follow-up scenes, likewise.
        maps_root: Folder of the maps.

    Raises:
        TwoStageSplitError: If the file that is given, or the only one there is, cannot be read, or several
            fit.
    """
    data_root = Path(data_root)
    if split_file is None:
        found = [
            path for pattern in SPLIT_FILES for path in sorted(data_root.glob(pattern)) if path.is_file()
        ]
        # (NAVSIM's scene filters have the name of their split file and are read with it)
        splits = {path: TwoStageSplit.read(path) for path in dict.fromkeys(found) if _has_pairs(path)}
        fitting = [path for path, read in splits.items() if split in (read.data_split, path.stem)]
        if not fitting:
            return (
                f"there is no table of pairs of split {split} in {data_root} (a *two_stage*.yaml or .json); "
                f"give --two-stage NAVSIM's train_test_split/<name>.yaml"
            )
        if len(fitting) > 1:
            raise TwoStageSplitError(
                f"{', '.join(map(str, fitting))}: all are of split {split}; say which: --two-stage FILE"
            )
        split_file = fitting[0]
    table = TwoStageSplit.read(split_file)
    if scenes_dir is None:
        places = [data_root / name / SCENES for name in (split_file.stem, split)] + [data_root / SCENES]
        scenes_dir = next((place for place in places if place.is_dir()), None)
        if scenes_dir is None:
            return (
                f"there are no follow-up scenes for {split_file}: no folder {', '.join(map(str, places))}; "
                f"download them, or give --synthetic-scenes DIR"
            )
    logs = split if (data_root / "navsim_logs" / split).is_dir() else table.data_split
    return TwoStageData(table, data_root, Path(scenes_dir), maps_root, logs)


def _has_pairs(path: Path) -> bool:
    """Whether a file is a table of pairs, and not a scene filter of the same name; reads no yaml for it."""
    try:
        return "reactive_all_mapping" in path.read_text(errors="replace")
    except OSError:
        return False
