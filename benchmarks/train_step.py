"""Seconds per training step, images per second and peak memory; and the same beside
lightweight-gan.

    python benchmarks/train_step.py                  # the quickstart, and the full width at 64 px
    python benchmarks/train_step.py --compare        # beside lightweight-gan 1.2.1

The gradient penalty comes in one step of ``loss.gp_every``: the figures are means over that cycle,
of the medians of both kinds of step. Each package works in a process of its own; when two are
compared they take turns, job by job.
"""

import dataclasses
import importlib.metadata as metadata
import multiprocessing
import os
import pathlib
import platform
import resource
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from multiprocessing.connection import Connection

from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

_STEPS = flags.DEFINE_integer("steps", 5, "Times that each kind of job is timed.", lower_bound=1)
_COMPARE = flags.DEFINE_bool("compare", False, "Compare with lightweight-gan on the same device.")

# Steps from one penalty to the next.
CYCLE = 4
Jobs = dict[str, Callable[[], None]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured. ``config`` names a file of configs/."""

    name: str
    config: str
    image_size: int
    fmap_max: int
    batch_size: int
    # Of lwgan. Beside bfloat16, lightweight-gan computes in float16; PyTorch takes tf32 otherwise.
    precision: str = "auto"


ALONE = [
    Setting("quickstart", "quickstart", 64, 64, 16),
    Setting("full width", "default", 64, 512, 8),
]
COMPARED = [
    Setting("full width", "reference", 64, 512, 8),
    Setting("narrow", "reference", 64, 64, 8),
    Setting("narrow", "reference", 128, 64, 8),
]
COMPARED_ON_GPU = [
    Setting("full width", "reference", 256, 512, 32, "tf32"),
    Setting("full width", "reference", 256, 512, 32, "bfloat16"),
]


def lwgan_jobs(setting: Setting) -> Jobs:
    """What lwgan does, by name."""
    import importlib

    import jax
    import numpy as np

    from lwgan.sampling.sampler import Sampler
    from lwgan.training.recipes import layout_of, recipe_of
    from lwgan.training.state import build_gan, first_state, on_devices
    from lwgan.training.step import make_update

    config = importlib.import_module(f"configs.{setting.config}").get_config()
    config.data.image_size, config.model.fmap_max = setting.image_size, setting.fmap_max
    config.train.batch_size, config.train.grad_accum = setting.batch_size, 1
    config.train.precision = setting.precision
    assert config.loss.gp_every == CYCLE
    gan = build_gan(config)
    current = on_devices(first_state(gan, 0))
    update = make_update(gan, recipe_of(config, num_images=1000))
    side = setting.image_size
    shape = (*layout_of(config).positions(0).shape, side, side, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def train(number: int) -> None:
        nonlocal current
        current, metrics = update(number, current, images)
        jax.block_until_ready((current, metrics))

    def sample(count: int) -> None:
        sampler = Sampler(gan.generator, current.ema_params, current.ema_stats)
        sampler(sampler.latents(0, count), 0, count)

    return {
        "penalized": lambda: train(1),
        "plain": lambda: train(2),
        "sample 1": lambda: sample(1),
        "sample 32": lambda: sample(32),
    }


def package_jobs(setting: Setting) -> Jobs:
    """The same of lightweight-gan, whose code insists on CUDA and torchvision and needs neither."""
    import torch
    import torch._dynamo

    stub = types.ModuleType("torchvision")
    stub.transforms = types.ModuleType("torchvision.transforms")
    sys.modules |= {"torchvision": stub, "torchvision.transforms": stub.transforms}
    on_gpu = torch.cuda.is_available()
    torch.cuda.is_available = lambda: True
    from lightweight_gan import lightweight_gan as package

    torch.cuda.is_available = lambda: on_gpu
    if not on_gpu:
        compute_on_cpu(package)
    side, batch_size = setting.image_size, setting.batch_size
    trainer = package.Trainer(
        name="benchmark",
        base_dir=tempfile.mkdtemp(),
        image_size=side,
        batch_size=batch_size,
        gradient_accumulate_every=1,
        fmap_max=setting.fmap_max,
        attn_res_layers=[32],
        disc_output_size=1,
        aug_prob=0.297,
        use_aim=False,
        amp=setting.precision == "bfloat16",
    )
    trainer.init_GAN()
    images = torch.rand(batch_size, 3, side, side)
    trainer.loader = iter(lambda: images, None)
    trainer.evaluate = trainer.save = lambda *args, **options: None

    def train(steps: int) -> None:
        trainer.steps = steps
        trainer.train()
        if on_gpu:
            torch.cuda.synchronize()

    def sample(count: int) -> None:
        with torch.no_grad():
            latents = torch.randn(count, 256).cuda()
            trainer.GAN.GE.eval()(latents).clamp_(0, 1).cpu()

    return {
        "penalized": lambda: train(0),
        "plain": lambda: train(1),
        "sample 1": lambda: sample(1),
        "sample 32": lambda: sample(32),
    }


def compute_on_cpu(package: types.ModuleType) -> None:
    """Lets lightweight-gan compute without CUDA."""
    import torch

    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *args, **options: self
    torch.set_num_threads(os.cpu_count())
    # As XLA does.
    torch.set_flush_denormal(True)

    class Torch(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            return getattr(torch, name)

    package.torch = Torch("torch")
    package.torch.device = lambda *args: torch.device("cpu")


def work(make_jobs: Callable[[Setting], Jobs], setting: Setting, connection: Connection) -> None:
    """A process: does the job it is told and answers with its seconds, or with its peak memory in
    GiB.
    """
    jobs = make_jobs(setting)
    while job := connection.recv():
        if job == "memory":
            connection.send(peak_memory())
            continue
        start = time.perf_counter()
        jobs[job]()
        connection.send(time.perf_counter() - start)


def peak_memory() -> float:
    """GiB that lwgan has taken at most, of the device where it says so, or of this process."""
    import jax

    figures = jax.local_devices()[0].memory_stats()
    if figures:
        return figures["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Worker:
    """A package in a process of its own."""

    def __init__(self, make_jobs: Callable[[Setting], Jobs], setting: Setting):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(make_jobs, setting, theirs))
        self._process.start()
        theirs.close()

    def ask(self, job: str) -> float:
        """Seconds of a job, or GiB for ``memory``."""
        self._connection.send(job)
        return self._connection.recv()

    def close(self) -> None:
        """Ends the process."""
        self._connection.send("")
        self._process.join()


def medians(workers: list[Worker], job: str) -> list[float]:
    """The median seconds of each worker's job, done in turn; the first round, which compiles, left
    out.
    """
    rounds = [[worker.ask(job) for worker in workers] for _ in range(1 + _STEPS.value)]
    return [statistics.median(times) for times in zip(*rounds[1:], strict=True)]


def training_step(workers: list[Worker]) -> list[float]:
    """Seconds of a training step of each worker, over the cycle of the penalty."""
    plain, penalized = medians(workers, "plain"), medians(workers, "penalized")
    return [(b + (CYCLE - 1) * a) / CYCLE for a, b in zip(plain, penalized, strict=True)]


def alone(setting: Setting) -> None:
    """Prints lwgan's row."""
    worker = Worker(lwgan_jobs, setting)
    (seconds,) = training_step([worker])
    print(
        f"| {setting.name}, {setting.image_size} px, batch {setting.batch_size} | {seconds:.3f} | "
        f"{setting.batch_size / seconds:.1f} | {worker.ask('memory'):.1f} |",
        flush=True,
    )
    worker.close()


def compared(setting: Setting) -> None:
    """Prints the rows of both packages at one setting."""
    workers = [Worker(lwgan_jobs, setting), Worker(package_jobs, setting)]
    figures = {"training step": training_step(workers)}
    figures |= {job: medians(workers, job) for job in ("sample 1", "sample 32")}
    for job, (ours, theirs) in figures.items():
        print(
            f"| {setting.image_size} px, fmap_max {setting.fmap_max}, batch {setting.batch_size}, "
            f"{setting.precision}: {job} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |",
            flush=True,
        )
    for worker in workers:
        worker.close()


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    # Two processes share a device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from lwgan.training.devices import describe_devices

    print(
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"jax {metadata.version('jax')}, {describe_devices()}\n"
    )
    if _COMPARE.value:
        print("| | lwgan, s | lightweight-gan, s | ratio |\n|---|---|---|---|")
        for setting in COMPARED_ON_GPU if jax.default_backend() == "gpu" else COMPARED:
            compared(setting)
    else:
        print("| | s/step | images/s | peak GiB |\n|---|---|---|---|")
        for setting in ALONE:
            alone(setting)


if __name__ == "__main__":
    app.run(main)
