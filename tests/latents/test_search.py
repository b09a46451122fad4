"""Latents are found again."""

import numpy as np
import pytest

import lwgan
from lwgan.latents.search import Effort, find_latent
from lwgan.sampling.labels import labels_at
from lwgan.training.evaluation import critic_at
from tests import tiny

EFFORT = Effort(candidates=64, starts=2, steps=150)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("search") / "run"
    tiny.save_run(workdir, (2,), tiny.config(model__output="tanh"))
    trained = lwgan.load(workdir)
    return trained, critic_at(trained.run, 2)


@pytest.mark.parametrize("with_noise", [False, True])
def test_a_drawn_image_is_found_again(run, with_noise):
    trained, critic = run
    target = trained(trained.latents(seed=5, count=1), seed=5 if with_noise else None)[0]
    watched = []
    found = find_latent(
        trained, critic, target, EFFORT, with_noise=with_noise, watch=watched.append
    )
    assert found.psnr > 30
    error = np.square(found.image.clip(0, 1) - target).mean()
    np.testing.assert_allclose(found.psnr, min(100, -10 * np.log10(error)), rtol=1e-4)
    assert len(watched) == 15
    assert np.square(watched[0].clip(0, 1) - target).mean() > 2 * error
    # It is the image of that latent and noise.
    generator = trained.generator
    variables = {"params": trained.params, "batch_stats": trained.stats}
    noise = [each[None] for each in found.noise]
    again = generator.apply(variables, found.latent[None], noise, None, train=False)
    np.testing.assert_allclose(again[0], found.image, atol=1e-4)
    moved = any(each.any() for each in found.noise)
    assert moved == with_noise


def test_latents_stay_where_the_generator_has_learnt(run):
    trained, critic = run
    found = find_latent(trained, critic, np.zeros((32, 32, 3), np.float32), EFFORT)
    assert np.linalg.norm(found.latent) <= 1.25 * np.sqrt(8) + 1e-4


def test_the_label_is_the_nearest_ones_or_the_given_one(tmp_path):
    settings = tiny.config(data__label_names=("a", "b", "c"), model__output="tanh")
    tiny.save_run(tmp_path / "run", (2,), settings)
    trained = lwgan.load(tmp_path / "run")
    critic, own = critic_at(trained.run, 2), labels_at(np.array([1]), trained.label_names)
    latents = trained.latents(seed=3, count=1)
    (target,) = trained(latents, seed=None, labels=own)
    found = find_latent(trained, critic, target, EFFORT, with_noise=False, label=own[0])
    assert found.label.tolist() == [0, 1, 0]
    assert found.psnr > 30
    free = find_latent(trained, critic, target, EFFORT, with_noise=False)
    assert free.psnr > 30
    (again,) = trained(free.latent[None], seed=None, labels=free.label[None])
    np.testing.assert_allclose(again, free.image, atol=1e-4)
