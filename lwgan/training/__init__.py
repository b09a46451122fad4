"""Training: the step, and the loop around it.

Pure, without files, flags, clocks or settings: ``step`` (one update of both networks), with
``losses``, ``augment``, ``gradients``, ``ema``; ``optimizers`` and ``state``.

Around them: ``session`` prepares what is trained and where it stands, ``loop`` trains it,
``actions`` are what happens every so many steps, ``followers`` what follows a save, ``evaluation``
is what the loop asks of an evaluator, ``signals`` who asks for the end, ``profile`` a profile of a
few steps. ``transfer`` begins with the weights of another run, ``dry_run`` says what a run would
take, ``checks`` which settings go together. Begin with ``loop``, then ``step``.
"""
