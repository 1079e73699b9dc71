"""CenterHead beside a planner: right cells, right frame, right counts, and it learns."""

import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData

from beyonddrive.heads.center_point import CenterPointHead
from beyonddrive.openmmlab import to_lidar_boxes
from beyonddrive.structures.sample import PlanSample
from beyonddrive.structures.tokens import SceneTokens

pytestmark = pytest.mark.mmdet3d
SMALL = {"share_conv_channel": 8, "separate_head": {"head_conv": 8}, "train_cfg": {"min_radius": 1}}
BOXES = torch.tensor(
    [
        [12.3, -5.2, 0.7, 4.5, 1.9, 1.6, 0.6, 5.0, 1.0],
        [-8.1, 20.4, 0.9, 4.1, 1.8, 1.5, -2.5, -3.0, 0.5],
        [3.6, 9.7, 0.8, 0.7, 0.6, 1.7, 1.4, 0.2, 1.3],
    ]
)
LABELS = torch.tensor([0, 0, 1])


@pytest.fixture
def head(mmdet3d):
    torch.manual_seed(0)
    return CenterPointHead(in_channels=4, map_size=(32, 48), score_threshold=0.3, head=SMALL)


def sample(boxes=BOXES, labels=LABELS):
    made = PlanSample(metainfo={"token": "scene0"})
    made.gt = BaseDataElement(boxes=boxes, box_labels=labels)
    return made


def tokens(points):
    return SceneTokens(torch.zeros(len(points), 1, 4), torch.zeros(len(points), 8), points=points)


def ideal_maps(head, boxes, labels):
    """What a perfect network gives: raw maps of each class that hold the targets of mmdet3d's own head."""
    instances = InstanceData(bboxes_3d=to_lidar_boxes(boxes), labels_3d=labels)
    heatmaps, targets, cells, masks = head.head.get_targets([instances])
    maps = []
    for heatmap, target, cell, mask in zip(heatmaps, targets, cells, masks, strict=True):
        raster = torch.zeros(1, 10, heatmap[0, 0].numel())
        raster[0][:, cell[0][mask[0] > 0]] = target[0][mask[0] > 0].T
        raster = raster.reshape(1, 10, *heatmap.shape[2:])
        named = dict(
            zip(("reg", "height", "dim", "rot", "vel"), raster.split([2, 1, 3, 2, 2], 1), strict=True)
        )
        maps.append(named | {"heatmap": torch.logit(heatmap.clamp(1e-4, 1 - 1e-4))})
    return maps


def test_what_is_encoded_is_decoded_in_the_ego_frame(head, monkeypatch):
    maps = ideal_maps(head, BOXES, LABELS)
    monkeypatch.setattr(head, "_tasks", lambda tokens: maps)
    (found,) = head.detect(tokens(torch.zeros(1, 4, 32, 48)))
    order = [int((found.boxes[:, :2] - box[:2]).norm(dim=1).argmin()) for box in BOXES]
    assert sorted(order) == [0, 1, 2]
    assert torch.allclose(found.boxes[order], BOXES, atol=1e-3)
    assert found.box_labels[order].equal(LABELS)
    assert (found.box_scores.diff() <= 0).all()


def test_rows_are_along_x_and_columns_along_y(head):
    """A point in the map moves what is found along the same axis."""
    maps = ideal_maps(head, BOXES[:1], LABELS[:1])
    peak = int(maps[0]["heatmap"].flatten().argmax())
    y_cells, x_cells = maps[0]["heatmap"].shape[2:]
    assert (y_cells, x_cells) == (48, 32)  # as mmdet3d wants it: (y, x)
    row, column = peak % x_cells, peak // x_cells
    assert row == int((12.3 + 32) / 2.0) and column == int((-5.2 + 32) / (64 / 48))
    given = torch.zeros(1, 4, 32, 48)
    quiet = head(tokens(given))["agent_heatmaps"]
    assert quiet.shape == (1, 3, 32, 48)
    given[0, :, 25, 7] = 50.0
    changed = (head.eval()(tokens(given))["agent_heatmaps"] - head(tokens(0 * given))["agent_heatmaps"]).abs()
    where = (changed.amax(dim=(0, 1)) > 0).nonzero()
    assert where.min(0).values.tolist() >= [21, 3] and where.max(0).values.tolist() <= [29, 11]


