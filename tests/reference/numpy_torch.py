"""The few functions of PyTorch that the reference uses, on numpy, for machines without PyTorch.

Debian's python3-torch brings 172 packages (141 MB to fetch, 592 MB on disk: Qt, GDAL, FFmpeg, MariaDB's
client); numpy is one. The tests therefore run on this, and on PyTorch where it is installed: arrays.py
chooses. Everything is a numpy array of a class of its own with PyTorch's method names; there is one device.

bfloat16 has no numpy type: x.bfloat16() rounds to the nearest even and stays f32, which is all that
the reference asks of it.
"""
import numpy as np

float32, float16, int32, int64, uint8 = np.float32, np.float16, np.int32, np.int64, np.uint8
BFLOAT = np.dtype([("bfloat16", np.int16)])
bfloat16 = BFLOAT


class Tensor(np.ndarray):
    def float(self):
        return self.astype(np.float32)

    def half(self):
        with np.errstate(over="ignore"):
            return self.astype(np.float16)

    def long(self):
        return self.astype(np.int64)

    def int(self):
        return self.astype(np.int32)

    def bfloat16(self):
        bits = np.ascontiguousarray(self, np.float32).view(np.uint32)
        rounded = (bits + np.uint32(0x7fff) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xffff0000)
        return _wrap(np.where(np.isfinite(self), rounded, bits).astype(np.uint32).view(np.float32))

    def view(self, *args):
        """Also view(bfloat16) of 16-bit integers, which gives their values in f32."""
        if args == (BFLOAT,):
            wide = np.ascontiguousarray(self).view(np.ndarray).view(np.uint16).astype(np.uint32) << 16
            return _wrap(wide.view(np.float32))
        return np.ndarray.view(self, *args)

    def to(self, device):
        return self

    def cpu(self):
        return self

    def contiguous(self):
        return _wrap(np.ascontiguousarray(self))

    def numpy(self):
        return np.asarray(self)

    def transpose(self, a, b):
        return np.swapaxes(self, a, b)

    def t(self):
        return np.swapaxes(self, 0, 1)

    def repeat_interleave(self, count, dim):
        return np.repeat(self, count, dim)


def _wrap(array):
    return np.asarray(array).view(Tensor)


def from_numpy(array):
    return _wrap(array)


def cat(parts, dim=0):
    return _wrap(np.concatenate(parts, dim))


def softmax(x, dim):
    e = np.exp(x - x.max(dim, keepdims=True))
    return e / e.sum(dim, keepdims=True)


def sigmoid(x):
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def mean(x, dim, keepdim):
    return np.mean(x, dim, keepdims=keepdim)


def topk(x, k):
    order = np.argsort(-np.asarray(x), -1, kind="stable")[..., :k]
    return np.take_along_axis(np.asarray(x), order, -1), order


def where(condition, x, y):
    return _wrap(np.where(condition, x, y))


tanh, sqrt = np.tanh, np.sqrt
