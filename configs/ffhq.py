"""Flickr-Faces-HQ, 70,000 faces, at 256, 512 or 1024 px, for GPUs.

    python main.py --config=configs/ffhq.py
    python main.py --config=configs/ffhq.py:1024 --config.data.path=/data/ffhq/images1024x1024

Expects the folder ``data/ffhq``. The set is free for non-commercial use: get ``images1024x1024``
(89 GB) with the script of https://github.com/NVlabs/ffhq-dataset, or any smaller copy of it.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(size: str = "256") -> ConfigDict:
    config = default.get_config()
    config.data.path = "data/ffhq"
    config.data.image_size = int(size)
    # Divides over 1, 2, 3, 4, 6 and 8 devices.
    config.train.batch_size = 48
    # As few micro-batches as fit.
    config.train.grad_accum = -1
    return config
