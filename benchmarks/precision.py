"""How far the gradient penalty of each kind of arithmetic is from float64, on a CPU.

    python benchmarks/precision.py --workdir=runs/quickstart
    python benchmarks/precision.py --image_size=64          # the full width, untrained

For real images of the run's dataset, or noise, and the newest checkpoint's discriminator, or a new
one: the relative error of the penalty, of its gradient with respect to the parameters, and of the
gradient of the mean logit for comparison. "tf32" rounds what each layer multiplies to its ten bits.
Squared norms are added up in float32 at least.
"""

import contextlib
import pathlib
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_WORKDIR = flags.DEFINE_string("workdir", None, "A run; without, a new network.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "Of a new network.")
_IMAGES = flags.DEFINE_integer("images", 8, "Real ones.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import numpy as np

    from configs import default
    from lwgan.data.cache import load_dataset
    from lwgan.data.sources import open_source
    from lwgan.runs import checkpoint, manifest
    from lwgan.runs.directory import read_run
    from lwgan.training.judging import judge_images
    from lwgan.training.losses import gradient_penalty
    from lwgan.training.state import build_gan, first_state, init_state

    if _WORKDIR.value:
        run = read_run(pathlib.Path(_WORKDIR.value))
        config = run.config
        gan = build_gan(config)
        like = jax.eval_shape(lambda: init_state(gan, 0))
        step = manifest.resolve_step(run.workdir, None)
        params = checkpoint.restore(run.workdir, step, like).d_params
        dataset = load_dataset(open_source(config.data), config.data)
        images = np.stack([dataset.centre(i) for i in range(_IMAGES.value)]) / 255
        labels = None
        if gan.generator.num_labels:
            labels = np.eye(gan.generator.num_labels)[dataset.labels[: _IMAGES.value]]
    else:
        config = default.get_config()
        config.data.image_size = _IMAGE_SIZE.value
        gan = build_gan(config)
        params = first_state(gan, 0).d_params
        side = config.data.image_size
        images, labels = np.random.default_rng(0).random((_IMAGES.value, side, side, 3)), None

    def penalty(params, network):
        wide = images.astype(np.promote_types(network.dtype, np.float32))

        def gradient(part):
            look = lambda images: images  # noqa: E731
            judged = judge_images(
                network,
                params,
                jnp.int32(0),
                wide[part],
                look,
                with_gradient=True,
                labels=None if labels is None else labels[part],
            )
            return judged.gradient

        half = len(images) // 2 or 1
        return gradient_penalty(gradient(slice(half)), gradient(slice(-half, None)))

    def mean_logit(params, network):
        return network.apply({"params": params}, images, jnp.int32(0), labels).logits.mean()

    def measure(dtype):
        network = gan.discriminator.clone(dtype=dtype)
        wide = jnp.promote_types(dtype, jnp.float32)
        own = jax.tree.map(lambda leaf: leaf.astype(wide), params)
        value, grads = jax.jit(jax.value_and_grad(lambda p: penalty(p, network)))(own)
        other = jax.jit(jax.grad(lambda p: mean_logit(p, network)))(own)
        return float(value), flat(grads), flat(other)

    def flat(tree):
        leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
        return np.concatenate(leaves)

    true = measure(jnp.float64)
    print(
        "| | penalty | relative error | of its gradient | of the logit's |\n|---|---|---|---|---|"
    )
    for name, dtype, bits in (
        ("float32", jnp.float32, None),
        ("tf32", jnp.float32, 10),
        ("bfloat16", jnp.bfloat16, None),
    ):
        with rounded_products(bits) if bits else contextlib.nullcontext():
            found = measure(dtype)
        errors = [
            np.linalg.norm(np.subtract(mine, exact)) / np.linalg.norm(exact)
            for mine, exact in zip(found, true, strict=True)
        ]
        print(f"| {name} | {found[0]:.4g} | {' | '.join(f'{e:.1e}' for e in errors)} |", flush=True)


@contextlib.contextmanager
def rounded_products(bits):
    """Has each convolution and product of layers round what it multiplies to so many bits."""
    import jax
    import jax.numpy as jnp

    plain = jax.lax.conv_general_dilated, jnp.einsum

    def rounded(function):
        def call(*arguments, **options):
            arguments = [
                jax.lax.reduce_precision(a, 8, bits) if hasattr(a, "shape") else a
                for a in arguments
            ]
            return function(*arguments, **options)

        return call

    jax.lax.conv_general_dilated, jnp.einsum = map(rounded, plain)
    try:
        yield
    finally:
        jax.lax.conv_general_dilated, jnp.einsum = plain


if __name__ == "__main__":
    app.run(main)
