"""Writes the averaged generator for use without lwgan.

  python -m lwgan.export --workdir=runs/quickstart

Into export/ in the run unless --out says otherwise, nothing is overwritten:

generator.stablehlo    the function (latents float32 (B, latent_dim), seed uint32 ()) -> pictures float32 (B, H, W, C),
                       not clipped, for any B, on CPUs, NVIDIA GPUs and TPUs. It is lwgan.load(run)(latents, seed).
generator.safetensors  the parameters and statistics by their names in Flax; the metadata holds the settings as JSON, the step and the version of lwgan.

The first needs jax and flatbuffers, and nothing else:

  from jax import export
  generate = export.deserialize(bytearray(open("generator.stablehlo", "rb").read())).call
  pictures = generate(numpy.random.randn(8, latent_dim).astype("float32"), numpy.uint32(7))
"""

from absl import flags

from lwgan import command

_OF_RUN = command.OfRun()
_STEP = flags.DEFINE_integer("step", None, "The checkpoint; the newest by default.")


def main() -> None:
    """Runs the command with its flags."""
    from lwgan import artifacts

    trained = _OF_RUN.load(_STEP.value, "ema")
    forms = {
        "generator.stablehlo": (artifacts.write_stablehlo, artifacts.read_stablehlo),
        "generator.safetensors": (artifacts.write_safetensors, artifacts.read_safetensors),
    }
    with _OF_RUN.output(trained.run, f"export/{trained.step:08d}-ema", forms) as folder:
        for name, (write, read) in forms.items():
            path, part = folder / name, folder / f"{name}.part"
            write(part, trained)
            apart = artifacts.difference(read(part), trained)
            if not apart <= artifacts.TOLERANCE:
                raise RuntimeError(f"{part} draws other pictures: they differ by {apart:.1e}")
            part.replace(path)
            size = path.stat().st_size / 1e6
            print(f"{path}  {size:.2f} MB, differs by {apart:.1e} from the pictures of lwgan")


if __name__ == "__main__":
    command.run(main)
