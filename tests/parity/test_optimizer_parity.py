"""The optimizers make the updates of the package's, given the same gradients."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import package, torch

from lwgan.training.optimizers import OPTIMIZERS

pytestmark = pytest.mark.parity

SHAPES = ((3, 4), (5,), (2, 2, 2))


@pytest.mark.parametrize("name", ["adam", "adabelief"])
@pytest.mark.parametrize("scale", [1.0, 1e-5])
@pytest.mark.parametrize("rate", [2e-4, 1e-2])
def test_twelve_updates(name, scale, rate):
    rng = np.random.default_rng(0)

    def draw(scale):
        return [(scale * rng.standard_normal(shape)).astype(np.float32) for shape in SHAPES]

    start = draw(1.0)
    tx = OPTIMIZERS[name](rate, 0.5, 0.9)
    ours = list(map(jnp.asarray, start))
    state = tx.init(ours)

    theirs = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in start]
    optimizer = {"adam": package.Adam, "adabelief": package.AdaBelief}[name]
    # AdaBelief greets.
    with contextlib.redirect_stdout(io.StringIO()):
        optimizer = optimizer(theirs, lr=rate, betas=(0.5, 0.9))

    for step in range(12):
        grads = draw(scale)
        for parameter, grad in zip(theirs, grads, strict=True):
            parameter.grad = torch.from_numpy(grad.copy())
        optimizer.step()
        updates, state = jax.jit(tx.update)(list(map(jnp.asarray, grads)), state)
        ours = optax.apply_updates(ours, updates)
        for array, parameter in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(
                array, parameter.detach().numpy(), rtol=0, atol=1e-6, err_msg=f"step {step}"
            )
