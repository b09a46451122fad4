import atexit
import os
import pathlib
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Four devices; and less optimising and older emitters of fusions, for compiling is what the tests
# cost.
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    " --xla_cpu_use_fusion_emitters=false"
)
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
# Many tests compile the same programs, in processes of their own too.
worker = os.environ.get("PYTEST_XDIST_WORKER", "")
cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / f"jax{worker}"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Not the user's own.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="lwgan-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax  # noqa: E402, it reads the environment
import pytest  # noqa: E402

from tests import sharing  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The slowest tests first, so that none is left alone at the end."""

    def minutes(item):
        slow = item.get_closest_marker("slow")
        return slow.kwargs.get("minutes", 0.5) if slow else 0

    items.sort(key=minutes, reverse=True)


@pytest.fixture(scope="session", autouse=True)
def shared_programs():
    """From after the tests' own imports on: what those name is the real thing."""
    sharing.share_programs()


@pytest.fixture(autouse=True)
def forget_programs():
    """Compiled programs take memory maps; with the 65,530th, Linux lets the process crash."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        sharing.forget_programs()
        jax.clear_caches()


@pytest.fixture
def folder(tmp_path):
    """Five images of noise, 40×33 px."""
    from tests import drawn

    root = tmp_path / "images"
    root.mkdir()
    for number in range(5):
        drawn.noise(number).save(root / f"{number}.png")
    return root
