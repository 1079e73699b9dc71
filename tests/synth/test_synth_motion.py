"""Smooth motion: positions, headings, speeds and accelerations of one body that moves as a car does."""

import numpy as np
import pytest

from beyonddrive.synth.motion import pedestrian_motion, vehicle_motion
from beyonddrive.synth.recording import RawTrack
from beyonddrive.synth.traffic import STEP
from beyonddrive.synth.vehicle_types import VEHICLE_TYPES

EGO = next(kind for kind in VEHICLE_TYPES if kind.name == "ego")


def track(path, speed):
    """Track along a polyline (N, 2) with speeds (T,) m/s, as SUMO records it."""
    station = np.concatenate([[0.0], np.cumsum(np.asarray(speed)[1:] * STEP)])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    position = np.stack([np.interp(station, length, path[:, i]) for i in (0, 1)], axis=-1)
    return RawTrack("ego_0", "ego", 0, position, np.asarray(speed, float), ["lane"] * len(speed))


@pytest.fixture()
def corner():
    """A car that brakes hard, creeps around a corner of 7 m radius, and accelerates hard."""
    angle = np.linspace(0.0, np.pi / 2, 20)
    arc = np.stack([40.0 + 7.0 * np.sin(angle), 7.0 - 7.0 * np.cos(angle)], axis=-1)
    path = np.concatenate([[[0.0, 0.0], [40.0, 0.0]], arc[1:], [[47.0, 90.0]]])
    speed = np.concatenate(
        [
            np.full(30, 8.0),
            np.linspace(8.0, 4.0, 14),
            np.full(50, 4.0),
            np.linspace(4.0, 11.0, 35),
            np.full(20, 11.0),
        ]
    )
    return vehicle_motion(track(path, speed), EGO, 0.0)


def test_straight_drive_keeps_its_speed_and_sits_behind_the_bumper():
    motion = vehicle_motion(track(np.array([[0.0, 0.0], [100.0, 0.0]]), np.full(60, 10.0)), EGO, 0.0)
    np.testing.assert_allclose(motion.speed, 10.0, atol=1e-6)
    np.testing.assert_allclose(motion.acceleration, 0.0, atol=1e-5)
    # Front bumper to rear axle 4.049 m, to the centre 2.588 m (PDMS_V1, section 0).
    np.testing.assert_allclose(motion.pose[:, 0], np.arange(60) - 4.049, atol=1e-6)
    np.testing.assert_allclose(motion.center[:, 0], np.arange(60) - 2.588, atol=1e-6)


def test_rear_axle_moves_in_the_direction_of_its_heading(corner):
    velocity = np.gradient(corner.pose[:, :2], STEP, axis=0)
    direction = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
    assert np.abs(direction - corner.pose[:, 2])[1:-1].max() < 5e-3
    np.testing.assert_allclose(np.hypot(*velocity.T)[1:-1], corner.speed[1:-1], atol=0.02)


def test_derivatives_agree(corner):
    np.testing.assert_allclose(np.gradient(corner.speed, STEP)[2:-2], corner.acceleration[2:-2], atol=1e-9)
    turning = np.gradient(corner.pose[:, 2], STEP)
    np.testing.assert_allclose(turning[2:-2], (corner.speed * corner.curvature)[2:-2], atol=0.03)
    moving = np.gradient(corner.center, STEP, axis=0)
    np.testing.assert_allclose(moving[2:-2], corner.center_velocity[2:-2], atol=0.06)


def test_a_corner_at_walking_pace_is_comfortable(corner):
    yaw_rate = corner.speed * corner.curvature
    jerk = np.diff(corner.acceleration) / STEP
    assert np.abs(jerk).max() < 4.13  # the limits of PDMS_V1, section 10
    assert np.abs(yaw_rate).max() < 0.95
    assert np.abs(np.diff(yaw_rate) / STEP).max() < 1.93


def test_smoothing_keeps_the_follower_behind_the_leader():
    rng = np.random.default_rng(0)
    lead = np.clip(8.0 + np.cumsum(rng.normal(0.0, 0.5, 200)), 0.0, 12.0)
    follow = np.roll(lead, 10)
    follow[:10] = lead[0]
    path = np.array([[0.0, 0.0], [400.0, 0.0]])
    ahead = track(path + np.array([6.0, 0.0]), lead)
    gap = (
        vehicle_motion(ahead, EGO, 0.0).pose[:, 0] - vehicle_motion(track(path, follow), EGO, 0.0).pose[:, 0]
    )
    raw = ahead.position[:, 0] - track(path, follow).position[:, 0]
    assert gap.min() >= raw.min() - 1e-6


def test_a_slide_at_standstill_does_not_spin_the_car():
    path = np.array([[0.0, 0.0], [60.0, 0.0]])
    drive = track(path, np.concatenate([np.full(40, 6.0), np.zeros(30), np.full(40, 6.0)]))
    position = drive.position.copy()
    position[45:70, 1] = np.linspace(0.0, 2.0, 25)
    position[70:, 1] = 2.0
    motion = vehicle_motion(RawTrack("ego_0", "ego", 0, position, drive.speed, drive.lane), EGO, 0.0)
    assert np.abs(motion.pose[:, 2]).max() < 0.5
    standing = motion.pose[55:60]
    assert np.ptp(standing, axis=0).max() < 0.05


def test_standing_vehicle_keeps_the_heading_of_its_lane():
    still = RawTrack("ego_0", "ego", 3, np.full((20, 2), 5.0), np.zeros(20), ["lane"] * 20)
    motion = vehicle_motion(still, EGO, 1.0)
    np.testing.assert_allclose(motion.pose[:, 2], 1.0, atol=1e-9)
    np.testing.assert_allclose(motion.speed, 0.0)
    assert (motion.first, motion.last) == (3, 22)


def test_pedestrian_faces_where_it_walks_and_keeps_facing_there():
    x = np.concatenate([np.zeros(20), 0.13 * np.arange(60), np.full(20, 0.13 * 59)])
    walk = RawTrack("person_0", "pedestrian", 0, np.stack([0 * x, x], -1), np.zeros(100), [""] * 100)
    motion = pedestrian_motion(walk, (0.5, 0.6, 1.7))
    np.testing.assert_allclose(motion.pose[:, 2], np.pi / 2, atol=1e-3)
    np.testing.assert_allclose(motion.speed[35:65], 1.3, atol=0.02)
