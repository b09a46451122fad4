"""Your own images at 64 px with the quickstart's small network: on a CPU, in about an hour.

    python main.py --config=configs/small.py --config.data.path=~/photos

A first look before ``configs/folder.py`` on a GPU: a folder, zip or tar, a hundred images or more.
Two CPU cores take about four steps a second; the first samples come after two minutes.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.data.source = "folder"
    # To be named on the command line.
    config.data.path = ""
    # Of the quickstart's batch of 4, so long a training has not been measured.
    config.train.batch_size = 16
    config.optim.learning_rate = 1e-3
    config.train.num_steps = 15_000
    config.checkpoint.every = 1000
    config.sample.every = 500
    config.eval.every = 1000
    return config
