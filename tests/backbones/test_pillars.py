"""Pillars: without mmdet3d a message that helps; with it the right cells, features, gradients and plans."""

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

from beyonddrive.backbones.pillars import PillarTransFuserBackbone, PointPillarsEncoder
from beyonddrive.datasets.transforms.lidar import LoadLidarHistogram
from beyonddrive.openmmlab import MMDet3DError
from beyonddrive.plugins.base.preprocessor import PlannerDataPreprocessor, PlannerInputError
from beyonddrive.registry import MODELS
from beyonddrive.structures.sample import PlanSample

ENCODER = {"name": "resnet18", "layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)} | {
    "stem_type": "deep",
    "stem_width": 4,
}
BACKBONE = {
    "type": "PillarTransFuserBackbone",
    "image_encoder": ENCODER,
    "bev_encoder": ENCODER,
    "image_size": (32, 64),
    "bev_size": (64, 32),
    "num_layers": 1,
    "dropout": 0.0,
    "top_down_channels": 4,
}
PLANNER = {
    "type": "TransFuserPlanner",
    "backbone": BACKBONE,
    "decoder": {"dim": 8, "num_queries": 4, "num_layers": 1, "num_heads": 2, "ffn_dim": 8},
    "trajectory_head": {"type": "DeltaTrajectoryHead", "in_channels": 8, "loss": {"type": "PlanL1Loss"}},
}


@pytest.fixture
def encoder(mmdet3d):
    torch.manual_seed(0)
    return PointPillarsEncoder(grid_size=(64, 32), feat_channels=(8,), max_points=5).eval()


def _points(count, seed=0):
    """Some points in range and some out of it; x, y and z are spread over other widths."""
    uniform = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed))
    return (uniform - torch.tensor([0.5, 0.5, 0.3, 0.0])) * torch.tensor([70.0, 66.0, 12.0, 1.0])


# ------------------------------------------------------------------ without mmdet3d
def test_importing_backbones_imports_neither_mmdet3d_nor_timm():
    script = (
        "import sys, beyonddrive.backbones, beyonddrive.datasets.transforms.points\n"
        "sys.exit(bool({'mmdet3d', 'mmdet', 'mmcv', 'timm', 'torchvision'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize("missing", ["mmcv", "mmcv.ops", "mmdet3d", "mmdet3d.models"])
def test_without_mmdet3d_the_error_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MMDet3DError) as error:
        MODELS.build({"type": "PointPillarsEncoder"})
    for words in ("pip install 'beyonddrive[mmdet3d]'", "-std=c++20", "numpy<2", "docs/mmdet3d.md"):
        assert words in str(error.value)


@pytest.mark.skipif(find_spec("mmdet3d") is not None, reason="mmdet3d is installed")
def test_a_planner_without_mmdet3d_fails_when_it_is_built():
    with pytest.raises(MMDet3DError, match="ModuleNotFoundError: No module named"):
        MODELS.build(PLANNER)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"point_range": (0, 0, 0, 1, 1)}, "three lower and three larger"),
        ({"point_range": (0, 0, 0, 1, 0, 1)}, "three lower and three larger"),
        ({"max_points": 0}, "must be positive"),
        ({"feat_channels": (8, 0)}, "must be positive"),
        ({"grid_size": (0, 8)}, "must be positive"),
    ],
)
def test_settings_that_make_no_grid(settings, words):
    with pytest.raises(ValueError, match=words):
        PointPillarsEncoder(**settings)


def test_a_latent_and_points_exclude_each_other():
    with pytest.raises(ValueError, match="set latent=False"):
        PillarTransFuserBackbone(latent=True)


# ------------------------------------------------------------------ the preprocessor
def _batch(sizes):
    samples, camera, status = [], [], []
    for row in range(len(sizes)):
        generator = torch.Generator().manual_seed(row)
        camera.append(torch.randint(0, 256, (3, 32, 64), generator=generator, dtype=torch.uint8))
        status.append(torch.rand(8, generator=generator))
        samples.append(PlanSample(metainfo={"token": f"scene{row}"}))
        samples[-1].gt = BaseDataElement(trajectory=torch.zeros(8, 3))
    points = [_points(size, row) for row, size in enumerate(sizes)]
    return {"inputs": {"camera": camera, "points": points, "status": status}, "data_samples": samples}


def test_the_preprocessor_keeps_clouds_apart():
    batch = _batch([7, 0, 3])
    points = PlannerDataPreprocessor()(batch)["inputs"]["points"]
    assert [tuple(cloud.shape) for cloud in points] == [(7, 4), (0, 4), (3, 4)]
    assert all(torch.equal(a, b) for a, b in zip(points, batch["inputs"]["points"], strict=True))
    doubles = {"inputs": {"points": [cloud.double() for cloud in points]}}
    assert PlannerDataPreprocessor()(doubles)["inputs"]["points"][0].dtype == torch.float32


