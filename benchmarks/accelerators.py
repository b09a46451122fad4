"""What the training step takes on TPUs, as compiled for them; nothing runs, and none is needed.

    pip install libtpu
    python benchmarks/accelerators.py --sizes=256,512,1024 --chips=1,4,8

Each preset's step with the gradient penalty, which takes most, is compiled for v5e chips by XLA's
own compiler: memory of a chip, FLOPs and bytes of a step on it, collectives, and in which types the
convolutions multiply. The full width takes minutes each on two cores.
"""

import collections
import dataclasses
import os
import pathlib
import re
import sys
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

_SIZES = flags.DEFINE_list("sizes", ["256"], "Pixels: configs/ffhq.py at each.")
_CHIPS = flags.DEFINE_list("chips", ["1"], "1, 4 or 8.")
_ACCUM = flags.DEFINE_integer("grad_accum", -1, "Micro-batches; -1: as few as fit.")
_REMAT = flags.DEFINE_bool("remat", False, "model.remat.")
_KIND = flags.DEFINE_enum("kind", "penalized", ["penalized", "plain"], "Which step.")

# Slices of v5e chips, which have 16 GiB each.
TOPOLOGIES = {1: "v5e:1x1", 4: "v5e:2x2", 8: "v5e:2x4"}
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


def compiled_step(size: int, chips: int, accum: int):
    """The step of ``configs/ffhq.py:<size>`` for so many chips, and its batch."""
    import jax
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from configs import ffhq
    from lwgan.models.build import CHANNELS
    from lwgan.models.placement import AXIS
    from lwgan.training.recipes import recipe_of
    from lwgan.training.state import build_gan, init_state
    from lwgan.training.step import update_networks

    config = ffhq.get_config(str(size))
    config.train.precision, config.train.grad_accum = "bfloat16", accum
    config.model.remat = _REMAT.value
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    topology = topologies.get_topology_desc(TOPOLOGIES[chips], "tpu", **bounds)
    mesh = Mesh(np.array(topology.devices)[:chips], (AXIS,))
    gan, recipe = build_gan(config), recipe_of(config, num_images=1000)
    recipe = dataclasses.replace(recipe, unroll=accum == 1)

    def body(state, images):
        return update_networks(gan, recipe, _KIND.value == "penalized", state, images[0])

    step = jax.jit(
        jax.shard_map(
            body, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=(P(), P()), check_vma=False
        ),
        donate_argnums=0,
    )
    whole = NamedSharding(mesh, P())
    state = jax.tree.map(
        lambda leaf: leaf.update(sharding=whole), jax.eval_shape(lambda: init_state(gan, 0))
    )
    each = config.train.batch_size // chips // accum
    images = jax.ShapeDtypeStruct(
        (chips, 1, accum, each, size, size, CHANNELS[config.data.mode]),
        np.uint8,
        sharding=NamedSharding(mesh, P(AXIS)),
    )
    return step.lower(state, images).compile()


def describe(compiled) -> list[str]:
    """Columns of the table."""
    from lwgan.training.micro_batches import step_bytes

    stats, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    kinds = collections.Counter(re.findall(r"= (bf16|f32)\[[^\]]*\]\S* convolution\(", text))
    calls = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return [
        f"{step_bytes(compiled) / 2**30:.2f}",
        f"{stats.alias_size_in_bytes / 2**30:.2f}",
        f"{cost.get('flops', 0) / 1e12:.2f}",
        f"{cost.get('bytes accessed', 0) / 1e9:.0f}",
        ", ".join(f"{count} {name}" for name, count in calls.items() if count) or "none",
        ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
    ]


def main(argv: list[str]) -> None:
    """Prints a table."""
    del argv
    os.environ.pop("TPU_LIBRARY_PATH", None)
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    }
    columns = "px | chips | micro-batches | GiB | of it kept | TFLOP | GB moved | collectives | "
    print(f"| {columns}convolutions | compiled in |\n|{'---|' * 10}")
    for size in map(int, _SIZES.value):
        for chips in map(int, _CHIPS.value):
            share = 48 // chips
            for accum in [_ACCUM.value] if _ACCUM.value > 0 else range(1, share + 1):
                if share % accum:
                    continue
                began = time.monotonic()
                try:
                    found = describe(compiled_step(size, chips, accum))
                # The compiler says what does not fit.
                except Exception as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    found = [str(error).splitlines()[0][:160], "", "", "", "", ""]
                row = [str(size), str(chips), str(accum), *found]
                print(f"| {' | '.join(row)} | {time.monotonic() - began:.0f} s |", flush=True)
                if found[1] or _ACCUM.value > 0:
                    break


if __name__ == "__main__":
    app.run(main)
