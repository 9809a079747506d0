"""Where numbers are rounded, in the ways of running the model. All arithmetic is f32.

f32    nowhere: the yardstick.
bf16   as the published model does in bfloat16: after every step that makes a tensor.
cpu    where Kotaro rounds to f16: matrices and what goes into a matrix product. Sums, norms, softmax, the
       residual stream and the logits are f32. 4-bit weights are rounded once, as numbers.
gpu    where its kernels do: as cpu, and the probabilities in front of the product with v. Of 4-bit weights the
       code book and the block scales are rounded, their product is not (the scale of whole blocks of 64 is
       f32 there; it is counted as rounded all the same).

r = rounding(mode) gives r(place, x); `place` is one of PLACES.
"""

PLACES = {
    # place: rounded to f16 by Kotaro?
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
    "probability": True,  # by its kernels only
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
        here = PLACES[place] and not (mode == "cpu" and place == "probability")
        if mode == "bf16":
            return to_bf16(x)
        return to_f16(x) if here and mode != "f32" else x
    r.mode = mode
    return r


MODES = ("f32", "bf16", "cpu", "gpu")
