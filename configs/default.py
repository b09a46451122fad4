"""Every setting with its default; the other configs start from here.

``python -m lwgan.settings`` lists the settings with what they mean and what they may be; they are
said in ``lwgan/settings/defaults.py``.
"""

from ml_collections import ConfigDict

import lwgan


def get_config() -> ConfigDict:
    return lwgan.default_config()
