"""Crops that networks cannot work on, as their first pass shows: layers run out of pixels, skips do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hepipe.errors import ConfigError

_SIGNS = (
    "Kernel size can't be greater than actual input size",
    "Sizes of tensors must match except in dimension",
    "Padding size should be less than the corresponding input dimension",
)
"""How torch says it."""


@contextmanager
def refusing_crops(crop_px: int, *, run: str) -> Iterator[None]:
    """While open, torch's error of a map that is too small, or of maps that do not fit, says which setting to change.

    What a model's file states of its sides is asked long before; options and discriminators may ask for more.

    Args:
        crop_px: Side of the training crops.
        run: Its name, for the message.

    Raises:
        ConfigError: In place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _SIGNS):
            raise
        raise ConfigError(
            f"run {run}: its networks do not work on crops of {crop_px} px ({str(error).splitlines()[0]}); set a "
            "larger training.crop_px, or one that halves more often"
        ) from error
