"""The hook that fits anchors: logs are read once, whatever the number of ranks."""

import multiprocessing

import numpy as np
import pytest
import torch

from beyonddrive.generators import prior_hook

PLANS = np.arange(48.0).reshape(2, 8, 3)


def rank(number, store, error, results):
    """What one of two ranks gets; rank 1 has no data set to read."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)

    def read(dataset, max_scenes):
        assert number == 0, "only rank 0 may read"
        if error:
            raise prior_hook.ExpertPriorError("no logs")
        return PLANS

    prior_hook.expert_plans = read
    try:
        plans = prior_hook._read_once(None, 5)
        results.put((number, plans.tolist()))
    except prior_hook.ExpertPriorError as raised:
        results.put((number, str(raised)))


@pytest.mark.parametrize("error", [False, True])
def test_rank_0_reads_and_all_ranks_have_the_plans_or_the_error(tmp_path, error):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    ranks = [fork.Process(target=rank, args=(n, tmp_path / "store", error, results)) for n in range(2)]
    for process in ranks:
        process.start()
    found = dict(results.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join()
    assert found == dict.fromkeys(range(2), "no logs" if error else PLANS.tolist())
