"""lwgan: light generative adversarial networks for small sets of pictures, in JAX and Flax."""

__version__ = "0.1.0"
