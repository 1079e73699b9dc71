"""What a transform is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.frame import Frame
from beyonddrive.structures.geometry import Limits

if TYPE_CHECKING:
    from beyonddrive.datasets.stores.shard_store import StoreReader
    from beyonddrive.datasets.stores.sources import CachedPlace, DataPlace

Results = dict[str, Any]
"""What is known about a scene so far, by name; transforms add to it."""

VIEW_POSE = "view_pose"
"""Name of the pose (3,) that a sample is seen from, x, y [m], heading [rad] in the frame of the scene; it is
there only if ``ViewAugmentation`` has moved the view."""
HIDDEN = "hidden_status"
"""Name of the parts of the status that ``HideStatus`` has set to zero; there only if it has."""


class ObserveError(BeyondDriveError, TypeError):
    """An input of a planner cannot be made from a simulator's frame."""


class BaseTransform(ABC):
    """Reads some keys of a results dict and adds others.

    Transforms of a feature pipeline find ``scene`` (:class:`scene.Scene`) and ``root``
    (:class:`~beyonddrive.datasets.navsim.root.NavsimRoot`) in it, and must give the same arrays whenever they
    are given the same scene, because what they make is cached. What they leave in it beside these two is
    numbers, arrays or tensors; anything else is refused.

    Attributes:
        version: Raised whenever the same settings and scene give other arrays than before, so that caches of
            what it gave then are refused.
        num_history_frames: How many earlier frames, half a second apart, :meth:`observe` looks at.
    """

    version: ClassVar[int] = 1
    num_history_frames: ClassVar[int] = 0

    @property
    def geometry(self) -> Mapping[str, float]:
        """Lengths of what this transform makes, see :mod:`beyonddrive.structures.geometry`."""
        return {}

    @property
    def geometry_taken(self) -> Limits:
        """Lengths that it takes for granted of what earlier transforms have made."""
        return {}

    def check_sources(self, place: DataPlace | CachedPlace) -> None:  # noqa: B027 - most transforms read no store
        """Refuse a store that this transform reads and that was made from other logs or maps.

        Args:
            place: Where logs and maps of the data set are; if they are not on this machine, what its feature
                cache knows of them. Its method ``changed`` tells what differs.

        Raises:
            StoreError: With what differs, and the command that makes the store anew.
        """

    def store_read(self) -> StoreReader | None:
        """The store that this transform reads; None if it reads none.

        Raises:
            StoreError: If there is no such store, or it does not fit.
        """
        return None

    @abstractmethod
    def transform(self, results: Results) -> Results:
        """Add to ``results`` and return it."""

    def observe(self, frame: Frame, results: Results) -> Results:
        """Add to ``results`` what :meth:`transform` adds, from a simulator's frame in place of a scene.

        Args:
            frame: With ``num_history_frames`` earlier ones in ``history``.
            results: ``token``, ``log_name``, and ``strip_rig``
                (:class:`~beyonddrive.datasets.transforms.strip_rig.StripRig`), how cameras become a strip.

        Raises:
            ObserveError: If this transform cannot.
        """
        raise ObserveError(
            f"{type(self).__name__}: does not say how to make its input from a simulator's frame: give it a "
            f"method observe(frame, results), or is_target = True if no planner reads it"
        )

    def __call__(self, results: Results) -> Results:
        """Run :meth:`transform`."""
        return self.transform(results)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key.lstrip('_')}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({settings})"
