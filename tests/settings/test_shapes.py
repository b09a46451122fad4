import pytest

from configs import default
from lwgan.errors import UserError
from lwgan.settings.files import from_json, to_json
from lwgan.settings.shapes import Shape, named, shape_of
from lwgan.training.checks import check_settings


@pytest.mark.parametrize(
    ("image_size", "base", "size"),
    [
        (32, (4, 4), 32),
        (1024, (4, 4), 1024),
        ("256x384", (4, 6), 256),
        ("96x64", (6, 4), 64),
        ("128x32", (16, 4), 32),
        ("96x160", (6, 10), 64),
        ("32x256", (4, 32), 32),
        ("896x1024", (7, 8), 512),
        ("96x96", (6, 6), 64),
    ],
)
def test_layers_double_the_smallest_features(image_size, base, size):
    config = default.get_config()
    config.data.image_size = image_size
    check_settings(config)
    shape = shape_of(image_size)
    assert shape.at(4) == base
    assert shape.size == size
    assert shape.at(size) == shape
    assert named(Shape(*shape)) == image_size


@pytest.mark.parametrize(
    "image_size",
    [
        "100x100",
        "16x64",
        "32x288",
        "1024x2048",
        "64",
        "64x",
        "x64",
        "64X96",
        "64x96x3",
        "-64x96",
        "64x64",
        "064x096",
    ],
)
def test_other_shapes_are_refused(image_size):
    config = default.get_config()
    config.data.image_size = image_size
    with pytest.raises(UserError, match=r"data.image_size = .*height x width such as 256x384"):
        check_settings(config)


@pytest.mark.parametrize("image_size", [64, "64x96"])
def test_settings_of_a_run_take_either_kind(image_size):
    config = default.get_config()
    config.data.image_size = image_size
    again = from_json(to_json(config))
    assert again.data.image_size == image_size
    again.data.image_size = 128
    again.data.image_size = "96x64"
    with pytest.raises(TypeError):
        again.data.image_size = 64.5
