"""The scoring service with actors of a Ray cluster: the same scores, also after an actor is lost."""

import os
import signal

import numpy as np
import pytest

from beyonddrive.evaluation.scene_scoring import ScenePlans
from beyonddrive.evaluation.service import (
    ScenesNotScoredError,
    ScoringService,
    ScoringServiceError,
    ServiceSettings,
    on_ray,
)

ray = pytest.importorskip("ray")


def directly(scorer, tokens, plans):
    given = [ScenePlans(token, "", some) for token, some in zip(tokens, plans, strict=True)]
    return np.stack([scene.values for scene in scorer.score(given)])


def test_scores_are_the_scorers_own_and_a_lost_actor_is_replaced(scorer, batch, caplog):
    tokens, plans = batch
    wanted = directly(scorer, tokens, plans)
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


@pytest.mark.parametrize(("before", "after"), [(0, 17), (15, 17), (19, 19)])
def test_actors_are_as_nice_as_asked_or_nicer(scorer, monkeypatch, before, after):
    steps = []
    monkeypatch.setattr(os, "nice", lambda step: steps.append(step) or before + sum(steps))
    on_ray._Actor(scorer, 0, 17)
    assert before + sum(steps) == after


@pytest.fixture(scope="module")
def cluster():
    """A cluster with a single CPU, that others have started."""
    ray.init(num_cpus=1, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def service(cluster, scorer):
    with ScoringService(scorer, ServiceSettings(1, on_ray=True)) as running:
        yield running
    assert ray.is_initialized()  # it is not the service's


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ray.exceptions.OutOfMemoryError("Task was killed: memory is low\nlast line"),
            "memory is low ... last",
        ),
        (ray.exceptions.WorkerCrashedError(), "The worker died unexpectedly"),
        (ray.exceptions.RayTaskError("score", "IndexError: far out", IndexError("far out")), "far out)"),
    ],
    ids=["out of memory", "crash", "bug"],
)
def test_whatever_ray_says_of_an_actor_it_is_replaced_and_asked_again(
    service, batch, monkeypatch, caplog, error, said
):
    tokens, plans = batch
    get, errors = ray.get, [error]

    def fail_once(reference, **kwargs):
        if errors and reference in service._backend._asked:
            raise errors.pop()
        return get(reference, **kwargs)

    first = service._backend._actors[0]
    monkeypatch.setattr(ray, "get", fail_once)
    wanted = directly(service.scorer, tokens, plans)
    np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
    assert service.counts.restarts == 1 and service._backend._actors[0] is not first
    assert "scorer process 0 was lost (" in caplog.text and said in caplog.text


def test_actors_that_cannot_start_end_the_service(cluster, scorer, batch, monkeypatch):
    class Broken(on_ray._Actor):
        def __init__(self, *args):
            raise OSError("no such store there")

    monkeypatch.setattr(on_ray, "_Actor", Broken)
    tokens, plans = batch
    with ScoringService(scorer, ServiceSettings(1, on_ray=True)) as service:
        future = service.submit(tokens, plans)
        with pytest.raises(ScoringServiceError, match=r"no such store there\), twice before it had started"):
            future.result()
        assert not service.is_running


def test_actors_that_the_cluster_has_no_room_for_are_told_of(cluster, scorer, batch, monkeypatch, caplog):
    monkeypatch.setattr(on_ray, "_PATIENCE", 0.1)
    tokens, plans = batch
    with ScoringService(scorer, ServiceSettings(2, on_ray=True)) as service:
        future = service.submit(tokens, plans)
        while len(service._backend._starting) == 2:
            service.poll()
        waiting = set(service._backend._starting)
        caplog.clear()
        with pytest.raises(TimeoutError):
            future.result(timeout=5.0)
        (worker,) = waiting
        said = [text for text in caplog.messages if "Ray has not started" in text]
        assert 1 <= len(said) < 10  # at longer and longer intervals
        assert all(
            text.startswith(f"scoring service: Ray has not started scorer {worker} for") for text in said
        )
        assert "the cluster has 1, of which 0 are free" in said[0]
