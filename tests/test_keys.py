import jax
import jax.numpy as jnp
import numpy as np

from lwgan.keys import Draw, draw_latents, example_keys, seed_key, step_key


def numbers(keys):
    return np.asarray(jax.random.key_data(keys))


def test_a_key_depends_on_the_example_alone():
    key = step_key(1, 0, 7)
    whole = example_keys(key, Draw.D_LATENTS, jnp.arange(8))
    np.testing.assert_array_equal(
        numbers(whole[4:]), numbers(example_keys(key, Draw.D_LATENTS, jnp.arange(4, 8)))
    )


def test_every_part_of_the_address_changes_the_key():
    first = jnp.arange(1)
    addresses = [
        example_keys(step_key(*address), draw, first)
        for address in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
        for draw in Draw
    ]
    assert len({tuple(numbers(keys).ravel()) for keys in addresses}) == 4 * len(Draw)


def test_the_numbers_of_draws_are_part_of_a_run():
    assert [draw.value for draw in Draw] == list(range(1, 19))
    assert (Draw.D_QUADRANT, Draw.SAMPLE_NOISE, Draw.SAMPLE_LABELS) == (9, 17, 18)


def test_latents_are_standard_normal():
    latents = draw_latents(jax.random.split(seed_key(0), 2000), 16)
    assert latents.shape == (2000, 16)
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(latents.std(0), 1, atol=0.06)
