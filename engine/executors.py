"""Executors: one ``map`` over independent items, in this process, in many, or on a Ray cluster.

Every executor gives the results in the order of the items and the same results, so a job is written once.
An exception raised by the function ends the map; functions that should survive a bad item return it.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(Protocol):
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
            initializer: Run once in every worker before its first item.
            initargs: Arguments of ``initializer``.
        """
        ...


def _progress(results: Iterator[Result], total: int, desc: str) -> Iterator[Result]:
    if not desc:
        yield from results
        return
    yield from tqdm(results, total=total, desc=desc, dynamic_ncols=True, mininterval=0.5)


class SerialExecutor:
    """Runs in this process.

    >>> list(SerialExecutor().map(abs, [-1, -2]))
    [1, 2]
    """

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        desc: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> Iterator[Result]:
        """See :class:`Executor`."""
        if initializer is not None:
            initializer(*initargs)
        yield from _progress(map(function, items), len(items), desc)


def end_with_parent() -> None:
    """Make this worker process end when its parent does, even if the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start_worker(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer is not None:
        initializer(*initargs)


class ProcessExecutor:
    """Runs in ``num_workers`` processes of this machine.

    Workers are started afresh (``spawn``): a fork would copy the threads' locks of numerical libraries in
    whatever state they are. At most a few items per worker are in flight, so that memory stays flat.

    Args:
        num_workers: Processes.

    Raises:
        ValueError: If ``num_workers`` is not positive.
    """

    def __init__(self, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(f"ProcessExecutor: num_workers must be at least 1, got {num_workers}")
        self.num_workers = num_workers

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        desc: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> Iterator[Result]:
        """See :class:`Executor`."""
        yield from _progress(self._map(function, items, initializer, initargs), len(items), desc)

    def _map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        initializer: Callable[..., None] | None,
        initargs: tuple[Any, ...],
    ) -> Iterator[Result]:
        pool = ProcessPoolExecutor(
            max_workers=min(self.num_workers, max(len(items), 1)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(initializer, initargs),
        )
        window = 4 * self.num_workers
        futures: list[Future[Result]] = []
        try:
            for item in items[:window]:
                futures.append(pool.submit(function, item))
            for position in range(len(items)):
                result = futures.pop(0).result()
                if position + window < len(items):
                    futures.append(pool.submit(function, items[position + window]))
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class RayExecutor:
    """Runs on a Ray cluster; needs the extra ``ray``.

    Args:
        address: Address of the cluster; ``None`` starts one on this machine.
        num_workers: Tasks in flight at once; ``None`` asks the cluster for its cores.

    Raises:
        ImportError: If Ray is not installed.
    """

    def __init__(self, address: str | None = None, num_workers: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("RayExecutor needs Ray: pip install 'beyonddrive[ray]'") from error
        if not ray.is_initialized():
            ray.init(address=address, num_cpus=num_workers if address is None else None, log_to_driver=False)
        self._ray = ray
        self.num_workers = num_workers or int(ray.cluster_resources().get("CPU", 1))

    def map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        desc: str = "",
        initializer: Callable[..., None] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> Iterator[Result]:
        """See :class:`Executor`."""
        yield from _progress(self._map(function, items, initializer, initargs), len(items), desc)

    def _map(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        initializer: Callable[..., None] | None,
        initargs: tuple[Any, ...],
    ) -> Iterator[Result]:
        ray = self._ray

        class Worker:
            def __init__(self) -> None:
                if initializer is not None:
                    initializer(*initargs)

            def run(self, item: Item) -> Result:
                return function(item)

        remote_worker = ray.remote(Worker)
        workers = [remote_worker.remote() for _ in range(min(self.num_workers, max(len(items), 1)))]
        window = 4 * len(workers)
        tasks = [workers[i % len(workers)].run.remote(item) for i, item in enumerate(items[:window])]
        try:
            for position in range(len(items)):
                result = ray.get(tasks.pop(0))
                if position + window < len(items):
                    worker = workers[(position + window) % len(workers)]
                    tasks.append(worker.run.remote(items[position + window]))
                yield result
        finally:
            for worker in workers:
                ray.kill(worker)


def make_executor(num_workers: int) -> Executor:
    """Return the executor for a machine: this process for 0 or 1 workers, else that many processes.

    >>> type(make_executor(0)).__name__
    'SerialExecutor'
    """
    return ProcessExecutor(num_workers) if num_workers > 1 else SerialExecutor()
