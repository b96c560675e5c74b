"""The repeated blocks of a model under torch.compile, for training: fewer passes over memory, fewer activations kept.

Each block is compiled by itself. Blocks of equal shape share one compiled program, so a model of 28 layers takes as
long to compile as one of two. Weights keep their names, and hooks of a block run outside of the compiled program.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ifas.core.errors import ConfigError

FIX = "install a C++ compiler (on Debian and Ubuntu: apt-get install g++ python3-dev), or set train.compile=false"


def blocks(part: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a part: its outermost list of modules, if they all have parameters of the same names and shapes.

    EfficientNet has none, as its blocks differ.
    """
    found = next((module for module in part.modules() if isinstance(module, nn.ModuleList)), nn.ModuleList())
    if len({_shape(block) for block in found}) == 1:
        yield from found


def _shape(block: nn.Module) -> tuple[Any, ...]:
    return (type(block), *((name, p.shape, p.requires_grad) for name, p in block.named_parameters()))


def compile_blocks(model: Any, *, tower: bool = True) -> int:
    """Compiles the blocks of the vision tower and of the language model, in place; call it when all adapters are in.

    The compiler itself starts when a block first runs, once more when the length of the sequences first changes, and
    after that no more.

    Args:
        model: an `IfasModel`.
        tower: whether its vision tower is compiled, too.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: the language model has no such blocks.
    """
    layers = [*blocks(model.language)]
    if not layers:
        raise ConfigError(
            f"train.compile: the layers of {type(model.language).__name__} differ in shape", "set train.compile=false"
        )
    found = [*(blocks(model.vision) if tower else ()), *layers]
    for block in found:
        # Not `block.compile()`: it would trace the block's hooks, with which transformers collects hidden states.
        block.forward = torch.compile(block.forward)
    return len(found)


def require_compiler(device: torch.device) -> None:
    """Compiles a few operations for this device, forward and backward.

    Raises:
        ConfigError: something that torch.compile needs is not on this machine.
    """

    def tried(x: torch.Tensor) -> torch.Tensor:
        return (x.sin() * x).sum()

    try:
        torch.autograd.backward(torch.compile(tried)(torch.ones(8, device=device, requires_grad=True)))
    except Exception as error:
        # Whatever the compiler raises, the same code has run without compiling in every training before.
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(f"train.compile: torch.compile failed: {type(error).__name__}: {reason}", FIX) from error
