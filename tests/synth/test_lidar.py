import numpy as np
import pytest

from beyonddrive.synth.lidar import LidarConfig, scan
from beyonddrive.synth.rig import LIDAR_POSITION

EXACT = LidarConfig(noise=0.0)
CAR = (15.0, 0.0, 0.8, 4.0, 2.0, 1.6, 0.0)


def test_ground_lies_at_zero_and_reaches_around():
    points = scan([], [], seed=0)
    assert points.dtype == np.float32
    assert points.shape[0] == 6
    assert np.abs(points[2]).max() < 0.05
    assert np.hypot(points[0], points[1]).max() > 60.0
    angles = np.arctan2(points[1] - LIDAR_POSITION[1], points[0] - LIDAR_POSITION[0])
    assert np.diff(np.sort(angles)).max() < 0.02
    assert set(np.unique(points[4])) <= set(range(32))
    assert set(np.unique(points[5])) == {0.0}


def test_hits_lie_on_the_faces_that_the_sensor_sees():
    points = scan([CAR], ["vehicle"], seed=0, config=EXACT)
    hits = points[:, points[2] > 0.05]
    x, y, z = hits[:3].astype(float)
    assert len(x) > 50
    rear, roof = np.abs(x - 13.0) < 1e-4, np.abs(z - 1.6) < 1e-4
    assert (rear | roof).all()
    assert rear.sum() > 30
    assert roof.sum() > 0
    assert (np.abs(y) <= 1.0 + 1e-4).all()
    assert z.max() <= 1.6 + 1e-4
    assert (x[roof] >= 13.0).all()


def test_a_turned_box_is_hit_on_its_turned_faces():
    heading = 0.7
    points = scan([(12.0, 5.0, 1.0, 4.0, 2.0, 2.0, heading)], ["vehicle"], seed=0, config=EXACT)
    hits = points[:2, points[2] > 0.05].astype(float).T - (12.0, 5.0)
    along = hits @ (np.cos(heading), np.sin(heading))
    across = hits @ (-np.sin(heading), np.cos(heading))
    assert len(hits) > 50
    on_side = np.isclose(np.abs(along), 2.0, atol=1e-4) | np.isclose(np.abs(across), 1.0, atol=1e-4)
    assert on_side.all()


def test_nothing_is_returned_from_behind_a_wall():
    wall = (10.0, 0.0, 5.0, 0.5, 8.0, 10.0, 0.0)
    points = scan([wall, CAR], ["barrier", "vehicle"], seed=0, config=EXACT)
    free = scan([CAR], ["vehicle"], seed=0, config=EXACT)

    def behind(sweep):
        x, y = sweep[0] - LIDAR_POSITION[0], sweep[1]
        return (x > 10.3) & (np.abs(y) < 0.38 * x)

    assert behind(free).sum() > 200
    assert behind(points).sum() == 0


def test_low_things_shade_the_ground_behind_them():
    points = scan([CAR], ["vehicle"], seed=0, config=EXACT)
    ground = points[:, points[2] < 0.05]
    # The ray over the rear edge of the roof at 1.6 m meets the ground far beyond the car.
    under = (ground[0] > 13.1) & (ground[0] < 25.0) & (np.abs(ground[1]) < 0.7)
    assert under.sum() == 0


def test_rays_pass_below_a_raised_box():
    sign = (8.0, 0.0, 4.0, 0.2, 4.0, 2.0, 0.0)
    points = scan([sign], ["czone_sign"], seed=0, config=EXACT)
    ahead = (points[0] > 8.5) & (np.abs(points[1]) < 1.0) & (points[2] < 0.05)
    assert ahead.sum() > 10


def test_range_and_noise_are_kept():
    config = LidarConfig(max_range=30.0, noise=0.02)
    points = scan([CAR], ["vehicle"], seed=3, config=config).astype(float)
    away = np.linalg.norm(points[:3] - np.array(LIDAR_POSITION)[:, None], axis=0)
    assert away.max() < 30.0 + 0.07
    rear = points[0, (points[2] > 0.1) & (points[2] < 1.5)]
    assert 0.005 < np.std(rear) < 0.04


def test_same_seed_same_points():
    np.testing.assert_array_equal(scan([CAR], ["vehicle"], seed=5), scan([CAR], ["vehicle"], seed=5))
    assert not np.array_equal(scan([CAR], ["vehicle"], seed=5), scan([CAR], ["vehicle"], seed=6))


def test_the_default_sweep_has_about_twenty_thousand_rays_and_classes_differ_in_intensity():
    config = LidarConfig()
    assert 18_000 <= config.beams * config.columns <= 25_000
    assert (np.diff(config.elevations) > 0).all()
    sign = scan([CAR], ["czone_sign"], seed=1)
    car = scan([CAR], ["vehicle"], seed=1)
    assert sign[3, sign[2] > 0.1].mean() > 2 * car[3, car[2] > 0.1].mean()
    assert (sign[3] == np.round(sign[3])).all()
    assert sign[3].min() >= 0
    assert sign[3].max() <= 255


def test_a_box_around_the_sensor_is_no_obstacle():
    ego = (1.4, 0.0, 0.9, 5.2, 2.3, 1.8, 0.0)
    np.testing.assert_array_equal(scan([ego], ["vehicle"], seed=0)[:3], scan([], [], seed=0)[:3])


def test_boxes_and_kinds_must_match():
    with pytest.raises(ValueError, match="kinds"):
        scan([CAR], [], seed=0)
