"""Oxford Flowers, 8,189 images of 102 kinds, from TensorFlow Datasets (0.3 GB), for one GPU.

    python main.py --config=configs/flowers.py

Downloaded at the first start into ``~/tensorflow_datasets``; ``--config.data.data_dir`` names
another folder.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.data.source = "tfds"
    config.data.name = "oxford_flowers102"
    config.data.split = "train+validation+test"
    # As few micro-batches as fit.
    config.train.grad_accum = -1
    return config
