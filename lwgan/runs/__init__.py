"""What lies on disk: run directories, checkpoints, trackers, the log.

``directory`` is a run with its settings, ``checkpoint`` its states and ``manifest`` whether they
are whole, ``log`` what is printed. ``tracking`` has its scalars and images, with ``writers``, and
``aim_writer``, which tells ``aim_process``, a program of its own. ``files`` writes whole files and
``locks`` keeps others out, and ``bars`` shows progress, for every other room too; ``processes`` is
how several of them train one run. ``compiled`` keeps programs in the user's cache, and ``gpus``
TensorFlow off the GPUs. This room knows no networks: a checkpoint is a dataclass of
arrays. Begin with ``directory``.
"""
