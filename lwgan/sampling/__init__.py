"""From latents to images, and to what is looked at.

``sampler`` draws images, ``trained`` is the sampler of a run (what ``lwgan.load`` returns),
``paths`` leads from latents to latents, ``sheets`` lays images side by side, ``image_files`` and
``video`` write them as they come. The same seed draws the same image, whatever the batch. Begin
with ``sampler``.
"""
