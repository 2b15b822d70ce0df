"""Networks that run out of pixels say which setting to change."""

import pytest
import torch
from torch import nn

from hepipe.errors import ConfigError
from hepipe.training.sides import refusing_crops


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(3, 1, 4), nn.ReflectionPad2d(4), lambda x: torch.cat([x, x[:, :, 1:]], 1)],
    ids=["kernel", "border", "skip"],
)
def test_a_crop_that_is_too_small_is_named(layer) -> None:
    with (
        pytest.raises(
            ConfigError, match=r"run r: its networks do not work on crops of 3 px .*set a larger training\.cro"
        ),
        refusing_crops(3, run="r"),
    ):
        layer(torch.zeros(1, 3, 3, 3))


def test_another_error_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), refusing_crops(3, run="r"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
