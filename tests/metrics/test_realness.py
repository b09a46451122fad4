"""The discriminator's own scores: real images high, whatever sign the loss gives them."""

import jax
import numpy as np
import pytest

from lwgan.metrics.realness import Critic, score_realness
from lwgan.training.losses import LOSSES
from tests import tiny


@pytest.mark.parametrize(("kind", "sign"), [("hinge", -1), ("dual_contrastive", 1)])
@pytest.mark.parametrize("output_size", [1, 5])
def test_realness_is_the_mean_logit_with_reals_high(kind, sign, output_size):
    networks = tiny.gan(model__disc_output_size=output_size)
    params = jax.device_get(tiny.init(networks).d_params)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    batches = np.split(images, [2, 4])
    found = score_realness(Critic(networks.discriminator, params, LOSSES[kind].real_sign), batches)
    images = images.astype(np.float32) / 255
    logits = networks.discriminator.apply({"params": params}, images, np.int32(0)).logits
    assert logits.shape == (5, output_size**2)
    np.testing.assert_allclose(found, sign * logits.mean(1), atol=1e-5)
    assert np.ptp(found) > 0


@pytest.mark.parametrize("kind", LOSSES)
def test_the_sign_of_reals_is_what_the_loss_rewards(kind):
    high, low = np.ones((4, 1), np.float32), -np.ones((4, 1), np.float32)
    rewarded = LOSSES[kind].discriminator(high, low) < LOSSES[kind].discriminator(low, high)
    assert LOSSES[kind].real_sign == (1 if rewarded else -1)