def test_the_preprocessor_names_the_scene_of_a_bad_point():
    batch = _batch([7, 0, 3])
    batch["inputs"]["points"][2][1, 2] = torch.nan
    with pytest.raises(PlannerInputError, match="scene scene2: input 'points' holds NaN"):
        PlannerDataPreprocessor()(batch)


# ------------------------------------------------------------------ the map of pillars
def test_features_stand_in_the_cells_of_the_histogram(encoder):
    """Rows, columns and edges are those of the raster that the other TransFuser reads."""
    cloud = _points(600)
    torch.nn.init.constant_(encoder.voxel_encoder.pfn_layers[0].norm.bias, 50.0)  # nothing is cut by the ReLU
    seen = (encoder([cloud])[0] > 0).all(dim=0)
    assert torch.equal(seen, (encoder([cloud])[0] > 0).any(dim=0))
    # The histogram knows square cells: two of its columns are one here.
    inside = cloud[(cloud[:, 2] >= -2) & (cloud[:, 2] < 6)].numpy().T[:3]
    histogram = LoadLidarHistogram(size=64, split_height=-2.1).histogram(inside)[0]
    assert torch.equal(seen, torch.from_numpy(histogram.reshape(64, 32, 2).any(axis=2)))
    assert 200 < seen.sum() < 600


def test_a_point_ahead_and_to_the_right(encoder):
    torch.nn.init.constant_(encoder.voxel_encoder.pfn_layers[0].norm.bias, 50.0)
    occupied = encoder([torch.tensor([[10.0, -20.0, 1.0, 0.5]])])[0].amax(0).nonzero()
    assert occupied.tolist() == [[42, 6]]  # 1 m rows from x = -32, 2 m columns from y = -32


def test_features_are_those_of_the_paper(encoder):
    """Recomputed cell by cell: offsets from mean and middle, linear, batch norm, ReLU, maximum."""
    layer = encoder.voxel_encoder.pfn_layers[0]
    for parameter in (layer.norm.running_mean, layer.norm.bias):
        torch.nn.init.normal_(parameter)
    torch.nn.init.uniform_(layer.norm.running_var, 0.5, 2.0)
    clouds = [_points(3000, seed) for seed in (1, 2)]
    with torch.no_grad():
        raster = encoder(clouds)
    assert raster.shape == (2, 8, 64, 32)
    expected = torch.zeros_like(raster)
    norm = layer.norm
    size, origin = torch.tensor([1.0, 2.0, 8.0]), torch.tensor([-32.0, -32.0, -2.0])
    for index, cloud in enumerate(clouds):
        cells = ((cloud[:, :3] - origin) / size).floor().long()
        inside = ((cells >= 0) & (cells < torch.tensor([64, 32, 1]))).all(dim=1)
        for row, column in torch.unique(cells[inside][:, :2], dim=0).tolist():
            found = cloud[inside & (cells[:, 0] == row) & (cells[:, 1] == column)][:5]
            middle = (torch.tensor([row, column, 0]) + 0.5) * size + origin
            position = found[:, :3]
            decorated = torch.cat([found, position - position.mean(dim=0), position - middle], dim=1)
            # mmdet3d fills a pillar up with zeros before it takes the maximum.
            decorated = torch.nn.functional.pad(decorated, (0, 0, 0, 5 - len(found)))
            with torch.no_grad():
                values = (decorated @ layer.linear.weight.T - norm.running_mean) * norm.weight
                values = values / (norm.running_var + 1e-3).sqrt() + norm.bias
            expected[index, :, row, column] = values.relu().amax(dim=0)
    assert (expected != 0).any(dim=1).sum() > 1500
    torch.testing.assert_close(raster, expected, rtol=1e-4, atol=1e-4)


def test_only_the_first_points_of_a_full_pillar_count(encoder):
    cloud = torch.tensor([[0.5, 0.5, z, 0.0] for z in (0.0, 0.1, 0.2, 0.3, 0.4, 5.0)])
    torch.testing.assert_close(encoder([cloud]), encoder([cloud[:5]]))
    assert not torch.allclose(encoder([cloud]), encoder([cloud.flip(0)]))


def test_scenes_do_not_see_each_other(encoder):
    clouds = [_points(500, 1), torch.zeros(0, 4), _points(800, 2)]
    together = encoder(clouds)
    assert not together[1].any()
    for row in (0, 2):
        torch.testing.assert_close(encoder(clouds[row : row + 1])[0], together[row])


