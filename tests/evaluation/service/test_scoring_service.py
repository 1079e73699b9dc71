"""Scores next to a training: the same whoever makes them, bounded, and alive after a worker's death."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from beyonddrive.evaluation.scene_scoring import ScenePlans, SceneScorer, ScoreSettings
from beyonddrive.evaluation.service import (
    NextStepScores,
    ScenesNotScoredError,
    ScorerLostError,
    ScoringService,
    ScoringServiceError,
    ServiceSettings,
)
from beyonddrive.evaluation.service.scenes import KeptScenes
from beyonddrive.evaluation.service.service import ScoreFuture
from beyonddrive.structures.plan import PlanError


def directly(scorer, tokens, plans):
    return scorer.score([ScenePlans(token, "", some) for token, some in zip(tokens, plans, strict=True)])


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize("workers", [1, 3])
def test_scores_are_the_scorers_own(scorer, batch, workers):
    """As an array for tensors of a batch, and scene by scene with failure times; also from kept caches."""
    tokens, plans = batch
    wanted = directly(scorer, tokens, plans)
    with ScoringService(scorer, ServiceSettings(workers, max_pending=3)) as service:
        assert len(service.process_ids) == workers
        first = service.submit(tokens, torch.from_numpy(plans).requires_grad_())
        found = service.submit_scenes(
            [ScenePlans(token, "", some[:2]) for token, some in zip(tokens, plans, strict=True)]
        ).result()
        np.testing.assert_array_equal(first.result(), np.stack([scene.values for scene in wanted]))
        assert [scene.token for scene in found] == tokens
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.values, other.values[:2])
            np.testing.assert_array_equal(one.times, other.times[:2])
        counts = service.counts
        assert (counts.scenes, counts.plans, counts.kept) == (12, 36, 6)
        assert counts.waits and counts.waited_seconds > 0  # 12 scenes, and room for 3
        assert service.submit([], plans[:0]).result().shape == (0, 4, 7)
        ids = service.process_ids
    assert not any(map(is_alive, ids))
    with pytest.raises(ScoringServiceError, match="not running"):
        service.submit(tokens, plans)


def test_what_cannot_be_scored_is_named(scorer, batch):
    tokens, plans = batch
    broken = plans.copy()
    broken[1, 2, 3] = np.nan
    with ScoringService(scorer, ServiceSettings(max_plans=4)) as service:
        with pytest.raises(ScenesNotScoredError, match=f"scene {tokens[1]} .*NaN or infinity") as error:
            service.submit(tokens, broken).result()
        assert list(error.value.reasons) == [tokens[1]]
        with pytest.raises(ScenesNotScoredError, match="no scene elsewhere"):
            service.submit(["elsewhere"], plans[:1]).result()
        (scene,) = service.submit_scenes([ScenePlans("elsewhere", "", plans[0])]).result()
        assert scene.values is None and "cache-metrics" in scene.reason
        with pytest.raises(PlanError, match="6 scenes must have shape"):
            service.submit(tokens, plans[:5])
        with pytest.raises(PlanError, match="raise its max_plans"):
            service.submit(tokens[:1], np.zeros((1, 5, 8, 3)))
        with pytest.raises(PlanError, match="must be numbers of shape"):
            service.submit(tokens[:1], np.zeros((1, 4, 8, 2)))


def test_settings_out_of_range_are_refused(scorer):
    too_many = {"num_workers": 2, "max_pending": 257}
    for wrong in ({"num_workers": 0}, {"num_workers": 3, "max_pending": 2}, {"niceness": 20}, too_many):
        with pytest.raises(ValueError, match="scoring service: "):
            ServiceSettings(**wrong)
    with pytest.raises(ValueError, match="no failures"):
        ScoringService(SceneScorer("train", scorer.cache_dir, settings=ScoreSettings(with_failures=True)))


def test_ranks_share_no_more_than_a_worker_takes():
    shared = ServiceSettings(num_workers=3, max_pending=384).shared_by(2)
    assert (shared.num_workers, shared.max_pending, shared.depth) == (1, 128, 128)


def test_without_patience_it_looks_once(scorer, monkeypatch):
    service = ScoringService(scorer)
    future = ScoreFuture(service, 1, list)
    looks = []
    monkeypatch.setattr(service, "_pump", looks.append)
    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    assert looks == [0]
    monkeypatch.setattr(service, "_pump", lambda timeout: future.put(0, "scores"))
    assert future.result(timeout=0) == ["scores"]


def test_a_thread_that_waits_holds_up_no_other(scorer, monkeypatch):
    """Who asks with a timeout, or only looks, is answered while another thread waits without one."""
    service, answers = ScoringService(scorer), threading.Event()
    waits, other = ScoreFuture(service, 1, list), ScoreFuture(service, 1, list)

    def pump(timeout):
        answers.wait()
        waits.put(0, "scores")

    monkeypatch.setattr(service, "_pump", pump)
    thread = threading.Thread(target=waits.result)
    thread.start()
    try:
        wait_until(lambda: not service._lock.acquire(blocking=False) or service._lock.release())
        asks = threading.Thread(target=lambda: asked.append((other.done(), _error_of(other))), daemon=True)
        asked = []
        asks.start()
        asks.join(10.0)
        assert asked == [(False, TimeoutError)]
    finally:
        answers.set()
        thread.join()
    assert waits.result() == ["scores"]


def _error_of(future):
    try:
        future.result(timeout=0.1)
    except TimeoutError as error:
        return type(error)


def test_the_advice_to_who_waits_helps(scorer, caplog):
    """More workers alone have fewer scenes each."""
    ScoringService(scorer)._begin_to_wait()
    assert "more num_workers with a max_pending that grows with them" in caplog.text
    assert ServiceSettings(num_workers=4).depth < ServiceSettings(num_workers=1).depth


DEADLY = """
import json, os, sys
sys.path[:] = json.loads(sys.argv.pop(1))
from beyonddrive.evaluation.service.scenes import KeptScenes
from beyonddrive.evaluation.service.worker import main
score = KeptScenes.score
def deadly(self, token, log_name, plans):
    if token == {token!r} and {condition}:
        os.kill(os.getpid(), 9)
    return score(self, token, log_name, plans)
