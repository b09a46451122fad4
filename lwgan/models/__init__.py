"""The networks of lightweight-gan 1.2.1 as pure Flax modules.

Nothing but ``build`` knows settings; no module reads files, flags or clocks. Begin with
``generator``.
"""
