"""Directions beside plain linear algebra in float64."""

import numpy as np
import pytest

import lwgan
from lwgan.errors import UserError
from lwgan.latents import directions
from tests import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("directions") / "run"
    tiny.save_run(workdir, (2,), tiny.config(model__latent_dim=12))
    return lwgan.load(workdir)


@pytest.fixture(scope="module")
def found(trained):
    return directions.find_directions(trained, 2)


def layer(trained):
    """The first layer with its normalisation: latents @ matrix + constant, (12, 4·4·24)."""
    first, stats = trained.params["initial"], trained.stats["initial"]["norm"]
    gain = np.float64(first["norm"]["scale"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
    shift = (first["bias"] - np.float64(stats["mean"])) * gain + first["norm"]["bias"]
    matrix = np.float64(first["kernel"]) * gain
    return matrix.reshape(12, -1), np.broadcast_to(shift, (16, 24)).reshape(-1)


def test_factors_are_the_eigenvectors_of_the_first_layer(trained):
    matrix, _ = layer(trained)
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    found = directions.factorised(trained, 12)
    np.testing.assert_allclose(found @ found.T, np.eye(12), atol=1e-5)
    stretched = np.square(found.astype(np.float64) @ matrix).sum(1)
    np.testing.assert_allclose(stretched, values[::-1], rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.diag(found @ vectors[:, ::-1])), 1, atol=1e-3)


def test_components_are_those_of_the_first_features(trained):
    matrix, shift = layer(trained)
    latents = np.float64(trained.latents(seed=0, count=1024))
    linear, gate = np.split((latents @ matrix + shift).reshape(1024, 16, 24), 2, axis=-1)
    features = linear / (1 + np.exp(-gate))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    features = features.reshape(1024, -1)
    features -= features.mean(0)
    principal = np.linalg.svd(features, full_matrices=False)[2][:3]
    expected = np.linalg.lstsq(features @ principal.T, latents, rcond=None)[0]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = directions.principal(trained, 3)
    np.testing.assert_allclose(np.abs((found * expected).sum(1)), 1, atol=1e-4)


def test_names_may_be_changed(found, tmp_path):
    assert found.names == ("factor 1", "factor 2", "component 1", "component 2")
    directions.write_directions(tmp_path, found)
    (tmp_path / "names.txt").write_text("smile\nfactor 2\nolder, é\ncomponent 2\n")
    again = directions.read_directions(tmp_path, 12)
    assert again.names == ("smile", "factor 2", "older, é", "component 2")
    np.testing.assert_array_equal(again.vectors, found.vectors)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "smile\n"),
        ("names.txt", None),
        ("directions.npy", "PK\x03\x04"),
        ("names.txt", "\xff"),
    ],
)
def test_damaged_directions_are_named(found, tmp_path, file, content):
    directions.write_directions(tmp_path, found)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"directions = .* python -m lwgan.directions"):
        directions.read_directions(tmp_path, 12)


def test_no_more_directions_than_a_latent_has_numbers(trained):
    with pytest.raises(UserError, match="num_directions = 13: must be at most 12"):
        directions.find_directions(trained, 13)
