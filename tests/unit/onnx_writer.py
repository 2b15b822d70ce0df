"""The bytes of tiny ONNX models, written by hand: neither onnx nor torch is needed to read a test."""

import numpy as np


def _varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def number(field, value):
    return _varint(field << 3) + _varint(value)


def block(field, content):
    content = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def tensor(name, values):
    shape = b"".join(number(1, side) for side in values.shape)
    return shape + number(2, 1) + block(8, name) + block(9, np.ascontiguousarray(values, "<f4").tobytes())


def named(name, shape):
    sides = b"".join(block(1, number(1, side) if isinstance(side, int) else block(2, side)) for side in shape)
    return block(1, name) + block(2, block(1, number(1, 1) + block(2, sides)))


def convolution(weights, bias, *, op="Conv", stride=1, initial=None, inputs=("x", "w", "b")):
    """The bytes of an ONNX model of one convolution, as torch would write them (opset 13)."""
    numbers = {"kernel_shape": weights.shape[2:], "strides": (stride, stride)}
    attributes = b"".join(
        block(5, block(1, key) + b"".join(number(8, value) for value in values) + number(20, 7))
        for key, values in numbers.items()
    )
    node = b"".join(block(1, name) for name in inputs) + block(2, "y") + block(4, op)
    node += attributes if op == "Conv" else b""
    graph = block(1, node) + block(2, "g") + block(5, initial or tensor("w", weights)) + block(5, tensor("b", bias))
    sides = ("n", "h", "w")
    graph += block(11, named("x", (sides[0], weights.shape[1], *sides[1:])))
    graph += block(12, named("y", (sides[0], weights.shape[0], *sides[1:])))
    return number(1, 8) + block(7, graph) + block(8, block(1, "") + number(2, 13))
