"""Your own images at 64 px with the quickstart's small network: on a CPU, in about ten minutes.

    python main.py --config=configs/small.py --config.data.path=~/photos

A first look before ``configs/folder.py`` on a GPU: a folder, zip or tar, a hundred images or more.
Two CPU cores take about four steps a second.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.source = "folder"
    # To be named on the command line.
    config.data.path = ""
    return config
