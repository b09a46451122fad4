"""lightweight-gan 1.2.1 exactly, quirks included, on your own pictures.

    python main.py --config=configs/reference.py --config.data.path=~/photos

Where lwgan's defaults differ, the other configs take what should work better; see the README.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.min_channels = 3  # a literal 3, also for rgba and grey
    config.model.icnr_init = False  # meant there, but overwritten
    config.augment.per_example = (
        False  # one coin for a whole micro-batch; flips only of augmented ones
    )
    config.ema.schedule = "reference"  # copies of the live generator until step 24,002
    return config
