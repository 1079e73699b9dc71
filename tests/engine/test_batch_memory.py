"""Memory that a loader's worker fills again: never while anybody reads it, and with the same values."""

import gc
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader, Dataset

from beyonddrive.engine.batch_memory import LEAST, BatchMemory, Lent
from beyonddrive.engine.collation import collate_samples
from beyonddrive.structures.sample import PlanSample

SIDE = 600
"""Of an image of one channel: four of them are larger than what is sent in fresh memory."""


class Scenes(Dataset):
    """Images that say which they are, and a large target."""

    def __len__(self):
        return 18

    def __getitem__(self, index):
        sample = PlanSample(metainfo={"token": str(index)})
        sample.gt = BaseDataElement(scores=torch.full((LEAST // 4,), float(index)))
        image = torch.full((1, SIDE, SIDE), index, dtype=torch.uint8)
        return {"inputs": {"camera": image, "status": torch.full((8,), float(index))}, "data_samples": sample}


def loader(num_workers=1, **settings):
    return DataLoader(Scenes(), 4, num_workers=num_workers, collate_fn=collate_samples, **settings)


def content(batch):
    camera, status = batch["inputs"]["camera"], batch["inputs"]["status"]
    scores = torch.stack([sample.gt.scores for sample in batch["data_samples"]])
    return camera, status, scores


@pytest.mark.parametrize("settings", [{}, {"persistent_workers": True}])
def test_batches_of_a_worker_equal_those_of_this_process_also_when_they_are_kept(settings):
    expected = [content(batch) for batch in loader(0)]
    loading = loader(**settings)
    kept = []
    for _ in range(3):
        for number, batch in enumerate(loading):
            for value, wanted in zip(content(batch), expected[number], strict=True):
                assert type(value) is torch.Tensor and torch.equal(value, wanted)
            # A view alone must keep the memory from being filled again.
            kept.append((batch["inputs"]["camera"][1:, :, ::7], expected[number][0][1:, :, ::7]))
            if number == 2:
                batch["inputs"]["camera"].zero_()  # (a reader may write)
                kept[-1] = (kept[-1][0], torch.zeros_like(kept[-1][1]))
            del batch
    assert all(torch.equal(value, wanted) for value, wanted in kept)


def test_a_loop_that_ends_early_leaves_a_loader_that_works():
    loading = loader(persistent_workers=True)
    for _ in range(40):
        batch = next(iter(loading))
        assert (batch["inputs"]["camera"][3] == 3).all()


def arrived(sent):
    """What another process gets."""
    return pickle.loads(bytes(ForkingPickler.dumps(sent)))


def images(value, count=2):
    return [torch.full((LEAST,), value, dtype=torch.uint8)] * count


def test_a_piece_is_filled_again_when_the_last_view_of_it_is_gone():
    memory = BatchMemory(kept=2)
    first = memory.stack(images(1))
    assert isinstance(first, Lent)
    place = first.tensor.data_ptr()
    view = arrived(first)[1, ::2]
    second = memory.stack(images(2))
    assert isinstance(second, Lent) and second.tensor.data_ptr() != place and (view == 1).all()
    held = arrived(second)
    assert not isinstance(memory.stack(images(3)), Lent)  # both are read
    del view, first
    gc.collect()
    third = memory.stack(images(4))
    assert isinstance(third, Lent) and third.tensor.data_ptr() == place
    assert (held == 2).all() and (arrived(third) == 4).all()


def test_small_tensors_are_sent_as_they_are_and_larger_ones_displace_smaller_pieces():
    memory = BatchMemory(kept=1)
    assert not isinstance(memory.stack([torch.zeros(8)] * 2), Lent)
    assert isinstance(memory.stack(images(1)), Lent)
    gc.collect()
    lent = memory.stack(images(1, count=3))
    assert not isinstance(lent, Lent)  # nobody has received the first one yet
    del lent
    memory = BatchMemory(kept=1)
    arrived(memory.stack(images(1)))
    gc.collect()
    larger = memory.stack(images(2, count=3))
    assert isinstance(larger, Lent) and arrived(larger).shape == (3, LEAST)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bool, torch.int64])
def test_types_and_shapes_arrive_as_torch_stack_gives_them(dtype):
    values = [torch.randint(0, 2, (3, 5, LEAST // 8)).to(dtype) for _ in range(3)]
    sent = BatchMemory().stack(values)
    assert isinstance(sent, Lent)
    got = arrived(sent)
    assert got.dtype == dtype and torch.equal(got, torch.stack(values)) and got.is_contiguous()
