"""The scoring service with actors of a Ray cluster: the same scores, also after an actor is lost."""

import os
import signal

import numpy as np
import pytest

from beyonddrive.evaluation.scene_scoring import ScenePlans
from beyonddrive.evaluation.service import ScenesNotScoredError, ScoringService, ServiceSettings

ray = pytest.importorskip("ray")


def test_scores_are_the_scorers_own_and_a_lost_actor_is_replaced(scorer, batch, caplog):
    tokens, plans = batch
    given = [ScenePlans(token, "", some) for token, some in zip(tokens, plans, strict=True)]
    wanted = np.stack([scene.values for scene in scorer.score(given)])
    with ScoringService(scorer, ServiceSettings(2, max_pending=3, on_ray=True)) as service:
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        np.testing.assert_array_equal(service.submit(tokens[::-1], plans[::-1]).result(), wanted[::-1])
        assert service.counts.kept > 0
        with pytest.raises(ScenesNotScoredError, match="no scene elsewhere"):
            service.submit(["elsewhere"], plans[:1]).result()
        actor = service._backend._actors[0]
        process = ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))
        os.kill(process, signal.SIGKILL)
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        assert service.counts.restarts >= 1 and "was lost" in caplog.text
    assert not ray.is_initialized()
