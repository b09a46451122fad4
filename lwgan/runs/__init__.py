"""What lies on disk: run directories, checkpoints, trackers, the log.

``directory`` is a run with its settings, ``checkpoint`` its states, ``tracking`` its scalars and
images; ``files`` writes whole files and holds locks, for every other room too. This room knows no
networks: a checkpoint is a dataclass of arrays. Begin with ``directory``.
"""
