"""Random impossible settings through main.py, in one process: each must end in one line and exit
code 2.

python -m tests.fuzz_settings
"""

import contextlib
import io
import os
import random

from configs import quickstart
from lwgan import cli
from lwgan.settings.defaults import flatten
from lwgan.training import loop
from tests.house import ROOT

COUNT = 300


def impossible(rng):
    """A random setting on the command line that cannot be."""
    values = flatten(quickstart.get_config())
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
    # A label may have any name.
    free.add("data.label_names")
    name = rng.choice([name for name in names if name not in free])
    if kind == 2:
        return f"--config.{name}={word}"
    number = rng.choice(
        [-(2 ** rng.randrange(4, 80)), "nan", "-inf", "1e999", -1.5, "0x", "1,2", ""]
    )
    return f"--config.{name}={number}"


def refused(argument: str) -> str:
    """What main.py says to it; raises unless it ends with exit code 2."""
    import main as program

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            program.main(["main.py", f"--config={ROOT / 'configs' / 'quickstart.py'}", argument])
    except SystemExit as ended:
        assert ended.code == cli.USER_ERROR, argument
        return said.getvalue()
    raise AssertionError(f"it was accepted: {argument}")


def main() -> None:
    """Prints how many were refused."""

    def accepted(*unused: object) -> None:
        raise AssertionError("it was accepted")

    loop.record_start = accepted
    # Batches must divide.
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    rng = random.Random(0)
    for _ in range(COUNT):
        argument = impossible(rng)
        said = refused(argument)
        assert said.startswith("error: ") and said.count("\n") == 1, (argument, said)
    print(f"{COUNT} of {COUNT} refused in one line")


if __name__ == "__main__":
    main()