KeptScenes.score = deadly
main()
"""


@pytest.fixture
def deadly(monkeypatch):
    """Workers that are killed over a scene, if a condition holds."""

    def patch(token, condition):
        boot = DEADLY.format(token=token, condition=condition)
        monkeypatch.setattr("beyonddrive.evaluation.service.processes._BOOT", boot)

    return patch


def test_a_worker_that_dies_is_asked_again(scorer, batch, tmp_path, deadly, caplog):
    tokens, plans = batch
    wanted = np.stack([scene.values for scene in directly(scorer, tokens, plans)])
    mark = tmp_path / "killed"
    deadly(tokens[2], f"not os.path.exists({str(mark)!r}) and not open({str(mark)!r}, 'w').close()")
    with ScoringService(scorer) as service:
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        assert mark.exists() and service.counts.restarts == 1
        os.kill(service.process_ids[0], signal.SIGKILL)  # one that has nothing to do
        np.testing.assert_array_equal(service.submit(tokens, plans).result(), wanted)
        assert service.counts.restarts == 2
    assert "was killed (SIGKILL), most likely for lack of memory" in caplog.text
    assert f"started again, and asked again for scene {tokens[2]}" in caplog.text


def test_a_scene_that_kills_two_workers_is_given_up(scorer, batch, deadly):
    tokens, plans = batch
    deadly(tokens[2], True)
    with ScoringService(scorer) as service:
        with pytest.raises(ScorerLostError, match=f"scene {tokens[2]} has no .*SIGKILL.*asked before"):
            service.submit(tokens, plans).result()
        others = [0, 1, 3, 4, 5]
        scores = service.submit([tokens[index] for index in others], plans[others]).result()
        wanted = directly(scorer, tokens, plans)
        np.testing.assert_array_equal(scores, np.stack([wanted[index].values for index in others]))
        assert service.counts.restarts == 2


def test_a_worker_that_cannot_start_ends_it(scorer, batch, monkeypatch, capfd):
    tokens, plans = batch
    monkeypatch.setattr("beyonddrive.evaluation.service.processes._BOOT", "import sys; sys.exit('no room')")
    with ScoringService(scorer) as service:
        future = service.submit(tokens, plans)
        with pytest.raises(ScoringServiceError, match=r"ended with exit code 1.*twice before it had started"):
            future.result()
        assert not service.is_running
        with pytest.raises(ScorerLostError, match=f"scene {tokens[0]} has no scores"):
            future.result()
    assert capfd.readouterr().err.count("no room") == 2


def test_the_next_step_gets_the_scores_of_this_one(scorer, batch):
    tokens, plans = batch
    wanted = np.stack([scene.values for scene in directly(scorer, tokens, plans)])
    with ScoringService(scorer) as service:
        later = NextStepScores(service)
        assert later.exchange(tokens[:2], plans[:2], "a") is None
        context, scores = later.exchange(tokens[2:4], plans[2:4], "b")
        assert context == "a"
        np.testing.assert_array_equal(scores, wanted[:2])
        assert later.exchange(tokens[4:], plans[4:], "c").context == "b"
        later.clear()
        assert later.exchange(tokens, plans, "d") is None


def test_scenes_are_kept_within_the_memory_they_may_take(scorer, batch):
    tokens, plans = batch
    all_of_them = KeptScenes(scorer, 10**9)
    for token, some in zip(tokens, plans, strict=True):
        all_of_them.score(token, "", some)
    assert all(token in all_of_them for token in tokens) and all_of_them.num_bytes > 10**5
    few = KeptScenes(scorer, all_of_them.num_bytes // 2)
    for token, some in zip(tokens, plans, strict=True):
        few.score(token, "", some)
        assert few.num_bytes <= few.max_bytes
    assert tokens[-1] in few and tokens[0] not in few


SCRIPT = """
import os, signal, sys, time
# A shell that starts the tests in the background has SIGINT ignored, in all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
import numpy as np
from pathlib import Path
from beyonddrive.evaluation.scene_scoring import SceneScorer
from beyonddrive.evaluation.service import ScoringService, ServiceSettings
service = ScoringService(SceneScorer("train", Path(sys.argv[1])), ServiceSettings(2)).start()
if os.fork() == 0:  # such as a data worker: it holds copies of all that the service has open
    time.sleep(600)
    os._exit(0)
service.submit([sys.argv[2]], np.zeros((1, 1, 8, 3))).result()
print(*service.process_ids, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_its_parent(scorer, batch, end):
    """Ctrl-C reaches the whole group; a kill only the parent."""
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(scorer.cache_dir), batch[0][0]],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    ids = [int(number) for number in parent.stdout.readline().split()]
    try:
        assert len(ids) == 2 and all(map(is_alive, ids))
        (os.killpg if end == signal.SIGINT else os.kill)(parent.pid, end)
        parent.wait(60)
        wait_until(lambda: not any(map(is_alive, ids)), 60.0)  # (long before the sleeper ends)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.stdout.close()
