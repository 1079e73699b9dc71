"""Who drives in the live world, from a config and a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beyonddrive.evaluation.closed_loop.hugsim.settings import Controller
    from beyonddrive.structures.frame import Driver
    from beyonddrive.synth.live.batch import Crew


@dataclass(frozen=True)
class PlannerSpec:
    """A planner; made anew in every process.

    Attributes:
        config: Its config.
        checkpoint: Its weights; None for one that has none.
        options: Values by dotted key that replace those of the config file.
        exported: Whether its fast copy drives.
    """

    config: str
    checkpoint: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)
    exported: bool = False

    @property
    def planner_class(self) -> type:
        """Class of the planner."""
        from beyonddrive.apis import load_config
        from beyonddrive.registry import MODELS

        kind = load_config(self.config, self.options).model["type"]
        found = MODELS.get(kind) if isinstance(kind, str) else kind
        assert isinstance(found, type)
        return found

    def __call__(self) -> Driver:
        """Make the driver."""
        import torch

        from beyonddrive.tools._driver import open_driver

        torch.set_num_threads(1)  # processes share the cores, and a plan is the same bits in all of them
        return open_driver(
            self.config, self.checkpoint, exported=self.exported, rig="synth", options=self.options
        )


def wants_lidar(spec: PlannerSpec) -> bool:
    """Whether the planner looks at LiDAR."""
    from beyonddrive.apis import load_config
    from beyonddrive.engine.build_errors import build_planner
    from beyonddrive.tools._agent_folder import without_downloads

    model = load_config(spec.config, spec.options).model
    planner = build_planner(without_downloads(model.to_dict()))
    return bool({"lidar", "points"} & set(planner.required_inputs))


def crew_of(spec: PlannerSpec, controller: Controller) -> Crew:
    """The crew of a planner, whose plans the controller tracks.

    What replays a log has nothing to replay in the live world: in place of the human SUMO drives, in place of
    PDM-Closed's recorded plan PDM-Closed itself, which is told the world.

    Raises:
        LiveError: If one of these two is given weights, or asked for a fast copy.
    """
    from beyonddrive.deploy.drivers.hugsim import HugsimConventions
    from beyonddrive.plugins.human.planner import HumanReplay
    from beyonddrive.plugins.pdm_closed.planner import PdmClosed
    from beyonddrive.synth.live.batch import Crew
    from beyonddrive.synth.live.reference import Nobody, PdmClosedDriver, drive_by_sumo
    from beyonddrive.synth.live.town import LiveError

    kind = spec.planner_class
    answer = _Answer(HugsimConventions(controller=controller))
    if not issubclass(kind, HumanReplay | PdmClosed):
        return Crew(spec, answer)
    if spec.checkpoint is not None or spec.exported:
        given = "--exported" if spec.checkpoint is None else str(spec.checkpoint)
        raise LiveError(f"{given}: {kind.__name__} has no weights and no fast copy; leave it out")
    return (
        Crew(Nobody, answer, drive_by_sumo)
        if issubclass(kind, HumanReplay)
        else Crew(PdmClosedDriver, answer)
    )


@dataclass(frozen=True)
class _Answer:
    conventions: Any

    def __call__(self, poses: Any) -> Any:
        from beyonddrive.deploy.drivers.hugsim import answer_of

        return answer_of(poses, self.conventions)
