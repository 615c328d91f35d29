"""Quantization: what integers a tensor is rounded to, and models that train as if they had them.

observers.py    the range of a tensor, from what was seen of it
fake_quant.py   a range -> scale and zero point; rounding with torch's kernels, gradients straight through
insert.py       a timm model with its Linear, Conv2d and attention quantized in place, names unchanged
smooth.py       before post-training quantization: large channels of activations moved into weights

``fixed(model)`` is the end of training: ranges become scales, weights the multiples of theirs, ready to be exported.
"""

from ovit_deploy.quantization.fake_quant import FakeQuantize, FixedQuantize, fixed
from ovit_deploy.quantization.insert import calibrate, freeze_batch_norm, freeze_observers, insert, is_quantized
from ovit_deploy.quantization.smooth import smooth

__all__ = [
    "FakeQuantize",
    "FixedQuantize",
    "calibrate",
    "fixed",
    "freeze_batch_norm",
    "freeze_observers",
    "insert",
    "is_quantized",
    "smooth",
]
