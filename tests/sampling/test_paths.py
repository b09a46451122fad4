"""Paths between latents."""

import numpy as np
import pytest

from lwgan.sampling import paths


def test_between_turns_and_stretches_at_constant_speed():
    starts, ends = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
    path = paths.between(starts, ends, 6).reshape(3, 6, 16)
    np.testing.assert_allclose(path[:, 0], starts, atol=1e-6)
    np.testing.assert_allclose(path[:, -1], ends, atol=1e-6)
    unit = path / np.linalg.norm(path, axis=-1, keepdims=True)
    angles = np.arccos((unit[:, 1:] * unit[:, :-1]).sum(-1))
    np.testing.assert_allclose(angles, np.broadcast_to(angles[:, :1], (3, 5)), rtol=1e-3)
    np.testing.assert_allclose(angles.sum(1), paths.angles(starts, ends), rtol=1e-3)
    growth = np.diff(np.linalg.norm(path, axis=-1))
    np.testing.assert_allclose(growth, np.broadcast_to(growth[:, :1], (3, 5)), atol=1e-5)


def test_loop_turns_by_the_same_angle_from_frame_to_frame():
    """Three right angles: 9° a frame, round every corner."""
    path, stops = paths.closed_loop(np.eye(3, dtype=np.float32), 31)
    np.testing.assert_array_equal(stops, [0, 10, 20, 30])
    np.testing.assert_allclose(paths.angles(path[:-1], path[1:]), np.pi / 20, rtol=1e-6)
    np.testing.assert_allclose(
        path[3], [np.cos(3 * np.pi / 20), np.sin(3 * np.pi / 20), 0], atol=1e-7
    )


@pytest.mark.parametrize(("count", "frames"), [(2, 3), (3, 7), (4, 240), (7, 240)])
def test_loop_is_closed_and_goes_through_all_keyframes(count, frames):
    keyframes = np.random.default_rng(count).normal(size=(count, 64)).astype(np.float32)
    path, stops = paths.closed_loop(keyframes, frames)
    assert path.shape == (frames, 64) and path.dtype == np.float32
    np.testing.assert_array_equal(path[0], path[-1])
    np.testing.assert_allclose(path[stops], keyframes[[*range(count), 0]], atol=1e-5)
    if frames == 240:
        angles = paths.angles(path[:-1], path[1:])
        assert angles.max() / angles.min() < 1 + 2 * count / frames


def test_loop_takes_longer_for_a_greater_angle():
    keyframes = np.array([[1, 0], [np.cos(0.5), np.sin(0.5)], [-1, 1e-6]], np.float32)
    _, stops = paths.closed_loop(keyframes, 201)
    np.testing.assert_allclose(
        np.diff(stops), 200 * np.array([0.5, np.pi - 0.5, np.pi]) / (2 * np.pi), atol=1
    )


def test_loop_with_the_same_keyframe_twice_has_all_its_frames():
    keyframes = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    path, stops = paths.closed_loop(keyframes, 9)
    np.testing.assert_array_equal(stops, [0, 0, 4, 8])
    np.testing.assert_allclose(paths.angles(path[:-1], path[1:]), np.pi / 8, rtol=1e-6)


@pytest.mark.parametrize("end", [1.0, -1.0, 2.0])
def test_between_latents_of_one_direction_is_finite(end):
    start = np.ones((1, 4), np.float32)
    path = paths.between(start, end * start, 5)
    assert path.shape == (5, 4) and np.isfinite(path).all()
    np.testing.assert_allclose(path[[0, -1]], [start[0], end * start[0]], atol=1e-4)
