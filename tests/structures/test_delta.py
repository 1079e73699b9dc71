"""Delta space against the published constants (METHOD, "Delta representation")."""

import pytest
import torch

from beyonddrive.structures.delta import DeltaSpace, step_statistics


def test_published_constants():
    space = DeltaSpace()
    assert space.mean.tolist() == pytest.approx([2.950225591659546, 0.0607292577624321])
    assert space.scale.tolist() == pytest.approx([4.52533745765686, 5.0728104040026665])


def test_one_step_by_hand():
    space = DeltaSpace(dx=(0.0, 1.0, 3.0), dy=(-4.0, 0.0, 2.0))  # scales 2 and 4
    plan = torch.tensor([[3.0, 4.0, 0.0], [4.0, 2.0, torch.pi / 2]])
    expected = torch.tensor([[1.0, 1.0, 0.0, 1.0], [0.0, -0.5, 1.0, 0.0]])
    assert torch.allclose(space.encode(plan), expected, atol=1e-6)


def test_decoding_undoes_encoding_for_any_leading_shape():
    generator = torch.Generator().manual_seed(0)
    plans = torch.rand(2, 5, 8, 3, generator=generator) * 6 - 3  # headings within pi
    space = DeltaSpace()
    assert torch.allclose(space.decode(space.encode(plans)), plans, atol=1e-4)


def test_sine_and_cosine_need_no_unit_length():
    encoded = DeltaSpace().encode(torch.full((8, 3), 0.7))
    encoded[..., 2:] *= 3
    assert torch.allclose(DeltaSpace().decode(encoded)[..., 2], torch.tensor(0.7))


def test_statistics_make_a_space_that_spans_one():
    generator = torch.Generator().manual_seed(1)
    plans = (torch.rand(50, 8, 3, generator=generator) * 4).cumsum(1)
    space = DeltaSpace(**step_statistics(plans))
    assert space.encode(plans)[..., :2].abs().max() == pytest.approx(1.0, abs=1e-5)


def test_disordered_statistics_are_refused():
    with pytest.raises(ValueError, match="dy must be"):
        DeltaSpace(dy=(1.0, 0.0, 2.0))
