"""Paths between latents."""

import numpy as np


def between(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """Paths (N · steps, D) from starts (N, D) to ends (N, D) along the sphere, ends included.

    The direction turns at constant speed (Shoemake, SIGGRAPH 1985), and the length changes at
    constant speed.
    """
    starts, ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    lengths = [np.linalg.norm(each, axis=-1)[:, None, None] for each in (starts, ends)]
    # Neither no angle nor half a turn has a direction.
    angle = np.clip(angles(starts, ends), 1e-3, np.pi - 1e-3)[:, None, None]
    part = np.linspace(0, 1, steps)[None, :, None]
    path = np.sin((1 - part) * angle) * starts[:, None] / lengths[0]
    path += np.sin(part * angle) * ends[:, None] / lengths[1]
    path *= ((1 - part) * lengths[0] + part * lengths[1]) / np.sin(angle)
    return path.reshape(-1, starts.shape[-1]).astype(np.float32)


def angles(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The angles (N,) in radians, float64, between latents (N, D) each."""
    starts, ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    lengths = np.linalg.norm(starts, axis=-1) * np.linalg.norm(ends, axis=-1)
    return np.arccos(np.clip((starts * ends).sum(-1) / lengths, -1, 1))


def mixed_loop(keyframes: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Weights (frames, L) that go straight from one of (K, L) to the next, and back to the first.

    ``stops`` are the frames at them, as ``closed_loop`` gives them.
    """
    closed = np.concatenate([keyframes, keyframes[:1]])
    frames = np.arange(stops[-1] + 1)
    columns = [np.interp(frames, stops, weights) for weights in closed.T]
    return np.stack(columns, axis=1).astype(np.float32)


def closed_loop(keyframes: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """A path (frames, D) through latents (K, D) and back, and the K + 1 frames at them.

    Each way from one to the next takes whole frames in proportion to its angle, so that the angle
    from frame to frame is as constant as that allows. The last frame is the first.
    """
    following = np.roll(keyframes, -1, axis=0)
    turned = np.cumsum(angles(keyframes, following))
    stops = np.concatenate([[0], np.round(turned / turned[-1] * (frames - 1)).astype(int)])
    ways = [
        between(start[None], end[None], count + 1)[:-1]
        for start, end, count in zip(keyframes, following, np.diff(stops), strict=True)
    ]
    path = np.concatenate(ways)
    return np.concatenate([path, path[:1]]), stops
