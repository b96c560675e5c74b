"""The RMSNorm of a language model in one kernel of a GPU, where transformers takes six.

Apart from matrix products, a large model on a GPU is limited by memory traffic: the six kernels read and write every
hidden state in float32, and training keeps their results. On a CPU there is nothing to gain.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

#: Classes of transformers that all compute weight * x / sqrt(mean(x^2) + variance_epsilon) over the last dimension, in
#: float32. Others of this name do not: Gemma's multiplies by 1 + weight.
SAME = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "SmolLM3RMSNorm")


def fuse(part: nn.Module) -> nn.Module:
    """Rewrites the norms of a model, or of a part of it, in place, and returns it; weights and names stay.

    The same numbers in float32; in bf16 the last rounding is left out. Other norms are left alone.
    """
    for module in part.modules():
        if type(module).__name__ in SAME:
            module.forward = MethodType(_forward, module)
    return part


def _forward(self: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, self.weight.shape, self.weight, self.variance_epsilon)
