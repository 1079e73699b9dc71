"""A hook that draws what the planner plans for some validation scenes, after each validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from beyonddrive.datasets.navsim.root import NavsimRoot
from beyonddrive.datasets.navsim.scene import Scene
from beyonddrive.engine.wrapped_datasets import tokens_of, unwrapped
from beyonddrive.registry import HOOKS
from beyonddrive.structures.errors import BeyondDriveError
from beyonddrive.structures.plan import PlanError
from beyonddrive.structures.sample import PlanSample

_NOT_DRAWN = (ValueError, RuntimeError, OSError)
"""What drawing raises, of files that are gone or damaged among others."""


class PictureError(BeyondDriveError, ValueError):
    """Scenes cannot be drawn; the message says what to change."""


class _Drawn(NamedTuple):
    scene: Scene
    root: NavsimRoot


@HOOKS.register_module()
class PlanPicturesHook(Hook):
    """Draws plans from above and from the camera into the backends of the runner's visualizer.

    The default recipe has it, optional; ``default_hooks = dict(pictures=None)`` leaves it out. The
    scenes are spread evenly over the validation split and are the same every time; the first process draws,
    of those that it plans. Logs, maps and, unless the visualizer has ``cameras=None``, images must be there.

    Args:
        num_scenes: Scenes to draw.
        interval: Validations from one drawing to the next.
        optional: Train without pictures, and say why, where they cannot be drawn; so, too, without those of a
            scene that cannot be drawn any more. The default recipe does.

    Raises:
        PictureError: If a number is not positive; when the training starts: if the visualizer cannot draw
            scenes, or the validation data set or a scene of it cannot be drawn.
    """

    priority = "LOW"

    def __init__(self, num_scenes: int = 4, interval: int = 1, optional: bool = False) -> None:
        if num_scenes < 1 or interval < 1:
            raise PictureError(
                f"PlanPicturesHook: num_scenes and interval must be at least 1, got {num_scenes} and "
                f"{interval}"
            )
        self.num_scenes, self.interval, self.optional = num_scenes, interval, optional
        self._scenes: dict[str, _Drawn] = {}
        self._planned: dict[str, PlanSample] = {}
        self._validations = 0

    def before_train(self, runner: Runner) -> None:
        """Read the scenes, and draw them without a plan, so that what is missing is noticed now."""
        self._validations, self._scenes = 0, {}
        try:
            self._prepare(runner)
        except PictureError as error:
            if not self.optional:
                raise
            self._scenes = {}
            runner.logger.info(f"no pictures of plans: {error}")

    def _prepare(self, runner: Runner) -> None:
        """Read the scenes and draw each once."""
        if not hasattr(runner.visualizer, "draw_scene"):
            raise PictureError(
                f"PlanPicturesHook: a {type(runner.visualizer).__name__} draws no scenes: set "
                'visualizer = dict(type="PlanVisualizer", vis_backends=[...]), or drop the hook'
            )
        if runner.val_loop is None:
            raise PictureError("PlanPicturesHook: there is no validation whose plans could be drawn")
        if is_main_process():
            self._scenes = chosen_scenes(runner.val_dataloader.dataset, self.num_scenes)
            for scene, root in self._scenes.values():
                try:
                    runner.visualizer.draw_scene(scene, root)
                except _NOT_DRAWN as error:
                    raise PictureError(
                        f"PlanPicturesHook: scene {scene.token} cannot be drawn: {error}; without images set "
                        "visualizer.cameras=None"
                    ) from error

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the plans of the last validation."""
        self._planned = {}

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[PlanSample] | None = None,
    ) -> None:
        """Keep what is planned for the scenes."""
        for sample in outputs or ():
            if sample.metainfo["token"] in self._scenes:
                self._planned[sample.metainfo["token"]] = sample

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw them."""
        self._validations += 1
        if (self._validations - 1) % self.interval:
            return
        for token, sample in self._planned.items():
            scene, root = self._scenes[token]
            try:
                runner.visualizer.add_scene(scene, root, sample, runner.epoch)
            except PlanError as error:  # which the metrics count as a failure
                runner.logger.warning(f"PlanPicturesHook: scene {token} is not drawn: {error}")
            except _NOT_DRAWN as error:
                if not self.optional:
                    raise
                del self._scenes[token]  # so that it is said once
                runner.logger.warning(f"PlanPicturesHook: scene {token} is drawn no more: {error}")


def chosen_scenes(dataset: Any, num_scenes: int) -> dict[str, _Drawn]:
    """Scenes of a data set by token, evenly spread over those that the first process plans.

    Raises:
        PictureError: If the data set cannot give scenes, or their logs are not here.
    """
    parts = unwrapped(dataset)
    for part in parts:
        if not hasattr(part, "scene"):
            raise PictureError(f"PlanPicturesHook: a {type(part).__name__} has no scenes to draw")
    tokens = tokens_of(dataset)[:: get_world_size()]
    count = min(num_scenes, len(tokens))
    wanted = {tokens[index * len(tokens) // count] for index in range(count)}
    found: dict[str, _Drawn] = {}
    for part in parts:
        for index, token in enumerate(part.tokens):
            if token in wanted and token not in found:
                try:
                    found[token] = _Drawn(part.scene(index), part.root)
                except ValueError as error:
                    raise PictureError(f"PlanPicturesHook: {error}") from error
    return found
