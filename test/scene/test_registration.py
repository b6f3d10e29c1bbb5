import numpy as np
from scipy.spatial.transform import Rotation

from threedme_ros.scene.registration import Registration


def transform(x_mm=0.0, turn_deg=0.0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
    matrix[:3, 3] = [0.6 + x_mm / 1000, 0.0, 0.2]
    return matrix


def told(samples):
    """Times in s at which a change was told; samples: (time, transform)."""
    registration = Registration(tolerance_mm=0.5, tolerance_deg=0.05, settle_s=0.5)
    return [now_s for now_s, matrix in samples if registration.update(now_s, matrix)]


def test_the_first_transform_and_noise_are_no_change():
    assert told([(t / 10, transform(0.2 * (-1) ** t)) for t in range(30)]) == []


def test_a_shift_is_told_once_when_it_is_over():
    assert told([(t / 10, transform(5.0 if t >= 10 else 0.0)) for t in range(30)]) == [1.5]


def test_a_turn_is_a_change():
    assert told([(t / 10, transform(turn_deg=0.1 * (t >= 10))) for t in range(30)]) == [1.5]


def test_a_slow_drift_is_noticed():
    assert told([(float(t), transform(0.1 * t)) for t in range(9)]) == [7.0]


def test_a_transform_that_keeps_moving_is_told_now_and_then_and_at_its_end():
    assert told([(t / 8, transform(min(t, 40))) for t in range(60)]) == [2.125, 4.125, 5.5]
