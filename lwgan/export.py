"""Writes the EMA generator for use without lwgan.

  python -m lwgan.export --workdir=runs/quickstart

Into export/ in the run unless --out says otherwise, nothing is overwritten:

generator.stablehlo
    The function (latents float32 (B, latent_dim), seed uint32 ()) -> images float32 (B, H, W, C),
    not clipped, for any B, on CPUs, NVIDIA GPUs and TPUs: lwgan.load(run)(latents, seed). A run
    with K labels has a third argument, their weights float32 (B, K).
generator.safetensors
    The parameters and statistics by their names in Flax; the metadata holds the settings as JSON,
    the step and the version of lwgan.
generator.onnx, with --format=onnx
    For ONNX Runtime, also in browsers: inputs latents float32 (B, latent_dim), noise_8 … float32
    (B, H, W, 1) for each size, standard normal or zero, and labels float32 (B, K) if there are K.
    It is written with jax2onnx: pip install onnx onnx-ir equinox onnxruntime, and then
    pip install --no-deps jax2onnx.

The first needs jax and flatbuffers, and nothing else:

  import numpy
  from jax import export
  generate = export.deserialize(bytearray(open("generator.stablehlo", "rb").read())).call
  latents = numpy.random.randn(8, 256).astype("float32")  # 256: model.latent_dim
  images = generate(latents, numpy.uint32(7))
"""

import functools

from absl import flags

from lwgan import cli
from lwgan.settings.checks import require_choices

FORMATS = ["stablehlo", "safetensors", "onnx"]


def define_flags(values: cli.Flags) -> None:
    """The flags of this command."""
    cli.define_run_flags(values)
    cli.define_checkpoint_flags(values)
    flags.DEFINE_list("format", FORMATS[:2], "What to write.", flag_values=values)


def export_generator(values: cli.Flags) -> None:
    """Runs the command."""
    require_choices("--format", values.format or [""], FORMATS)
    from lwgan.interop import artifacts, onnx_files
    from lwgan.runs.files import replacing

    if "onnx" in values.format:
        onnx_files.require_converter()
    trained = cli.load_trained(values)
    ways = {
        "stablehlo": (artifacts.write_stablehlo, artifacts.read_stablehlo),
        "safetensors": (artifacts.write_safetensors, artifacts.read_safetensors),
        "onnx": (onnx_files.write_onnx, onnx_files.read_onnx),
    }
    forms = {f"generator.{name}": ways[name] for name in values.format}
    default = trained.run.workdir / "export" / f"{trained.step:08d}-{trained.weights}"
    with cli.output(values, default, forms) as folder:
        for name, (write, read) in forms.items():
            path = folder / name
            with replacing(path) as part:
                write(part, trained)
                apart = artifacts.difference(read(part), trained)
                if not apart <= artifacts.TOLERANCE:
                    raise RuntimeError(
                        f"{name} would draw other images: they differ by {apart:.1e}"
                    )
            size = path.stat().st_size / 1e6
            print(f"{path}  {size:.2f} MB, differs by {apart:.1e} from the images of lwgan")


main = functools.partial(cli.run, define_flags, export_generator)

if __name__ == "__main__":
    main()
