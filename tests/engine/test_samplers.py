"""Which scenes are in which step, for any number of ranks that share a batch."""

import pytest
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from beyonddrive.engine.samplers import RoundDownSampler


def steps(monkeypatch, sampler, num_scenes, ranks, batch, epoch=0):
    """Scenes of each step, over all ranks."""
    loaders = []
    for rank in range(ranks):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, ranks))
        own = sampler(range(num_scenes), shuffle=True, seed=3)
        own.set_epoch(epoch)
        loaders.append(
            DataLoader(range(num_scenes), batch // ranks, sampler=own, drop_last=True, collate_fn=list)
        )
    parts = [list(loader) for loader in loaders]
    assert len({len(part) for part in parts}) == 1
    return [sorted(scene for part in step for scene in part) for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("num_scenes", [8, 9, 15, 16, 23, 31, 64])
def test_steps_have_the_same_scenes_for_any_number_of_ranks(monkeypatch, num_scenes):
    for epoch in (0, 1):
        alone = steps(monkeypatch, RoundDownSampler, num_scenes, 1, 8, epoch)
        assert len(alone) == num_scenes // 8
        assert all(len(set(step)) == 8 for step in alone)
        for ranks in (2, 4, 8):
            assert steps(monkeypatch, RoundDownSampler, num_scenes, ranks, 8, epoch) == alone
    assert num_scenes < 16 or alone != steps(monkeypatch, RoundDownSampler, num_scenes, 1, 8, 0)


def test_repeated_scenes_would_fill_up_a_step(monkeypatch):
    """Why trainings do not use mmengine's own sampler."""
    assert len(steps(monkeypatch, DefaultSampler, 15, 1, 8)) == 1
    assert len(steps(monkeypatch, DefaultSampler, 15, 2, 8)) == 2


def test_fewer_scenes_than_ranks_leave_nothing(monkeypatch):
    assert steps(monkeypatch, RoundDownSampler, 3, 4, 8) == []


def test_rounding_up_is_refused():
    RoundDownSampler(range(3), round_up=False)
    with pytest.raises(ValueError, match="round_up=True use type='DefaultSampler'"):
        RoundDownSampler(range(3), round_up=True)
