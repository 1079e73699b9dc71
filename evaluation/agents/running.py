"""An agent over many scenes: inputs are read ahead, plans are checked and kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.datasets.stores.fingerprints import fingerprint
from beyonddrive.evaluation.agents.devkit import Devkit
from beyonddrive.evaluation.agents.inputs import AgentError, agent_input, wanted_entries
from beyonddrive.evaluation.agents.loading import YAML_SUFFIXES
from beyonddrive.structures.errors import describe_error
from beyonddrive.structures.plan import NUM_POSES, POSE_INTERVAL

_TIME_TOLERANCE = 1e-6
Item = tuple[Scene, NavsimRoot]


class AgentPlan(NamedTuple):
    """The plan (8, 3) of a scene, or the reason why there is none."""

    token: str
    log_name: str
    plan: NDArray[np.float32] | None
    reason: str = ""


def run_agent(
    agent: Any,
    scenes: Iterable[Item],
    devkit: Devkit,
    num_threads: int = 0,
) -> Iterator[AgentPlan]:
    """Plan for scenes, in their order.

    A scene whose sensor files are damaged, or for which the agent raises or returns NaN, does not stop the
    others.

    Args:
        agent: As :func:`~beyonddrive.evaluation.agents.loading.build_agent` makes it.
        scenes: Scenes, each with the root of its sensor files.
        devkit: Classes of the inputs.
        num_threads: Threads that read sensor files ahead; 0 reads when the agent is free.

    Raises:
        AgentError: If the agent's plans are no eight poses every half second: they never will be.
    """
    entries = wanted_entries(agent.get_sensor_config())

    def read(item: Item) -> Any:
        return agent_input(item[0], item[1], entries, devkit)

    for (scene, _), result in _ahead(read, scenes, num_threads):
        try:
            given = result()
        except Exception as error:  # (a scene that cannot be read costs that scene)
            yield AgentPlan(scene.token, scene.log_name, None, describe_error(error, scene.token))
            continue
        try:
            trajectory = agent.compute_trajectory(given)
        except Exception as error:  # whatever somebody else's agent raises
            reason = f"{type(agent).__name__}.compute_trajectory: {describe_error(error)}"
            yield AgentPlan(scene.token, scene.log_name, None, reason)
            continue
        plan = plan_of(trajectory, type(agent).__name__, scene.token)
        if np.isfinite(plan).all():
            yield AgentPlan(scene.token, scene.log_name, plan)
        else:
            reason = f"{type(agent).__name__} returns a plan with NaN or infinity"
            yield AgentPlan(scene.token, scene.log_name, None, reason)


def plan_of(trajectory: Any, name: str, token: str) -> NDArray[np.float32]:
    """Poses (8, 3) of a trajectory; they may be NaN.

    Raises:
        AgentError: If it is none, or another number of poses at other times.
    """
    sampling = getattr(trajectory, "trajectory_sampling", None)
    try:
        poses = np.asarray(trajectory.poses, dtype=np.float64)
        interval = float(sampling.interval_length)  # type: ignore[union-attr]
        count = int(sampling.num_poses)  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError) as error:
        raise AgentError(
            f"scene {token}: {name} returns no trajectory with poses and trajectory_sampling, but a "
            f"{type(trajectory).__name__} ({error})"
        ) from error
    if poses.shape != (NUM_POSES, 3) or count != NUM_POSES or abs(interval - POSE_INTERVAL) > _TIME_TOLERANCE:
        raise AgentError(
            f"scene {token}: {name} returns poses {poses.shape} under a sampling of {count} every "
            f"{interval:g} s; {NUM_POSES} poses x, y, heading every {POSE_INTERVAL} s are scored: set "
            f"trajectory_sampling of the agent to time_horizon 4, interval_length 0.5"
        )
    return poses.astype(np.float32)


def _ahead(
    read: Callable[[Item], Any], items: Iterable[Item], num_threads: int
) -> Iterator[tuple[Item, Callable[[], Any]]]:
    """Items, and how to get what is read of each, in order; a few are read while one is used."""
    if num_threads == 0:
        for item in items:
            yield item, partial(read, item)
        return
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > 2 * num_threads:
                    first, future = waiting.popleft()
                    yield first, future.result
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result
        finally:
            for _, future in waiting:
                future.cancel()


def describe_agent(agent: Any, target: str, options: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What plans of an agent depend on besides data and checkpoint, as JSON values.

    Raises:
        OSError: If the agent is a yaml file that is gone.
    """
    return {
        "agent": target,
        "settings": fingerprint(Path(target)).digest if target.endswith(YAML_SUFFIXES) else None,
        "name": f"{type(agent).__module__}.{type(agent).__name__}",
        "options": options,
    }
