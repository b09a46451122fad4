"""How good samples are.

``evaluator`` measures a sampler beside the images of a dataset; ``figures`` is the table of what
can be measured, with ``frechet``, ``kid``, ``neighbours`` for the numbers; ``diversity`` and
``realness`` say more of samples and of the discriminator; ``report`` puts it into words;
``extraction`` turns images into features by one of the ``networks``; ``records`` is what a run
remembers of it. ``folders`` compares two folders, without a run. Features are NumPy arrays (N, D)
here, and nothing but ``networks`` and ``realness`` computes with JAX. Begin with ``evaluator``.
"""
