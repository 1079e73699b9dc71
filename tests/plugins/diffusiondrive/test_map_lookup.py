"""Looking up points one by one gives what convolving the whole map and sampling it gives."""

import torch

from beyonddrive.plugins.diffusiondrive.denoiser import AnchoredDenoiser
from beyonddrive.plugins.diffusiondrive.map_lookup import MapLookup, pad_cells, sample_values


def test_both_ways_agree_inside_at_the_edge_and_outside():
    torch.manual_seed(0)
    lookup = MapLookup(6)
    cells = torch.randn(2, 5, 9, 6)
    grid = torch.rand(2, 4, 8, 2) * 3 - 1.5
    grid[0, 0] = torch.tensor(
        [[-1, -1], [1, 1], [-1, 1], [0, 0], [-1.2, 0], [1.2, 0], [50, -50], [-0.99, 0.99]]
    )
    with torch.no_grad():
        whole = sample_values(lookup.values(cells), grid)
        single = lookup.at(pad_cells(cells), grid)
    torch.testing.assert_close(single, whole, atol=1e-5, rtol=1e-5)
    assert (whole[0, :, 0, 6] == 0).all() and (single[0, :, 0, 6] == 0).all()


def test_points_that_are_not_numbers_give_none():
    lookup = MapLookup(2)
    grid = torch.full((1, 1, 1, 2), torch.nan)
    assert lookup.at(pad_cells(torch.randn(1, 3, 3, 2)), grid).isnan().all()


def test_the_denoiser_gives_the_same_either_way():
    torch.manual_seed(0)
    denoiser = AnchoredDenoiser(dim=8, num_heads=2, ffn_dim=16, time_dim=16).eval()
    scene_map, agents, ego = torch.randn(2, 32, 32, 8), torch.randn(2, 3, 8), torch.randn(2, 1, 8)
    points, time = torch.randn(2, 5, 8, 2) * 20, torch.tensor([10])
    with torch.no_grad():
        whole, few = (
            denoiser(points, time, denoiser.prepare(scene_map, agents, ego, count)) for count in (None, 40)
        )
        assert denoiser.prepare(scene_map, agents, ego, 40)[0].values is None
        assert denoiser.prepare(scene_map, agents, ego, 400)[0].cells is None
    torch.testing.assert_close(few, whole, atol=1e-4, rtol=1e-4)
