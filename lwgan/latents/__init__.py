"""What latents mean: directions in which images change, and the latents of given images."""
