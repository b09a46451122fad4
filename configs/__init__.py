"""One file for each experiment; ``default.py`` has every setting."""
