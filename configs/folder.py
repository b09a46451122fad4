"""Your own images: a folder, zip or tar of jpg, png, webp, tif, bmp or gif, a hundred or more.

    python main.py --config=configs/folder.py --config.data.path=~/photos

256 px, the full-width network, for one GPU. ``configs/small.py`` is for a first look on a CPU.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    # To be named on the command line.
    config.data.path = ""
    # As few micro-batches as fit.
    config.train.grad_accum = -1
    return config
