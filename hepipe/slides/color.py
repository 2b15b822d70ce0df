"""From the colours that a scanner's profile describes to sRGB."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

AS_SCANNED, SRGB = "as_scanned", "srgb"
MAX_PROFILE_BYTES = 16 << 20


class NoConversion(Exception):
    """Why pixels stay as they were scanned."""


class SrgbFrom:
    """A profile's conversion to sRGB with the profile's own intent, as openslide's documentation advises."""

    def __init__(self, profile: bytes | None) -> None:
        """Read the profile.

        Raises:
            NoConversion: There is none, or none that describes RGB pixels.
        """
        if profile is None:
            raise NoConversion("the file carries no colour profile that can be read")
        if len(profile) > MAX_PROFILE_BYTES:
            raise NoConversion("the colour profile is too large")
        try:
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if given.profile.xcolor_space.strip() != "RGB":
                raise NoConversion("the colour profile is not of RGB pixels")
            self._transform = ImageCms.buildTransform(
                given,
                ImageCms.createProfile("sRGB"),
                "RGB",
                "RGB",
                renderingIntent=ImageCms.Intent(ImageCms.getDefaultIntent(given)),
            )
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            raise NoConversion("the colour profile cannot be used") from error

    def convert(self, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """Change pixels where they stand; from any thread."""
        image = Image.fromarray(pixels)
        self._transform.apply_in_place(image)
        pixels[:] = np.asarray(image)
