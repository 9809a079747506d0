"""`torch`: PyTorch where it is installed, else numpy_torch. KOTARO_REFERENCE=numpy or =torch decides."""
import os

CHOICE = os.environ.get("KOTARO_REFERENCE", "")

if CHOICE not in ("", "numpy", "torch"):
    raise SystemExit("KOTARO_REFERENCE is numpy or torch")
try:
    if CHOICE == "numpy":
        raise ImportError
    import torch
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    NAME = f"PyTorch {torch.__version__}"
except ImportError:
    if CHOICE == "torch":
        raise SystemExit("no PyTorch here: python3-torch, or KOTARO_REFERENCE=numpy") from None
    import numpy
    import numpy_torch as torch
    NAME = f"numpy {numpy.__version__}"


def to_numpy(x):
    return x.cpu().numpy()
