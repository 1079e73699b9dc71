"""Where the runs of a sweep are carried out: in processes of this machine, or as tasks on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import NamedTuple

from beyonddrive.engine.executors import Executor, RayTaskExecutor, connected_ray, make_executor
from beyonddrive.engine.sweeps.plan import SweepError
from beyonddrive.engine.sweeps.runs import Run


@dataclass(frozen=True)
class Place:
    """Where runs are carried out.

    Attributes:
        executor: What carries them out.
        threads: Threads of each.
        gpus: GPUs of this machine that runs choose from themselves; 0 where the executor hands them out.
        jobs_per_gpu: Runs that share a GPU.
        jobs: How many run at a time, for readers.
    """

    executor: Executor
    threads: int
    gpus: int
    jobs_per_gpu: int
    jobs: str

    def of(self, run: Run) -> Run:
        """A run as it is carried out here."""
        return replace(run, threads=self.threads, gpus=self.gpus, jobs_per_gpu=self.jobs_per_gpu)


def this_machine(jobs: int, gpus: int) -> Place:
    """Runs share the cores evenly, and the GPUs if there are any.

    Raises:
        SweepError: If there are fewer cores than runs at a time.
    """
    cores = len(os.sched_getaffinity(0))
    if jobs > cores:
        raise SweepError(f"--jobs {jobs}: this machine has {cores} cores for it")
    return Place(make_executor(jobs), cores // jobs, gpus, ceil(jobs / gpus) if gpus else 1, str(jobs))


class Machine(NamedTuple):
    """What a machine of a cluster has."""

    cpus: int
    gpus: int


class Demand(NamedTuple):
    """What a run asks a cluster for."""

    cpus: int
    gpus: float


def demand_of(machines: Sequence[Machine], jobs: int | None) -> Demand:
    """What every run asks for, so that ``jobs`` of them fit, as far as the machines allow it.

    With GPUs a run has one of them, or a part of one if there are more runs than GPUs, and its share of the
    cores of the machine that has fewest for each. Without, each has as many cores as let all of them find a
    place on some machine; if nobody says how many run at a time, each has one core.

    >>> demand_of([Machine(8, 0), Machine(4, 0)], 3), demand_of([Machine(6, 0), Machine(6, 0)], 3)
    (Demand(cpus=4, gpus=0), Demand(cpus=3, gpus=0))
    >>> demand_of([Machine(32, 4), Machine(64, 0)], None), demand_of([Machine(32, 4)], 8)
    (Demand(cpus=8, gpus=1), Demand(cpus=4, gpus=0.5))
    """
    gpus = sum(machine.gpus for machine in machines)
    if gpus:
        sharing = ceil((jobs or gpus) / gpus)
        cores = min(machine.cpus // machine.gpus for machine in machines if machine.gpus)
        return Demand(max(1, cores // sharing), 1 if sharing == 1 else 1 / sharing)
    if jobs is None:
        return Demand(1, 0)
    cores = sum(machine.cpus for machine in machines) // jobs
    while cores > 1 and sum(machine.cpus // cores for machine in machines) < jobs:
        cores -= 1
    return Demand(max(1, cores), 0)


def ray_cluster(address: str | None, jobs: int | None) -> Place:
    """Runs are tasks that ask for cores and, if the cluster has GPUs, for one; Ray says where they run.

    Args:
        address: Of the cluster; None starts one on this machine.
        jobs: How many run at a time at most; None for as many as the cluster holds.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at that address.
    """
    try:
        ray = connected_ray(address, len(os.sched_getaffinity(0)), "--ray")
    except (ConnectionError, ValueError) as error:
        raise ConnectionError(f"--ray: {error}") from error
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    machines = [Machine(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]
    demand = demand_of(machines, jobs)
    executor = RayTaskExecutor(address, demand.cpus, demand.gpus, jobs)
    return Place(executor, demand.cpus, 0, 1, "as many as the cluster holds" if jobs is None else str(jobs))
