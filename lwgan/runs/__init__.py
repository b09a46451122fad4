"""What lies on disk: run directories, checkpoints, trackers, the log.

``directory`` is a run with its settings, ``checkpoint`` its states and ``manifest`` whether they
are whole, ``tracking`` its scalars and images, ``log`` what is printed; ``files`` writes whole
files and holds locks, for every other room too. This room knows no networks: a checkpoint is a
dataclass of arrays. Begin with ``directory``.
"""
