"""Your own images: any folder of jpg, png, webp, bmp or gif, a hundred or more of one kind.

    python main.py --config=configs/folder.py --config.data.path=~/photos

256 px, the full-width network, for one GPU. For a first look on a CPU add
``--config.data.image_size=64 --config.model.fmap_max=64 --config.model.attn_resolutions='()'``.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    # To be named on the command line.
    config.data.path = ""
    return config
