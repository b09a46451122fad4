import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lwgan.training.optimizers import OPTIMIZERS, freezing, rate_factor

B1, B2, RATE = 0.5, 0.9, 1e-2


def adam(grads, params):
    m = v = np.zeros_like(params)
    for t, g in enumerate(grads, 1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g**2
        params = params - RATE * (m / (1 - B1**t)) / (np.sqrt(v / (1 - B2**t)) + 1e-8)
    return params


def adabelief(grads, params):
    """adabelief_pytorch 0.2.1 with its defaults, written out in NumPy float64."""
    m = s = np.zeros_like(params)
    rho_inf = 2 / (1 - B2) - 1
    for t, g in enumerate(grads, 1):
        m = B1 * m + (1 - B1) * g
        s = B2 * s + (1 - B2) * (g - m) ** 2 + 1e-16
        rho = rho_inf - 2 * t * B2**t / (1 - B2**t)
        if rho < 5:
            params = params - RATE * m / (1 - B1**t)
            continue
        r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
        step = r * math.sqrt(1 - B2**t) / (1 - B1**t)
        params = params - RATE * step * m / (np.sqrt(s) + 1e-16)
    return params


@pytest.mark.parametrize(("name", "written_out"), [("adam", adam), ("adabelief", adabelief)])
def test_twelve_updates_against_the_formula(name, written_out):
    rng = np.random.default_rng(0)
    grads, start = rng.standard_normal((12, 5)), rng.standard_normal(5)
    tx, params = OPTIMIZERS[name](RATE, B1, B2), jnp.asarray(start, jnp.float32)
    state = tx.init(params)
    for grad in grads:
        updates, state = tx.update(jnp.asarray(grad, jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, written_out(grads, start), rtol=2e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_modules_do_not_move_on_what_was_before(name):
    """Neither gradients nor their remembered mean move them; the state keeps its shape."""
    optimizer = OPTIMIZERS[name](0.1, 0.9, 0.99)
    params = {"a": {"kernel": jnp.arange(3.0)}, "b": {"kernel": jnp.arange(2.0)}}
    grads = jax.tree.map(jnp.ones_like, params)
    _, before = optimizer.update(grads, optimizer.init(params), params)
    updates, after = freezing(optimizer, {"a"}).update(grads, before, params)
    assert not updates["a"]["kernel"].any() and updates["b"]["kernel"].all()
    expected, _ = optimizer.update(grads, before, params)
    np.testing.assert_array_equal(updates["b"]["kernel"], expected["b"]["kernel"])
    still = {"a": {"kernel": jnp.zeros(3)}, "b": grads["b"]}
    _, expected = optimizer.update(still, before, params)
    jax.tree.map(np.testing.assert_array_equal, after, expected)
    thawed, _ = freezing(optimizer, set()).update(grads, after, params)
    assert thawed["a"]["kernel"].all() and np.isfinite(thawed["a"]["kernel"]).all()


def test_the_rate_falls_as_half_a_cosine_over_the_last_part():
    expected = optax.join_schedules([lambda _: 1.0, optax.cosine_decay_schedule(1.0, 40)], [60])
    found = [
        float(rate_factor(jnp.int32(t), num_steps=100, warmup=0, decay=0.4)) for t in range(120)
    ]
    np.testing.assert_allclose(found, [expected(t) for t in range(120)], atol=1e-6)
    assert 0 < found[99] < 0.01 and found[100] == 0


def test_the_rate_grows_in_the_first_updates():
    found = [float(rate_factor(jnp.int32(t), 100, warmup=4, decay=0.0)) for t in range(6)]
    assert found == [0.25, 0.5, 0.75, 1, 1, 1]
