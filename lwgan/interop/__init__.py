"""Other programs' files, in and out.

``torch_weights`` knows which tensor of lightweight-gan goes where, ``torch_runs`` makes a run of
its checkpoint; ``artifacts`` writes a generator as StableHLO and as safetensors. No other room
imports this one. Begin with ``torch_weights.convert``.
"""
