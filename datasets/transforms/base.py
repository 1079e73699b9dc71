"""What a transform is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from beyonddrive.datasets.stores.sources import DataPlace

Results = dict[str, Any]
"""What is known about a scene so far, by name; transforms add to it."""


class BaseTransform(ABC):
    """Reads some keys of a results dict and adds others.

    Transforms of a feature pipeline find ``scene`` (:class:`scene.Scene`) and ``root``
    (:class:`~beyonddrive.datasets.navsim.root.NavsimRoot`) in it, and must give the same arrays whenever they
    are given the same scene, because what they make is cached.

    Attributes:
        version: Raised whenever the same settings and scene give other arrays than before, so that caches of
            what it gave then are refused.
    """

    version: ClassVar[int] = 1

    def check_sources(self, place: DataPlace) -> None:  # noqa: B027 - most transforms read no store
        """Refuse a store that this transform reads and that was made from other logs or maps.

        Args:
            place: Where logs and maps of the data set are.

        Raises:
            StoreError: With what differs, and the command that makes the store anew.
        """

    @abstractmethod
    def transform(self, results: Results) -> Results:
        """Add to ``results`` and return it."""

    def __call__(self, results: Results) -> Results:
        """Run :meth:`transform`."""
        return self.transform(results)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key.lstrip('_')}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({settings})"
