"""Which windows of a log are scenes: the filter that NAVSIM's split files define."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from beyonddrive.datasets.navsim.logs import Frame
from beyonddrive.datasets.navsim.scene import FUTURE, HISTORY
from beyonddrive.structures.digests import digest_of_lines
from beyonddrive.structures.errors import BeyondDriveError


class SceneFilterError(BeyondDriveError, ValueError):
    """A scene filter has a key or value that is not understood."""


@dataclass
class SceneFilter:
    """Cut logs into scenes (NAVSIM_FORMAT, section 2).

    Attributes:
        num_history_frames: Frames up to and including now; only ``HISTORY`` is supported.
        num_future_frames: Frames after now.
        frame_interval: A window starts every so many frames; None means windows that do not overlap.
        has_route: Leave out windows whose current frame has no route.
        max_scenes: Stop after so many scenes.
        log_names: Only these logs.
        tokens: Only windows whose current frame has one of these tokens.

    >>> SceneFilter().interval
    14
    >>> SceneFilter(frame_interval=1).window_starts(16)
    range(0, 3)
    """

    num_history_frames: int = HISTORY
    num_future_frames: int = FUTURE
    frame_interval: int | None = None
    has_route: bool = True
    max_scenes: int | None = None
    log_names: Sequence[str] | None = None
    tokens: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.num_history_frames != HISTORY:
            raise SceneFilterError(
                f"num_history_frames: only {HISTORY} is supported, got {self.num_history_frames!r}"
            )
        for name, least in (("num_future_frames", 0), ("frame_interval", 1), ("max_scenes", 1)):
            value = getattr(self, name)
            if value is None and name != "num_future_frames":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise SceneFilterError(f"{name}: must be a whole number >= {least}, got {value!r}")
        if not isinstance(self.has_route, bool):
            raise SceneFilterError(f"has_route: must be true or false, got {self.has_route!r}")
        for name in ("log_names", "tokens"):
            values = getattr(self, name)
            if values is None:
                continue
            is_list = isinstance(values, Collection) and not isinstance(values, str)
            if not is_list or not all(isinstance(value, str) for value in values):
                raise SceneFilterError(
                    f"{name}: must be a list of strings (put quotes around all-digit tokens)"
                )
            setattr(self, name, tuple(values))

    @property
    def num_frames(self) -> int:
        """Frames in a window."""
        return self.num_history_frames + self.num_future_frames

    @property
    def interval(self) -> int:
        """Frames from the start of one window to the start of the next."""
        return self.frame_interval or self.num_frames

    def without_future(self) -> SceneFilter:
        """The filter for who only looks back: windows start where they did and end now.

        >>> SceneFilter().without_future().window_starts(18)
        range(0, 15, 14)
        """
        return replace(self, num_future_frames=0, frame_interval=self.interval)

    def window_starts(self, num_frames: int) -> range:
        """First frames of all whole windows in a log of ``num_frames`` frames."""
        return range(0, max(num_frames - self.num_frames + 1, 0), self.interval)

    def keeps(self, now: Frame, tokens: frozenset[str] | None = None) -> bool:
        """Whether the window with this current frame is a scene.

        Args:
            now: The current frame of a window.
            tokens: ``frozenset(self.tokens)``, made once by a caller who asks often.
        """
        if self.has_route and len(now["roadblock_ids"]) == 0:
            return False
        wanted = self.tokens if tokens is None else tokens
        return wanted is None or now["token"] in wanted

    def to_dict(self) -> dict[str, Any]:
        """The filter as plain values, as :meth:`from_dict` reads them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def describe(self) -> dict[str, Any]:
        """The filter as values fit for a manifest: long lists by count and digest.

        >>> SceneFilter(tokens=["a"]).describe()["tokens"]
        '1 with digest 40f89e395b66422f'
        """
        values = self.to_dict()
        for key in ("log_names", "tokens"):
            if values[key] is not None:
                values[key] = f"{len(values[key])} with digest {digest_of_lines(values[key])}"
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SceneFilter:
        """Build a filter from a mapping; keys with a leading underscore (hydra's) are passed over.

        So are keys of other versions of NAVSIM that are switched off (null or false).

        Raises:
            SceneFilterError: If a key or a value is not understood.

        >>> SceneFilter.from_dict({'_target_': 'x', 'frame_interval': 1}).frame_interval
        1
        """
        known = {field.name for field in fields(cls)}
        given = {
            str(key): value
            for key, value in values.items()
            if str(key) in known or not (str(key).startswith("_") or value is None or value is False)
        }
        if unknown := set(given) - known:
            raise SceneFilterError(f"unknown keys {sorted(unknown)}; a scene filter has {sorted(known)}")
        return cls(**given)

    @classmethod
    def from_config(cls, value: Mapping[str, Any] | str | Path | None) -> SceneFilter:
        """Build a filter from what a config has: a mapping, the path of a yaml file, or nothing.

        A mapping with a key ``path`` is that file with the other keys changed.

        Raises:
            SceneFilterError: As :meth:`from_yaml`.

        >>> SceneFilter.from_config(dict(max_scenes=5)).max_scenes
        5
        """
        if isinstance(value, (str, Path)):
            return cls.from_yaml(Path(value))
        given = dict(value or {})
        path = given.pop("path", None)
        if path is None:
            return cls.from_dict(given)
        return cls.from_dict({**cls.from_yaml(Path(path)).to_dict(), **given})

    @classmethod
    def from_yaml(cls, path: Path) -> SceneFilter:
        """Read a split file of NAVSIM, such as ``navtrain.yaml``.

        Raises:
            SceneFilterError: If the file is missing, cannot be read or is not yaml, or a key is not
                understood; names the file.
        """
        path = Path(path)
        # The C loader reads the 100,000 tokens of a real split in seconds, the other one in minutes.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            values = yaml.load(path.read_text(), Loader=loader)
        except FileNotFoundError:
            raise SceneFilterError(
                f"{path}: there is no such scene filter; say where the data are (--cfg-options "
                f"data_root=...), or make them: beyonddrive create-data makes a generated world, beyonddrive "
                f"split-scene-filter cuts navtrain (docs/data.md)"
            ) from None
        except OSError as error:  # such as a folder
            raise SceneFilterError(f"{path}: cannot be read as a scene filter ({error.strerror})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise SceneFilterError(f"{path}: not a yaml file ({error})") from error
        if not isinstance(values, dict):
            raise SceneFilterError(f"{path}: a scene filter is a mapping of keys to values")
        try:
            return cls.from_dict(values)
        except SceneFilterError as error:
            raise SceneFilterError(f"{path}: {error}") from None
