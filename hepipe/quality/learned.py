"""Shares of a tile by class of a segmentation network that the user gives, such as folds or air bubbles.

The network is an ONNX file that OpenCV runs on the CPU: no pickle, no torch. It is optional; the classical filters need
nothing. A file is a program of a kind, so it is opened only from the weights folder and only when its hash is the
one that the config states.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.errors import ConfigError
from hepipe.specs.learned import MAX_PX, LearnedSpec
from hepipe.stores.provenance import digest
from hepipe.weights.store import named_bytes

DECIMALS = 3
"""Of a share: processors differ in the last bits of a convolution, which moves a few px between two classes."""
BESIDE = b"location"
"""The key under which an ONNX tensor names a file beside it. OpenCV 5 reads any path that stands there."""


class Learned:
    """A measurement like those of the other files here; safe to call from several threads."""

    def __init__(self, spec: LearnedSpec, *, tile_px: int, mpp: float, folder: Path | None = None) -> None:
        """Read the network and try it on a blank tile.

        Args:
            spec: The section.
            tile_px: Side of the tiles to come.
            mpp: Their µm per px.
            folder: Of the weights; None: the usual one.

        Raises:
            WeightsError: The file is not there, or another one.
            ConfigError: OpenCV cannot run it, or it gives something other than a score for each class and px.
        """
        self.spec = spec
        self._file = np.frombuffer(named_bytes(spec.file, spec.sha256, folder=folder), np.uint8)
        self._own = threading.local()
        if BESIDE in self._file.tobytes():
            raise self._error(
                "keeps tensors in other files (external data), or calls something `location`; "
                "export it as one file, with all weights inside"
            )
        side = tile_px * mpp / spec.mpp
        if side < 1 or side > MAX_PX:
            raise self._error(
                f"a tile of {tile_px} px at {mpp:g} µm per px has {side:.1f} px at mpp {spec.mpp:g}, "
                f"1 to {MAX_PX} expected; is mpp right?"
            )
        self.classes(np.full((tile_px, tile_px, 3), 200, np.uint8), mpp)

    @property
    def inputs(self) -> dict[str, str]:
        """What the tile table's provenance says of it; limits are no part of it, as they change no measurement."""
        settings = self.spec.model_dump(mode="json", exclude={"drop", "file", "sha256"})
        return {"learned": self.spec.sha256, "learned_settings": digest(settings)}

    def __call__(
        self, he: UInt8[np.ndarray, "h w 3"], ihc: UInt8[np.ndarray, "h w 3"], mpp: float
    ) -> Mapping[str, float]:
        """`learned_<class>_he`, `learned_<class>_ihc`: share of the tile's px of each class, 0 to 1, to 0.001."""
        shares = {}
        for stain, rgb in (("he", he), ("ihc", ihc)):
            if stain in self.spec.stains:
                counts = np.bincount(self.classes(rgb, mpp).ravel(), minlength=len(self.spec.classes))
                for name, count in zip(self.spec.classes, counts, strict=True):
                    shares[self.spec.measurement(name, stain)] = round(float(count / counts.sum()), DECIMALS)
        return shares

    def classes(self, rgb: UInt8[np.ndarray, "h w 3"], mpp: float) -> UInt8[np.ndarray, "a b"]:
        """The number of each px's class, at the network's resolution.

        Where the network takes one size only, a smaller tile is mirrored at its edges up to it, and a larger one shown
        in windows; without overlap, so a px at their border is judged with less around it.
        """
        wanted = self.spec.input
        scaled = _resized(rgb, mpp / self.spec.mpp)
        height, width = scaled.shape[:2]
        sides = [wanted.px or -(-side // wanted.multiple) * wanted.multiple for side in (height, width)]
        below, right = (max(0, side - length) for side, length in zip(sides, (height, width), strict=True))
        padded = cv2.copyMakeBorder(scaled, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        found = np.zeros(padded.shape[:2], np.uint8)
        for top in _starts(padded.shape[0], sides[0]):
            for left in _starts(padded.shape[1], sides[1]):
                window = np.s_[top : top + sides[0], left : left + sides[1]]
                found[window] = self._run(padded[window])
        return found[:height, :width]

    def _run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
        """One window through the network."""
        try:
            net = self._net()
            net.setInput(self._prepared(rgb))
            scores = np.asarray(net.forward())
        except cv2.error as error:
            raise self._error(f"OpenCV {cv2.__version__} cannot run it: {_said(error)}") from None
        height, width = rgb.shape[:2]
        n_classes = len(self.spec.classes)
        step = height // scores.shape[2] if scores.ndim == 4 and scores.shape[2] else 0
        if not step or scores.shape != (1, n_classes, height / step, width / step):
            raise self._error(
                f"its output has the shape {list(scores.shape)} for {height} × {width} px; "
                f"[1, {n_classes} (one for each of classes), height, width] expected, or both sides a whole factor less"
            )
        if not np.isfinite(scores).all():
            raise self._error("its output holds values that are no numbers; are range, mean and std right?")
        labels: np.ndarray = scores[0].argmax(0).astype(np.uint8).repeat(step, 0).repeat(step, 1)
        return labels

    def _prepared(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "1 3 h w"]:
        wanted = self.spec.input
        low, high = wanted.range
        pixels = rgb if wanted.order == "rgb" else rgb[..., ::-1]
        scaled = pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        centred = (scaled - np.array(wanted.mean, np.float32)) / np.array(wanted.std, np.float32)
        return np.ascontiguousarray(centred.transpose(2, 0, 1)[None], np.float32)

    def _net(self) -> cv2.dnn.Net:
        """This thread's own: one network must not be run twice at a time."""
        if not hasattr(self._own, "net"):
            net = cv2.dnn.readNetFromONNX(self._file)
            # Its shortcut rounds otherwise on each family of processors.
            net.enableWinograd(False)
            self._own.net = net
        found: cv2.dnn.Net = self._own.net
        return found

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"quality.learned: {self.spec.file}: {what}")


def _resized(rgb: UInt8[np.ndarray, "h w 3"], factor: float) -> UInt8[np.ndarray, "a b 3"]:
    """Area means where that makes fewer px, linear where it makes more."""
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    if size == (rgb.shape[1], rgb.shape[0]):
        return rgb
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(rgb, size, interpolation=way)
    return resized


def _starts(length: int, side: int) -> list[int]:
    """Where windows begin that cover a length, the last flush with its end."""
    return [*range(0, length - side, side), length - side]


def _said(error: cv2.error) -> str:
    """OpenCV's own words, without the path of its source."""
    text = " ".join(str(getattr(error, "err", "") or error).split())
    return text[:200]