@pytest.mark.parametrize("cloud", [torch.zeros(0, 4), torch.full((9, 4), 99.0)])
def test_a_batch_without_a_point_in_range_is_empty(encoder, cloud):
    for training in (True, False):
        assert torch.equal(encoder.train(training)([cloud, cloud]), torch.zeros(2, 8, 64, 32))


@pytest.mark.parametrize("cloud", [torch.zeros(5, 3), torch.zeros(4), torch.zeros(5, 4, dtype=torch.int32)])
def test_points_of_another_shape_or_type_are_refused(encoder, cloud):
    with pytest.raises(ValueError, match=r"scene 1 of the batch must be float \(N, 4\).*LoadPoints"):
        encoder([torch.zeros(5, 4), cloud])


def test_settings_reach_mmdet3d(mmdet3d):
    config = {"feat_channels": (16, 8), "voxel_encoder": {"with_distance": True}, "max_pillars": 3}
    encoder = PointPillarsEncoder(grid_size=(64, 32), **config).eval()
    linear = [layer.linear for layer in encoder.voxel_encoder.pfn_layers]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(11, 8), (16, 8)]
    torch.nn.init.constant_(encoder.voxel_encoder.pfn_layers[-1].norm.bias, 50.0)
    assert encoder([_points(500)]).amax(dim=1).count_nonzero() == 3


# ------------------------------------------------------------------ the planner
@pytest.fixture
def planner(mmdet3d):
    torch.manual_seed(0)
    return MODELS.build(PLANNER)


def test_the_planner_asks_for_points(planner):
    assert planner.required_inputs == ("camera", "points", "status")
    batch = _batch([50, 60])
    batch["inputs"]["lidar"] = batch["inputs"].pop("points")
    batch["inputs"]["lidar"] = [torch.zeros(1, 64, 32)] * 2
    with pytest.raises(PlannerInputError, match="needs input 'points'"):
        planner.test_step(batch)
    with pytest.raises(ValueError, match="inputs have no 'points': add LoadPoints"):
        planner.backbone(torch.zeros(1, 3, 32, 64))


def test_plans_follow_from_the_points(planner):
    planner.eval()
    batch = _batch([900, 1000])
    first, second = (planner.test_step(batch)[1].pred.trajectory.clone() for _ in range(2))
    assert torch.equal(first, second)
    batch["inputs"]["points"][1] = batch["inputs"]["points"][1] * torch.tensor([1, -1, 1, 1])
    assert not torch.allclose(planner.test_step(batch)[1].pred.trajectory, first)


def test_training_reaches_the_pillars(planner):
    planner.train()
    data = planner.data_preprocessor(_batch([900, 0, 1000]), True)
    optimizer = torch.optim.AdamW(planner.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        total, _ = planner.parse_losses(planner(**data, mode="loss"))
        optimizer.zero_grad()
        total.backward()
        gradients = [parameter.grad for parameter in planner.backbone.pillars.parameters()]
        assert len(gradients) == 3 and all(g.isfinite().all() and g.any() for g in gradients)
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < losses[0]


def test_half_precision(planner):
    planner.eval()
    batch = _batch([900, 1000])
    exact = torch.stack([sample.pred.trajectory for sample in planner.test_step(batch)])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = torch.stack([sample.pred.trajectory for sample in planner.test_step(batch)])
    np.testing.assert_allclose(rounded.float(), exact, atol=0.1 * exact.abs().max().item())
    assert not torch.equal(rounded.float(), exact)


def test_components_are_found_whatever_the_default_scope(mmdet3d):
    for scope in ("beyonddrive", "mmengine"):
        with DefaultScope.overwrite_default_scope(scope):
            encoder = PointPillarsEncoder(grid_size=(8, 8), feat_channels=(4,))
        modules = [encoder.voxelizer, encoder.voxel_encoder]
        assert all(type(module).__module__.startswith("mmdet3d.") for module in modules)


def test_pillars_lie_where_mmdet3d_puts_them(mmdet3d):
    encoder = PointPillarsEncoder(grid_size=(6, 4), feat_channels=(3,))
    scatter = MODELS.build({"type": "mmdet3d.PointPillarsScatter", "in_channels": 3, "output_shape": [4, 6]})
    rng = torch.Generator().manual_seed(0)
    cells = torch.randperm(2 * 4 * 6, generator=rng)[:20]
    places = torch.stack([cells // 24, torch.zeros(20).long(), cells % 24 // 6, cells % 6], dim=1)
    features = torch.randn(20, 3, generator=rng, requires_grad=True)
    ours, theirs = encoder._placed(features, places, 2), scatter(features, places, 2)
    assert ours.equal(theirs) and ours.shape == (2, 3, 4, 6)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn(ours.shape, generator=rng)
    grads = [torch.autograd.grad((made * weight).sum(), features)[0] for made in (ours, theirs)]
    assert grads[0].equal(grads[1])
