"""The networks of lightweight-gan 1.2.1 as pure Flax modules.

``generator`` and ``discriminator`` are made of ``layers`` and ``attention``; ``build`` makes them
from settings, and nothing else here knows these. No module reads files, flags or clocks. Begin with
``generator``.
"""
