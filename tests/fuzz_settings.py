"""Random impossible settings through main.py, in one process: each must end in one line and exit code 2.

python -m tests.fuzz_settings
"""

import contextlib
import io
import os
import pathlib
import random
import sys

from absl import flags

from configs import quickstart
from lwgan import command, run, settings

ROOT = pathlib.Path(run.__file__).parents[1]
COUNT = 300


def impossible(rng):
    """A random setting on the command line that cannot be."""
    values = settings.flatten(quickstart.get_config())
    names = sorted(values)
    name = rng.choice(names)
    word = "".join(rng.choices("abcxyz é'\"\\\n\t%{}()[],=-", k=rng.randrange(1, 12))) + "q"

    def misspelt():
        place = rng.randrange(len(name))
        changed = name[:place] + rng.choice("bdkqz.-_") + name[place + 1 :]
        return changed if changed not in values else name + "s"

    together = [
        ("model.attn_resolutions", "(32,999)"),
        ("model.attn_resolutions", "(128,)"),
        ("train.grad_accum", "3"),
        ("train.batch_size", str(4 * rng.randrange(1, 99) + 1)),
        ("data.subset", word),
        ("data.source", "folder"),
        ("augment.types", f"('cutout',{word!r})"),
        ("model.fmap_max", "2"),
        ("optim.freeze_d", "99"),
        ("eval.metrics", f"('kid',{word!r})"),
        ("model.fmap_inverse_coef", "2"),
    ]
    kind = rng.randrange(4)
    if kind == 0:
        return f"--config.{misspelt()}={rng.choice(['1', '', word])}"
    if kind == 1:
        return "--config.{}={}".format(*rng.choice(together))
    texts = {"path", "name", "split", "data_dir", "weights", "repo", "experiment"}
    free = {f"{group}.{text}" for group in ("data", "eval", "track") for text in texts}
    name = rng.choice([name for name in names if name not in free])
    if kind == 2:
        return f"--config.{name}={word}"
    number = rng.choice(
        [-(2 ** rng.randrange(4, 80)), "nan", "-inf", "1e999", -1.5, "0x", "1,2", ""]
    )
    return f"--config.{name}={number}"


def refused(main, argument: str) -> str:
    """What main.py says to it; raises unless it ends with exit code 2."""
    for name in [name for name in flags.FLAGS if name.partition(".")[0] == "config"]:
        delattr(flags.FLAGS, name)
    flags.FLAGS.unparse_flags()
    sys.argv = ["main.py", f"--config={ROOT / 'configs' / 'quickstart.py'}", argument]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            command.run(main, takes_config=True)
    except SystemExit as ended:
        assert ended.code == command.USER_ERROR, argument
        return said.getvalue()
    raise AssertionError(f"it was accepted: {argument}")


def main() -> None:
    """Prints how many were refused."""
    import main as program

    def accepted(*unused: object) -> None:
        raise AssertionError("it was accepted")

    run.open_for_training = accepted
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"  # batches must divide
    rng = random.Random(0)
    for _ in range(COUNT):
        argument = impossible(rng)
        said = refused(program.main, argument)
        assert said.startswith("error: ") and said.count("\n") == 1, (argument, said)
    print(f"{COUNT} of {COUNT} refused in one line")


if __name__ == "__main__":
    main()
