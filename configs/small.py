"""Your own images at 64 px with the quickstart's small network: on a CPU, in about half an hour.

    python main.py --config=configs/small.py --config.data.path=~/photos

A first look before ``configs/folder.py`` on a GPU: a folder, zip or tar, a hundred images or more.
Two CPU cores take about fifteen steps a second; the first samples come after two minutes. With many
more than 400 images, give it more steps.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.source = "folder"
    # To be named on the command line.
    config.data.path = ""
    config.train.num_steps = 30_000
    config.checkpoint.every = 3000
    config.sample.every = 1500
    config.eval.every = 3000
    return config
