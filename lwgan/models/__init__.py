"""The networks of lightweight-gan 1.2.1 as pure Flax modules."""
