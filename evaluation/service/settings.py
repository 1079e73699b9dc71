"""How many scorers there are, and how much they may hold."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class ServiceSettings:
    """How a service runs; none of it changes a score.

    Attributes:
        num_workers: Worker processes, or Ray actors. A scene belongs to one of them, by its token, so that no
            metric cache is held twice.
        max_pending: Scenes that wait or are being scored at a time, at most 128 for each worker, which
            share them equally: who hands in more than its share to one of them waits.
        max_plans: Most plans of a scene. It sizes the memory that is shared with processes; on Ray there is
            none, and it is but a limit.
        cache_bytes: Memory for metric caches that have been read, of all workers together; those that were
            not used for longest go first. One takes about 1 MB.
        niceness: By how much the workers give way to the training where there are fewer cores than threads.
            As nice as by default they work in the gaps that a step leaves; less nice is better where others
            keep all cores of the machine busy. Ray's workers have a niceness of their own (15, if
            ``RAY_worker_niceness`` does not say otherwise), and become only nicer by it.
        on_ray: Workers are Ray actors instead of processes of this machine; needs the extra ``ray``.
        ray_address: Address of the cluster; None takes the one this process is in, or starts one here.

    Raises:
        ValueError: If a number is out of range.
    """

    num_workers: int = 1
    max_pending: int = 64
    max_plans: int = 256
    cache_bytes: int = 2**30
    niceness: int = 15
    on_ray: bool = False
    ray_address: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_workers", "max_pending", "max_plans"):
            if getattr(self, name) < 1:
                raise ValueError(f"scoring service: {name} must be at least 1, got {getattr(self, name)}")
        if self.max_pending < self.num_workers:
            raise ValueError(
                f"scoring service: max_pending is {self.max_pending}, and {self.num_workers} workers want at "
                f"least a scene each"
            )
        if self.max_pending > self.num_workers * _MAX_DEPTH:
            raise ValueError(
                f"scoring service: max_pending is {self.max_pending}, and {self.num_workers} workers take at "
                f"most {self.num_workers * _MAX_DEPTH}, {_MAX_DEPTH} each"
            )
        if self.cache_bytes < 0 or not 0 <= self.niceness <= 19:
            raise ValueError(
                f"scoring service: cache_bytes must not be negative and niceness within 0 .. 19, got "
                f"{self.cache_bytes} and {self.niceness}"
            )

    @property
    def depth(self) -> int:
        """Scenes that one worker may have before it."""
        return self.max_pending // self.num_workers

    def shared_by(self, ranks: int) -> ServiceSettings:
        """What each of so many ranks of a machine gets of this.

        >>> ServiceSettings(num_workers=4, cache_bytes=8).shared_by(2).num_workers
        2
        """
        workers = max(self.num_workers // ranks, 1)
        pending = min(max(self.max_pending // ranks, workers), workers * _MAX_DEPTH)
        return replace(self, num_workers=workers, max_pending=pending, cache_bytes=self.cache_bytes // ranks)


_MAX_DEPTH = 128
"""So many messages fit into a socket, so that neither side of it ever waits for the other to read."""

NAMES = tuple(field.name for field in fields(ServiceSettings))
