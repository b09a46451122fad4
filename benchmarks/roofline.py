"""Where a training step's time goes on this CPU, layer by layer, beside what its cores can do.

    python benchmarks/roofline.py                            # 64 px, full width, batches of 8
    python benchmarks/roofline.py --image_size=128 --fmap_max=64

First how fast this machine multiplies matrices and convolves; then one traced step: for each layer
and direction the time, its share, and for products and convolutions the FLOPs and the rate. FLOPs
are counted from XLA's own program, zeros at the border included.
"""

import collections
import glob
import gzip
import json
import math
import pathlib
import re
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_IMAGE_SIZE = flags.DEFINE_integer("image_size", 64, "Pixels.")
_FMAP_MAX = flags.DEFINE_integer("fmap_max", 512, "Channels of the widest layer.")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Images.")
_LAYERS = flags.DEFINE_integer("layers", 25, "How many to print, those that take most first.")

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


def seconds_of(function, *arguments) -> float:
    """The best of five, after one that compiles."""
    import jax

    compiled, found = jax.jit(function), []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        found.append(time.perf_counter() - began)
    return min(found[1:])


def rates() -> tuple[float, float]:
    """GFLOP/s of a product of matrices and of a wide 4×4 convolution."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.ones((2048, 2048))
    of_products = 2 * 2048**3 / seconds_of(jnp.matmul, matrix, matrix) / 1e9
    images, kernel = jnp.ones((8, 32, 32, 512)), jnp.ones((4, 4, 512, 512))

    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        pads = ((2, 1), (2, 1))
        return jax.lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=numbers)

    flops = 2 * images.size * kernel.shape[-1] * 16
    return of_products, flops / seconds_of(convolve, images, kernel) / 1e9


def dims(text: str) -> list[int]:
    """Of the first shape in a text."""
    return [int(n) for n in _SHAPE.search(text)[1].split(",") if n]


def lines_of(program: str) -> Iterator[tuple[str, str]]:
    """Each line with the computation that it belongs to."""
    here = ""
    for line in program.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            here = line.split()[1 if line.startswith("ENTRY") else 0].lstrip("%").split("(")[0]
        yield here, line


def flops_of_computations(program: str) -> dict[str, dict[str, float]]:
    """FLOPs of products and convolutions: computation -> instruction -> FLOPs."""
    found, shapes = collections.defaultdict(dict), collections.defaultdict(dict)
    for here, line in lines_of(program):
        match = _INSTRUCTION.match(line)
        if not match:
            continue
        name, shape, kind, rest = match.groups()
        shapes[here][name] = shape
        operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
        if kind == "dot":
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)[1]
            left = dims(shapes[here][operands[0]])
            inner = math.prod(left[int(n)] for n in contracted.split(",") if n)
            found[here][name] = 2 * math.prod(dims(shape)) * inner
        elif kind == "convolution":
            right = dims(shapes[here][operands[1]])
            labels = re.search(r"dim_labels=\w+_(\w+)->", rest)[1]
            found[here][name] = 2 * math.prod(dims(shape)) * math.prod(right)
            found[here][name] /= right[labels.index("o")]
    return found


def layers_of(program: str) -> dict[str, tuple[str, float]]:
    """Instruction of the whole program -> its layer with its direction, and its FLOPs."""
    flops, layers, bodies = flops_of_computations(program), {}, {}
    for here, line in lines_of(program):
        match, named = _INSTRUCTION.match(line), re.search(r'op_name="([^"]*)"', line)
        if named and here:
            bodies.setdefault(here, named[1])
        if match:
            name, _, _, rest = match.groups()
            called = re.search(r"(?:calls|to_apply)=%?([\w.\-]+)", rest)
            inside = called[1] if called else ""
            own = flops[here].get(name, 0) + sum(flops[inside].values())
            words = named[1] if named else bodies.get(inside, "")
            layers[name] = ("gradients of kernels" if own and not words else layer_of(words)), own
    return layers


def layer_of(words: str) -> str:
    """The layer that an operation belongs to, by the path that JAX gives it."""
    words = words.replace("Discriminator._side_logits/", "")
    path = re.search(r"(Generator|Discriminator)\)*/([\w]+)(?:/(\w+))?", words)
    if not path:
        return "the rest: losses, augmentation, optimizers, averages"
    backward = "transpose" in words.split(path[1])[0]
    parts = [path[1], path[2], *([path[3]] if path[3] in ("conv", "upsample", "norm") else [])]
    return "/".join(parts) + (" (backward)" if backward else "")


def traced(run) -> dict[str, float]:
    """Seconds of each instruction of one call."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (file,) = glob.glob(f"{folder}/plugins/profile/*/*.trace.json.gz")
        events = json.loads(gzip.open(file).read())["traceEvents"]
    found = collections.Counter()
    for event in events:
        if "hlo_op" in event.get("args", {}) and event.get("ph") == "X":
            found[event["args"]["hlo_op"]] += event["dur"] / 1e6
    return found


def main(argv: list[str]) -> None:
    """Prints the tables."""
    del argv
    import jax
    import numpy as np

    from configs import default
    from lwgan.training.compiling import lower
    from lwgan.training.recipes import images_shape, recipe_of
    from lwgan.training.state import build_gan, first_state, on_devices
    from lwgan.training.step import make_update

    of_products, of_convolutions = rates()
    print(f"Products {of_products:.0f} GFLOP/s, convolutions {of_convolutions:.0f} GFLOP/s")
    config = default.get_config()
    config.data.image_size, config.model.fmap_max = _IMAGE_SIZE.value, _FMAP_MAX.value
    config.train.update(batch_size=_BATCH.value, grad_accum=1)
    gan = build_gan(config)
    update = make_update(gan, recipe_of(config, num_images=1000))
    program = lower(update.plain, gan, config).compile()
    layers = layers_of(program.as_text())
    images = np.random.default_rng(0).integers(0, 256, images_shape(config).shape, np.uint8)
    current = on_devices(first_state(gan, 0))

    def step() -> None:
        nonlocal current
        current, _ = jax.block_until_ready(program(current, images, np.float32(0.3)))

    step()
    began = time.perf_counter()
    step()
    wall = time.perf_counter() - began
    spent, flops = collections.Counter(), collections.Counter()
    for name, seconds in traced(step).items():
        layer, own = layers.get(name, ("the rest", 0))
        spent[layer] += seconds
        flops[layer] += own
    total = sum(spent.values())
    print(f"A step: {wall:.2f} s, {sum(flops.values()) / 1e9:.0f} GFLOP, ", end="")
    share = sum(flops.values()) / 1e9 / wall / of_convolutions
    print(f"{share:.0%} of the rate of convolutions")
    print("| layer | s | share | GFLOP | GFLOP/s |\n|---|---|---|---|---|")
    for layer, seconds in spent.most_common(_LAYERS.value):
        rate = f"{flops[layer] / 1e9 / seconds:.0f}" if flops[layer] else ""
        much = f"{flops[layer] / 1e9:.1f}" if flops[layer] else ""
        print(f"| {layer} | {seconds:.3f} | {seconds / total:.0%} | {much} | {rate} |")


if __name__ == "__main__":
    app.run(main)
