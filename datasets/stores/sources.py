"""Sources of stores: logs, maps and sensor files that records are of, known by content wherever they lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from beyonddrive.datasets.maps.nuplan_map import VERSIONS_FILE
from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.stores.fingerprints import Fingerprint, Sources, fingerprint, is_unchanged

_LOGS, _MAPS, _SENSORS = "logs/", "maps/", "sensors/"


class DataPlace(NamedTuple):
    """Where the files of a split lie on this machine; a source is named by its place below these folders.

    Attributes:
        logs: Folder of the logs of the split.
        maps: Folder of the maps.
        sensors: Folder of the sensor files of the split.
    """

    logs: Path
    maps: Path
    sensors: Path

    @classmethod
    def of(cls, root: NavsimRoot, split: str) -> DataPlace:
        """The place of a split of a data root."""
        return cls(root.root / "navsim_logs" / split, root.maps_root, root.sensor_root(split))

    def path(self, name: str) -> Path:
        """File of a source.

        >>> DataPlace(Path("a"), Path("b"), Path("c")).path("logs/one.pkl").as_posix()
        'a/one.pkl'
        """
        folder, _, rest = name.partition("/")
        return {_LOGS: self.logs, _SENSORS: self.sensors}.get(f"{folder}/", self.maps) / rest

    def log_name(self, path: Path) -> str:
        """Name of a log as a source."""
        return _LOGS + path.name

    def of_log(self, path: Path) -> dict[str, Fingerprint]:
        """A log as a source.

        Raises:
            OSError: If it cannot be read.
        """
        return {self.log_name(path): fingerprint(path)}

    def of_maps(self, paths: Iterable[Path]) -> dict[str, Fingerprint]:
        """Maps as sources, with the file that says which version of each counts; nothing of no maps.

        Raises:
            OSError: If one cannot be read.
        """
        files = sorted(paths)
        if files:
            files.append(self.maps / VERSIONS_FILE)
        return {_MAPS + path.relative_to(self.maps).as_posix(): fingerprint(path) for path in files}

    def of_sensors(self, paths: Iterable[Path]) -> dict[str, Fingerprint]:
        """Sensor files as sources; those that are not of the split are passed over.

        Raises:
            OSError: If one cannot be read.
        """
        files = [path for path in sorted(paths) if path.is_relative_to(self.sensors)]
        return {_SENSORS + path.relative_to(self.sensors).as_posix(): fingerprint(path) for path in files}

    def changed(self, sources: Sources, absent: bool = False) -> list[str]:
        """Names of the sources that are not what they were.

        Args:
            sources: What is known of them.
            absent: Whether a log or map that is not on this machine counts as changed. Sensor files never do:
                without them nothing could be made again.
        """
        return [
            name
            for name, known in sources.items()
            if ((absent and not name.startswith(_SENSORS)) or self.path(name).exists())
            and not is_unchanged(self.path(name), known)
        ]


class CachedPlace(NamedTuple):
    """The same question where the files are not on this machine: what a cache knows of them.

    Attributes:
        known: Sources that the cache was made from.
    """

    known: Sources

    def changed(self, sources: Sources, absent: bool = False) -> list[str]:
        """Names of the sources that were others when the cache was made.

        Args:
            sources: What is known of them.
            absent: Whether one that the cache does not know counts as changed.

        >>> old, new = Fingerprint(1, 0, "a"), Fingerprint(1, 0, "b")
        >>> CachedPlace({"logs/1": old, "logs/2": old}).changed({"logs/1": new, "logs/2": old, "logs/3": old})
        ['logs/1']
        """
        return [
            name
            for name, one in sources.items()
            if (absent if name not in self.known else self.known[name].digest != one.digest)
        ]


def only_logs(sources: Sources) -> dict[str, Fingerprint]:
    """Those of the sources that are logs."""
    return {name: known for name, known in sources.items() if name.startswith(_LOGS)}


def only_maps(sources: Sources) -> dict[str, Fingerprint]:
    """Those of the sources that are maps."""
    return {name: known for name, known in sources.items() if name.startswith(_MAPS)}
