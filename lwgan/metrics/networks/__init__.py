"""Networks that images are compared with: a table in ``features``, and how their weights are read.

A new one is a module with a network and the names of its layers, and a function in ``FEATURES``.
"""
