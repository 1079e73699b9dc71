"""A hook that runs a scoring service beside a training and gives it to whoever wants scores."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal

from mmengine.dist import all_gather_object, get_rank
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from beyonddrive.datasets.transforms.view import ViewAugmentation
from beyonddrive.engine.hooks.closing import ClosingHook
from beyonddrive.engine.wrapped_datasets import drawing_transforms, unwrapped
from beyonddrive.evaluation.pdm.scores.scorer import Progress, Version
from beyonddrive.evaluation.scene_scoring import SceneScorer, ScoreSettings
from beyonddrive.evaluation.service.errors import ScoringServiceError
from beyonddrive.evaluation.service.service import ScoringService
from beyonddrive.evaluation.service.settings import ServiceSettings
from beyonddrive.registry import HOOKS


@HOOKS.register_module()
class ScoringServiceHook(ClosingHook):
    """Runs a scoring service beside the training and hands it to the modules that want it.

    Those are all modules of the planner that have a method ``use_scores(service)``, such as a loss of one's
    own; ``service`` is a :class:`ScoringService`. Where the training moves the view
    (:class:`~beyonddrive.datasets.transforms.view.ViewAugmentation`), plans are in the frame of the moved
    car, and scores are of the scene: such a module brings them back with ``view_pose``, and says so by an
    attribute ``returns_to_scene = True``.

    Logs ``scorer_wait``, the seconds that a step has waited for scores, and at the end of an epoch what the
    service has done.

    Args:
        cache_dir: Store of metric caches of the training split, made by ``beyonddrive cache-metrics``;
            without it a scene is built from its log and map whenever a worker does not have it, which takes
            longer than a step.
        progress: As for :class:`ScoreSettings`.
        version: Likewise.
        per: ``'rank'`` gives every rank what ``settings`` say, ``'machine'`` divides workers, pending scenes
            and memory among the ranks of a machine, each of which has at least one worker.
        settings: As for :class:`ServiceSettings`.

    Raises:
        ValueError: If a setting is out of range.
        ScoringServiceError: When the training starts: no module wants scores, the data set has several
            splits, or it moves views and a module does not bring its plans back.
    """

    priority = "HIGH"

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        progress: Progress = "pair",
        version: Version = "v1",
        per: Literal["rank", "machine"] = "rank",
        **settings: Any,
    ) -> None:
        if per not in ("rank", "machine"):
            raise ValueError(f"ScoringServiceHook: per must be 'rank' or 'machine', got {per!r}")
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.score_settings = ScoreSettings(progress, version)
        self.per, self.settings = per, ServiceSettings(**settings)
        self.service: ScoringService | None = None
        self._waited = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start the service and hand it out.

        Raises:
            ScoringServiceError: If no module wants scores, the data set has several splits, or it moves views
                and a module does not bring its plans back.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        users = [module for module in model.modules() if hasattr(module, "use_scores")]
        if not users:
            raise ScoringServiceError(
                f"ScoringServiceHook: no module of {type(model).__name__} has a method use_scores(service) "
                f"to take the scores; give it one, or drop the hook"
            )
        datasets = list(unwrapped(runner.train_dataloader.dataset))
        places = {(part.split, part.data_root, part.maps_root) for part in datasets}
        if len(places) != 1:
            raise ScoringServiceError(
                f"ScoringServiceHook: scores scenes of one split, and train_dataloader.dataset has "
                f"{len(places)}: {', '.join(sorted(str(place[0]) for place in places))}"
            )
        drawing = drawing_transforms(runner.train_dataloader.dataset)
        if any(isinstance(step, ViewAugmentation) for step in drawing):
            for user in users:
                if not getattr(user, "returns_to_scene", False):
                    raise ScoringServiceError(
                        f"ScoringServiceHook: ViewAugmentation moves the car, and {type(user).__name__} does "
                        f"not say that it brings its plans back to the scene before they are scored; do so "
                        f'with metainfo["view_pose"] and set returns_to_scene = True, or do not augment views'
                    )
        split, data_root, maps_root = places.pop()
        scorer = SceneScorer(split, self.cache_dir, data_root, maps_root, self.score_settings)
        settings = self.settings.shared_by(ranks_here()) if self.per == "machine" else self.settings
        self.close()
        self.service = ScoringService(scorer, settings).start()
        self._waited = 0.0
        for user in users:
            user.use_scores(self.service)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Log how long the step has waited."""
        if self.service is not None:
            waited = self.service.counts.waited_seconds
            runner.message_hub.update_scalar("train/scorer_wait", waited - self._waited)
            self._waited = waited

    def after_train_epoch(self, runner: Runner) -> None:
        """Say what the service has done so far."""
        if self.service is not None and get_rank() == 0:
            counts = self.service.counts
            kept = 100.0 * counts.kept / max(counts.scenes, 1)
            runner.logger.info(
                f"scoring service: {counts.plans} plans of {counts.scenes} scenes so far ({kept:.0f} % from "
                f"kept metric caches), the training has waited {counts.waited_seconds:.1f} s, {counts.waits} "
                f"times for room; {counts.restarts} workers were started again"
            )

    def close(self) -> None:
        """End the service if there is one."""
        if self.service is not None:
            self.service.close()
            self.service = None


def ranks_here() -> int:
    """Ranks of this training that share the machine."""
    names: list[str] = all_gather_object(socket.gethostname())
    return names.count(socket.gethostname())