def test_it_learns_to_find_agents(head):
    generator = torch.Generator().manual_seed(1)
    batch = tokens(torch.randn(1, 4, 32, 48, generator=generator))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    first = None
    for _ in range(80):
        losses = head.loss(batch, [sample()])
        assert set(losses) == {"loss_center_heatmap", "loss_center_box"}
        total = sum(losses.values())
        first = first or total.item()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.3 * first
    (found,) = head.eval().detect(batch)
    for box, label in zip(BOXES, LABELS, strict=True):
        distance = (found.boxes[found.box_labels == label][:, :2] - box[:2]).norm(dim=1)
        assert len(distance) and distance.min() < 1.0


def test_agents_without_a_point_are_no_targets(head):
    batch = tokens(torch.randn(1, 4, 32, 48, generator=torch.Generator().manual_seed(2)))
    hidden, bare = sample(), sample(BOXES[:2], LABELS[:2])
    hidden.gt.box_points = torch.tensor([7, 1, 0])
    losses = [head.loss(batch, [one]) for one in (hidden, bare, sample())]
    torch.testing.assert_close(losses[0], losses[1])
    assert all(abs(losses[0][name] - losses[2][name]) > 1e-3 for name in losses[0])


def test_one_task_for_all_classes_decodes_the_same(mmdet3d, monkeypatch):
    tasks = [{"num_class": 3, "class_names": ["vehicle", "pedestrian", "bicycle"]}]
    head = CenterPointHead(4, (32, 48), score_threshold=0.3, head={**SMALL, "tasks": tasks})
    given = tokens(torch.zeros(1, 4, 32, 48))
    assert head(given)["agent_heatmaps"].shape == (1, 3, 32, 48)
    maps = ideal_maps(head, BOXES, LABELS)
    monkeypatch.setattr(head, "_tasks", lambda tokens: maps)
    (found,) = head.detect(given)
    order = [int((found.boxes[:, :2] - box[:2]).norm(dim=1).argmin()) for box in BOXES]
    assert sorted(order) == [0, 1, 2]
    assert torch.allclose(found.boxes[order], BOXES, atol=1e-3)
    assert found.box_labels[order].equal(LABELS)


def test_no_agents_are_a_loss_and_no_boxes_an_error(head):
    batch = tokens(torch.zeros(1, 4, 32, 48))
    losses = head.loss(batch, [sample(BOXES[:0], LABELS[:0])])
    assert float(losses["loss_center_box"]) == 0 and float(losses["loss_center_heatmap"]) > 0
    with pytest.raises(KeyError, match=r"scene a has no gt\.boxes: add AgentBoxTargets"):
        head.loss(batch, [PlanSample(metainfo={"token": "a"})])


def test_what_makes_no_map_is_refused(head):
    with pytest.raises(ValueError, match=r"in_channels is 4 and map_size \(32, 48\): make them agree"):
        head(tokens(torch.zeros(1, 4, 32, 32)))
    with pytest.raises(ValueError, match=r"CenterPointHead needs tokens\.points"):
        head(SceneTokens(torch.zeros(1, 1, 4), torch.zeros(1, 8)))
    for settings, problem in (
        ({"reads": "image"}, "reads must be 'points' or 'bev'"),
        ({"map_range": (0, 0, 0, 0, 1, 1)}, "three lower and three larger"),
        ({"weight": 0.0}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=problem):
            CenterPointHead(4, (8, 8), **settings)
    with pytest.raises(ValueError, match="sizes are learned as logarithms"):
        CenterPointHead(4, (8, 8), head={"norm_bbox": False})
    with pytest.raises(ValueError, match="max_objs would change nothing here"):
        CenterPointHead(4, (8, 8), head={"train_cfg": {"max_objs": 5}})


def test_a_camera_planner_can_have_it_on_the_fused_map(mmdet3d):
    head = CenterPointHead(4, (8, 8), reads="bev", head=SMALL)
    fused = SceneTokens(torch.zeros(1, 1, 4), torch.zeros(1, 8), bev=torch.zeros(1, 4, 8, 8))
    assert head(fused)["agent_heatmaps"].shape == (1, 3, 8, 8)
