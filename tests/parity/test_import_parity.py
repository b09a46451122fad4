"""The import finds the settings that a checkpoint of lightweight-gan was made with."""

import jax
import pytest
import reference

from lwgan.interop.torch_weights import FIXED_SETTINGS

pytestmark = pytest.mark.parity

CASES = {
    "defaults": dict(image_size=256, attn=(32,), fmap_max=512, latent_dim=256),
    "32px": dict(image_size=32, attn=(4, 32), output_size=5),
    "64px-grey": dict(image_size=64, mode="grey", attn=(64,), antialias=True),
    "128px-fca": dict(image_size=128, mode="rgba", fca=True, fmap_max=1024, latent_dim=24),
    "512px": dict(image_size=512, attn=(8, 16, 256), antialias=True, output_size=5),
    "1024px-rgba": dict(image_size=1024, mode="rgba", attn=(512,), fmap_max=8),
}


@pytest.mark.parametrize("case", CASES)
def test_settings(case):
    options = CASES[case]
    settings = reference.build(**options).imported.settings
    assert settings["data"] == {
        "image_size": options["image_size"],
        "mode": options.get("mode", "rgb"),
        "label_names": (),
    }
    assert settings["model"] == FIXED_SETTINGS | {
        "latent_dim": options.get("latent_dim", 16),
        "fmap_max": options.get("fmap_max", 16),
        "attn_resolutions": options.get("attn", ()),
        "freq_chan_attn": options.get("fca", False),
        "antialias": options.get("antialias", False),
        "disc_output_size": options.get("output_size", 1),
    }


@pytest.mark.parametrize("case", CASES)
def test_number_of_parameters(case):
    gan, imported, *_ = reference.build(**CASES[case])
    for network, tree in ((gan.G, imported.g_params), (gan.D, imported.d_params)):
        theirs = sum(parameter.numel() for parameter in network.parameters())
        assert sum(leaf.size for leaf in jax.tree.leaves(tree)) == theirs
