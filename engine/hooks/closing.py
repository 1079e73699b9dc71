"""What hooks are that hold processes beside a training: they are closed however it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod

from mmengine.hooks import Hook
from mmengine.runner import Runner


class ClosingHook(Hook, ABC):
    """A hook that holds something from the start of a training to its end, such as worker processes.

    A training that raises calls no hook any more. In a process that goes on, such as a notebook, what a hook
    holds would then live as long as the runner; so :meth:`PlannerRunner.train` closes these hooks.
    """

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; calling it again changes nothing."""

    def after_train(self, runner: Runner) -> None:
        """Give back what is held."""
        self.close()
