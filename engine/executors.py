"""Executors: one ``map`` over independent items, in this process, in many, or on a Ray cluster.

Every executor gives the results in the order of the items and the same results, so a job is written once.
An exception raised by the function ends the map; functions that should survive a bad item return it.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from tqdm import tqdm

from beyonddrive.structures.errors import BeyondDriveError

Item = TypeVar("Item")
Result = TypeVar("Result")


WINDOW = 4
"""Items per worker that are in flight: enough to keep all busy, few enough to keep memory flat."""


class WorkerLostError(BeyondDriveError, RuntimeError):
    """A worker process was killed."""


@dataclass(frozen=True)
class _Call(Generic[Item, Result]):
    """What workers are to run, and what first, once."""

    function: Callable[[Item], Result]
    initializer: Callable[..., None] | None
    initargs: tuple[Any, ...]

    def start(self) -> None:
        if self.initializer is not None:
            self.initializer(*self.initargs)


class Executor(ABC):
    """What a job needs of an executor."""

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        desc: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> Iterator[Result]:
        """Yield ``function(item)`` for each item, in order, with a bar of progress, rate and time left.

        Args:
            function: A function of a module, so that other processes can import it.
            items: Independent items; one item should be worth at least some milliseconds.
            desc: What the progress bar says; empty for no bar.
            initializer: Run once in every worker before its first item; what it raises ends the map, too.
            initargs: Arguments of ``initializer``.

        Raises:
            WorkerLostError: If a worker process was killed.
        """
        results = self._results(_Call(function, initializer, initargs), items)
        if desc:
            results = tqdm(results, total=len(items), desc=desc, dynamic_ncols=True, mininterval=0.5)
        yield from results

    @abstractmethod
    def _results(self, call: _Call[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        """As :meth:`map`, without a bar."""


class SerialExecutor(Executor):
    """Runs in this process.

    >>> list(SerialExecutor().map(abs, [-1, -2]))
    [1, 2]
    """

    def _results(self, call: _Call[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        call.start()
        return map(call.function, items)


class _Workers(NamedTuple):
    """Workers that have been started: how to hand them an item, and how to wait for what became of it."""

    submit: Callable[[Any], Any]
    result: Callable[[Any], Any]


class _WindowExecutor(Executor):
    """Runs in workers, with a few items per worker in flight.

    Args:
        num_workers: Workers.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers

    @abstractmethod
    def _workers(self, count: int, call: _Call[Item, Result]) -> AbstractContextManager[_Workers]:
        """Start ``count`` workers, and end them on the way out."""

    def _results(self, call: _Call[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        count = min(self.num_workers, len(items))
        if count == 0:
            return
        window = WINDOW * count
        with self._workers(count, call) as workers:
            pending = deque(workers.submit(item) for item in items[:window])
            for position in range(len(items)):
                result = workers.result(pending.popleft())
                if position + window < len(items):
                    pending.append(workers.submit(items[position + window]))
                yield result


def end_with_parent() -> None:
    """Make this worker process end when its parent does, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def end_command_with_parent() -> None:
    """Ask the kernel to end this process with its parent, even if the parent is killed.

    For ``preexec_fn`` of a command that is started, which knows nothing of who started it.
    """
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


_start_errors: list[Exception] = []
"""Why this worker process could not start; each of its items says so."""


def _start_worker(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer is not None:
        try:
            initializer(*initargs)
        except Exception as error:  # (left to itself, it would end the process, and nobody would learn why)
            _start_errors.append(error)


def _run(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    if _start_errors:
        raise _start_errors[0]
    return function(*args, **kwargs)


class _Pool(ProcessPoolExecutor):
    """A pool that hands on what the initializer has raised."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        return super().submit(_run, fn, *args, **kwargs)


@contextmanager
def worker_processes(
    num_workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with the block, or with their parent if that is killed.

    What ``initializer`` raises in one of them, each of its items raises. They are started afresh (``spawn``):
    a fork would copy the locks of the threads of numerical libraries in whatever state they are.

    Raises:
        WorkerLostError: If one of them was killed.
    """
    context = multiprocessing.get_context("spawn")
    pool = _Pool(num_workers, context, _start_worker, (initializer, initargs))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process was killed, most likely for lack of memory; run the same command again, with "
            "fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class ProcessExecutor(_WindowExecutor):
    """Runs in processes of this machine.

    Args:
        num_workers: Processes.

    Raises:
        ValueError: If ``num_workers`` is not positive.
    """

    def __init__(self, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(f"ProcessExecutor: num_workers must be at least 1, got {num_workers}")
        super().__init__(num_workers)

    @contextmanager
    def _workers(self, count: int, call: _Call[Item, Result]) -> Iterator[_Workers]:
        with worker_processes(count, call.start) as pool:
            yield _Workers(lambda item: pool.submit(call.function, item), Future.result)


def connected_ray(address: str | None, num_cpus: int | None, user: str) -> Any:
    """The module ``ray``, connected to a cluster.

    Args:
        address: Address of the cluster; ``None`` starts one on this machine.
        num_cpus: Cores of one that is started here; ``None`` for all.
        user: Who needs it.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at that address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"{user} needs Ray: pip install 'beyonddrive[ray]'") from error
    if not ray.is_initialized():
        ray.init(address=address, num_cpus=num_cpus if address is None else None, log_to_driver=False)
    return ray


class RayExecutor(_WindowExecutor):
    """Runs on a Ray cluster; needs the extra ``ray``.

    Not by ``ray.util.ActorPool``, which gives an actor its next item only when the result before it has been
    taken: in order, one slow item leaves all others idle. Here each has a few items in line.

    Args:
        address: Address of the cluster; ``None`` starts one on this machine. Its workers work in the folder
            in which this process is, where their machines have it, so that paths may be relative to it.
        num_workers: Tasks in flight at once; ``None`` asks the cluster for its cores.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, num_workers: int | None = None) -> None:
        self._ray = connected_ray(address, num_workers, type(self).__name__)
        super().__init__(num_workers or int(self._ray.cluster_resources().get("CPU", 1)))

    @contextmanager
    def _workers(self, count: int, call: _Call[Item, Result]) -> Iterator[_Workers]:
        folder = Path.cwd()

        class Worker:
            def __init__(self) -> None:
                if folder.is_dir():  # (begun by a cluster, it is where that was started)
                    os.chdir(folder)
                call.start()

            def run(self, item: Item) -> Result:
                return call.function(item)

        remote = self._ray.remote(Worker)
        workers = [remote.remote() for _ in range(count)]
        turn = itertools.cycle(workers)
        try:
            yield _Workers(lambda item: next(turn).run.remote(item), self._ray.get)
        except self._ray.exceptions.RayTaskError:
            raise  # what the function has raised
        except self._ray.exceptions.RayError as error:
            raise WorkerLostError(f"a Ray worker was lost; run the same command again ({error})") from error
        finally:
            for worker in workers:
                self._ray.kill(worker)


class RayTaskExecutor(Executor):
    """Runs every item as a Ray task of its own, wherever the cluster has free what a task asks for.

    For few long items; an item of milliseconds is better off in the workers of :class:`RayExecutor`. Tasks
    work in the folder in which this process is, so the machines share it. Needs the extra ``ray``.

    Args:
        address: Address of the cluster; ``None`` starts one on this machine.
        num_cpus: Cores that a task asks for.
        num_gpus: GPUs that it asks for; tasks with less than one share one. A task sees those that it got.
        limit: Tasks at a time; ``None`` for as many as the cluster holds.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(
        self, address: str | None = None, num_cpus: int = 1, num_gpus: float = 0, limit: int | None = None
    ) -> None:
        self._ray = connected_ray(address, None, type(self).__name__)
        self._task = self._ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_work_in)
        self.limit = limit

    def _results(self, call: _Call[Item, Result], items: Sequence[Item]) -> Iterator[Result]:
        folder = str(Path.cwd())
        handed: list[Any] = []
        at_work: list[Any] = []
        try:
            for position in range(len(items)):
                while position >= len(handed) or handed[position] in at_work:
                    while len(handed) < len(items) and len(at_work) < (self.limit or len(items)):
                        handed.append(self._task.remote(folder, call, items[len(handed)]))
                        at_work.append(handed[-1])
                    _, at_work = self._ray.wait(at_work)
                yield self._ray.get(handed[position])
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError) as error:
            raise WorkerLostError(f"a Ray task was lost; run the same command again ({error})") from error
        finally:
            # (who leaves the map early wants nothing more of it; by force, because else Ray waits until a
            # task comes back from what it waits for)
            for task in at_work:
                self._ray.cancel(task, force=True)


def _work_in(folder: str, call: _Call[Item, Result], item: Item) -> Result:
    """A task of Ray, whose processes begin in folders of their own."""
    os.chdir(folder)
    call.start()
    return call.function(item)


def make_executor(num_workers: int) -> Executor:
    """Return the executor for a machine: this process for 0 or 1 workers, else that many processes.

    >>> type(make_executor(0)).__name__
    'SerialExecutor'
    """
    return ProcessExecutor(num_workers) if num_workers > 1 else SerialExecutor()
