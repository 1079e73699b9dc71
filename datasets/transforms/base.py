"""What a transform is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

Results = dict[str, Any]
"""What is known about a scene so far, by name; transforms add to it."""


class BaseTransform(ABC):
    """Reads some keys of a results dict and adds others.

    Transforms of a feature pipeline find ``scene`` (:class:`scene.Scene`) and ``root``
    (:class:`~beyonddrive.datasets.navsim.root.NavsimRoot`) in it, and must give the same arrays whenever they
    are given the same scene, because what they make is cached.
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
