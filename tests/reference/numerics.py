"""Where numbers are rounded, in three ways of running the model. All arithmetic is f32.

f32    nowhere: the yardstick.
bf16   as the published model does in bfloat16: after every step that makes a tensor.
f16    where Kotaro rounds: matrices and what goes into a matrix product; sums, norms, softmax, the
       residual stream and the logits are f32. It holds the roundings of both back ends: the GPU also
       rounds the probabilities in front of the product with v, and the code book of 4-bit weights.

r = rounding(mode) gives r(place, x); `place` is one of PLACES.
"""

PLACES = {
    # place: rounded in f16 mode?
    "matrix": True,       # weights of products, embedding rows, position rows
    "vector": False,      # norm weights, biases
    "pixel": True,
    "patch": False,       # after the patch convolution, and again after its position row
    "residual": False,    # the sum after each half of a block
    "branch": False,      # what is added to it
    "normed": True,       # after a norm
    "normed early": False,  # inside RMSNorm, before its weight
    "linear": True,       # result of a product (q, k, v, resampler)
    "inner": False,       # fc1, gate and up before the activation
    "active": False,      # silu(gate)
    "product": True,      # gelu(fc1), silu(gate) * up
    "angle": False,       # cosines and sines of RoPE
    "rotated early": False,  # the two products of a rotation
    "rotated": True,
    "scaled query": False,  # resampler: q / sqrt(hd)
    "score": False,
    "probability": True,
    "attended": True,
    "table": False,       # sine and cosine of the resampler
    "placed": True,       # keys after adding it
    "embedding": False,   # of a token, scaled
    "head input": False,  # hidden state divided by d / dim_model_base
    "logit": False,
}


def to_f16(x):
    return x.half().float()


def to_bf16(x):
    return x.bfloat16().float()


def rounding(mode):
    def r(place, x):
        wide = PLACES[place]
        if mode == "bf16":
            return to_bf16(x)
        return to_f16(x) if mode == "f16" and wide else x
    r.mode = mode
    return r


MODES = ("f32", "bf16", "f16")
