"""Writes tests/fixtures/*.npz: what lightweight-gan 1.2.1 computes, for the tests without PyTorch.

    PYTHONPATH=. python tests/make_fixtures.py

Needs the package and PyTorch. Weights and inputs come from ``tests/stored.py`` and are not stored.
"""

import pathlib
import sys

import numpy as np

from tests import stored

sys.path.insert(0, str(pathlib.Path(__file__).parent / "parity"))

import reference
from reference import package, torch
from trainer import Draws, given, put_augmentation

NETWORKS = {
    "32px": dict(image_size=32, attn=(8, 32), output_size=5),
    "64px-rgba": dict(image_size=64, mode="rgba", antialias=True),
    "128px-grey": dict(image_size=128, mode="grey", attn=(16,)),
    "128px-fca": dict(image_size=128, fca=True, fmap_max=32),
    "512px": dict(image_size=512, fmap_max=8, output_size=5),
}


def networks(**options) -> dict[str, np.ndarray]:
    """What the generator and the discriminator put out, and the names and shapes of
    their tensors.
    """
    gan = reference.build(**options).gan
    tensors = gan.state_dict()
    buffers = {name: x.numpy().copy() for name, x in tensors.items() if stored.is_buffer(name)}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name not in buffers:
                tensor.copy_(torch.from_numpy(stored.weight(stored.seed_name(name), tensor.shape)))
    names = "\n".join(f"{name} {','.join(map(str, x.shape))}" for name, x in tensors.items())

    latents, noise = stored.generator_inputs(gan.image_size, gan.latent_dim)
    channels = {"grey": 1, "rgb": 3, "rgba": 4}[options.get("mode", "rgb")]
    draws = Draws()
    channels_first = [np.moveaxis(x, 3, 1) for x in noise]
    draws.normal.put(*channels_first, *channels_first)
    draws.coin.put((stored.QUADRANT + 0.5) / 4)
    painted = []
    for decoder in filter(None, (gan.D.decoder1, gan.D.decoder2)):
        decoder.register_forward_hook(lambda module, args, output: painted.append(output))
    with torch.no_grad(), given(draws):
        evaluated = gan.G.eval()(torch.from_numpy(latents))
        trained = gan.G.train()(torch.from_numpy(latents))
        images = reference.nchw(stored.images(gan.image_size, channels))
        logits, side_logits, reconstruction = gan.D(images, calc_aux_loss=True)
    stats = {
        f"after/{name}": tensor.numpy()
        for name, tensor in gan.G.state_dict().items()
        if "running" in name
    }
    return {
        "names": np.array(names),
        "evaluated": stored.thin(reference.nhwc(evaluated)),
        "trained": stored.thin(reference.nhwc(trained)),
        "logits": logits.numpy(),
        "side_logits": side_logits.flatten(1).numpy(),
        "reconstruction": reconstruction.numpy(),
        **{f"painted{i}": stored.thin(reference.nhwc(x)) for i, x in enumerate(painted)},
        **{f"buffer/{name}": x for name, x in buffers.items() if x.ndim},
        **stats,
    }


def losses() -> dict[str, np.ndarray]:
    """The losses of some logits."""
    real, fake = map(torch.from_numpy, stored.logits(25))
    real1, fake1 = map(torch.from_numpy, stored.logits(1))
    return {
        "hinge/discriminator": package.hinge_loss(real, fake).numpy(),
        "hinge/generator": package.gen_hinge_loss(fake, None).numpy(),
        "dual_contrastive/discriminator": package.dual_contrastive_loss(real1, fake1).numpy(),
        "dual_contrastive/generator": package.dual_contrastive_loss(fake1, real1).numpy(),
    }


def augmentations() -> dict[str, np.ndarray]:
    """Some images after each augmentation, rgb and rgba."""
    augmented = {}
    for name in package.DiffAugment.__globals__["AUGMENT_FNS"]:
        for channels in (3, 4):
            images, draws = stored.images(16, channels, examples=6), Draws()
            put_augmentation(draws, name, stored.augmentation_draws(name, 16), side=16)
            with given(draws):
                images = package.DiffAugment(reference.nchw(images), types=[name])
            augmented[f"{name}/{channels}"] = reference.nhwc(images)
    return augmented


def main() -> None:
    """Writes all of them."""
    contents = {name: networks(**options) for name, options in NETWORKS.items()}
    contents |= {"losses": losses(), "augmentations": augmentations()}
    stored.FOLDER.mkdir(exist_ok=True)
    for name, arrays in contents.items():
        np.savez_compressed(stored.FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
