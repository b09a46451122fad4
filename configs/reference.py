"""lightweight-gan 1.2.1's networks, losses and steps exactly, quirks included, on your own images.

    python main.py --config=configs/reference.py --config.data.path=~/photos

Images are read as everywhere in lwgan: alpha is laid over white, where lightweight-gan drops it.
Where lwgan's defaults differ, the other configs take what should work better: see
docs/from-lightweight-gan.md.
"""

from ml_collections import ConfigDict

from lwgan.settings.defaults import reference_config


def get_config() -> ConfigDict:
    return reference_config()
