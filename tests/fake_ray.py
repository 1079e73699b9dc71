"""As much of Ray as a scoring service asks for, in this process, where Ray is not installed."""

from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass(eq=False)
class Reference:
    """What an actor has answered."""

    answer: Any


class Actor:
    """Answers at once."""

    def __init__(self, own):
        self.own = own

    def __getattr__(self, name):
        method = getattr(self.own, name)
        return SimpleNamespace(remote=lambda *arguments: Reference(method(*arguments)))


class FakeRay(ModuleType):
    """A module ``ray``.

    Attributes:
        entered: What ``init`` was called with, each time.
        actors: Actors that live.
        started: How many were started.
    """

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self):
        super().__init__("ray")
        self.entered, self.actors, self.started, self._is_here = [], [], 0, False

    def is_initialized(self):
        return self._is_here

    def init(self, **settings):
        if self._is_here:
            raise RuntimeError("Maybe you called ray.init twice by accident?")
        if settings.get("address") == "nowhere:1":
            raise ConnectionError("no cluster at nowhere:1")
        self.entered.append(settings)
        self._is_here = True

    def shutdown(self):
        self.actors, self._is_here = [], False

    def remote(self, kind):
        def start(*arguments):
            assert self._is_here
            self.started += 1
            self.actors.append(Actor(kind(*arguments)))
            return self.actors[-1]

        return SimpleNamespace(options=lambda num_cpus: SimpleNamespace(remote=start))

    def kill(self, actor):
        self.actors.remove(actor)

    def wait(self, references, num_returns, timeout):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        return reference.answer
