"""One pass of a model on the meta device: its FLOPs and memory, counted operation by operation without data.

FLOPs: two per multiply-add of matrix products and convolutions, as torch's FlopCounterMode counts them; a causal
attention counts in full. Since the real model runs, a frozen matrix has no weight gradient, and layers below the
lowest trained parameter have no backward pass. Memory: bytes of all tensors alive at once, weights, gradients and
the loss function included as they come and go. Attention is counted as a fused kernel (flash) does it: it holds its
inputs, its output and one float32 per head and query, never a score matrix, and computes the scores twice (once more
in the backward pass, which is not counted as it is no work of the model's). So is an RMSNorm that `fused_norm` has
rewritten: it holds its input and one float32 per position.

A block that torch.compile has compiled keeps less for its backward pass (`_Block`): what elementwise operations
make of tensors that are there anyway is computed again, inside the kernels of the backward pass. What a matrix product
takes is kept all the same. This is the rule of torch's partitioner, in short.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ifas.model.loss import INTERPRETATION, lopsided


@dataclass(frozen=True)
class Pass:
    """What one pass of a batch takes.

    Attributes:
        forward, backward: FLOPs; backward is 0 without training.
        peak: most bytes held at once besides weights and their gradients: activations, logits, workspaces.
    """

    forward: int
    backward: int
    peak: int


def training_pass(
    model: Any, batch: int, tokens: int, answers: int, compiled: Sequence[nn.Module] = (), *, features: bool = False
) -> Pass:
    """Forward and backward of one micro-batch.

    Args:
        model: an `IfasModel` on the meta device, with `requires_grad` set and its adapters in place.
        batch: samples.
        tokens: positions T of each sample.
        answers: positions of each sample that carry loss.
        features: the frozen tower's features are given, so that the tower does not run.
        compiled: blocks that torch.compile would compile.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_drop)
    model.train()
    ledger = _Ledger(model, answers=batch * answers)
    pixels = _pixels(model, batch)
    image = {"features": model.features(pixels)} if features else {"pixel_values": pixels}
    hooks = [hook for block in compiled for hook in ledger.hooks(block)]
    with ledger, _Fused(ledger):
        # Any kind but PROMPT: which positions it falls on is up to `answers`.
        parts = torch.full((batch, tokens), INTERPRETATION, device="meta")
        out = model(**image, input_ids=_ids(batch, tokens), parts=parts)
        forward = ledger.flops
        torch.autograd.backward(lopsided(out.sums, out.counts, 0.7))
    for hook in hooks:
        hook.remove()
    return Pass(forward, ledger.flops - forward, ledger.peak)


def prefill_pass(model: Any, batch: int, tokens: int) -> Pass:
    """The judgment of `batch` pictures: one prefill of `tokens` positions, the KV cache included."""
    ledger = _Ledger(model.eval(), answers=0)
    with ledger, _Fused(ledger):
        model.prefill(_pixels(model, batch), _ids(batch, tokens))
    return Pass(ledger.flops, 0, ledger.peak)


def _pixels(model: Any, batch: int) -> Tensor:
    side = int(model.config.vision["image_size"])
    return torch.empty(batch, model.config.views, 3, side, side, dtype=torch.uint8, device="meta")


def _ids(batch: int, tokens: int) -> Tensor:
    return torch.empty(batch, tokens, dtype=torch.long, device="meta")


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up FLOPs and live bytes of every operation, and stands in for values that only data would give."""

    def __init__(self, model: Any, answers: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = self.live = self.peak = 0
        self.answers = answers
        self.results: dict[Any, tuple[tuple[Any, ...], int]] = {}
        self.known = {t.untyped_storage()._cdata for t in [*model.parameters(), *model.buffers()]}
        self.sizes: dict[int, int] = {}
        self.block: _Block | None = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet is torch.ops.aten._local_scalar_dense:
            return True  # asked of masks only: whether all their values are true
        if packet in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten._index_put_impl_):
            args = (args[0], self._positions(args[1]), *args[2:])
        if packet is torch.ops.aten.nonzero:
            out = args[0].new_empty((self.answers, args[0].ndim), dtype=torch.long)
        else:
            out = self._once(func, args, kwargs)
        made = [t for t in (out if isinstance(out, tuple | list) else (out,)) if isinstance(t, Tensor)]
        for tensor in made:
            self._hold(tensor)
        if self.block:
            self.block.note(func, [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)], made)
        return out

    def hooks(self, block: nn.Module) -> list[Any]:
        """Treats a block as compiled, until the hooks are removed."""

        def enter(*_: Any) -> None:
            self.block = _Block()

        def leave(_module: Any, _inputs: Any, out: Any) -> None:
            assert self.block
            given = {t.untyped_storage()._cdata for t in tree_leaves(out) if isinstance(t, Tensor)}
            for key in self.block.made_again({*self.sizes}) - given:
                self.live -= self.sizes[key]
                self.sizes[key] = 0
            self.block = None

        return [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]

    def _once(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs an operation. Where it ran before on the same shapes, only the result's shape is made: far quicker."""
        key = (func, _shapes(args), _shapes(kwargs)) if _makes_new(func) else None
        if key in self.results:
            (shape, stride, dtype), flops = self.results[key]
            self.flops += flops
            return torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        flops = int(flop_registry[packet](*args, **kwargs, out_val=out)) if packet in flop_registry else 0
        self.flops += flops
        if key is not None and isinstance(out, Tensor):
            self.results[key] = (out.shape, out.stride(), out.dtype), flops
        return out

    def _positions(self, indices: list[Tensor | None]) -> list[Tensor | None]:
        """Boolean masks as the positions that they would select."""
        plain: list[Tensor | None] = []
        for index in indices:
            if index is not None and index.dtype == torch.bool:
                plain += [index.new_empty(self.answers, dtype=torch.long) for _ in range(index.ndim)]
            else:
                plain.append(index)
        return plain

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.sizes[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.known.discard(key)
        self.live -= self.sizes.pop(key)


class _Block:
    """How the tensors of one compiled block came about; a tensor is known by its storage."""

    def __init__(self) -> None:
        self.current: dict[int, int] = {}  # storage -> the tensor it holds now
        self.inputs: list[list[int]] = []  # tensor -> tensors that it is made of
        self.elementwise: list[bool] = []
        self.multiplied: set[int] = set()

    def note(self, func: Any, taken: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Notes an operation."""
        keys = [t.untyped_storage()._cdata for t in taken]
        inputs = [self.current[key] for key in keys if key in self.current]
        if func._overloadpacket in flop_registry:
            self.multiplied.update(inputs)
        for key in {t.untyped_storage()._cdata for t in made} - {*keys}:
            self.current[key] = len(self.inputs)
            self.inputs.append(inputs)
            self.elementwise.append(torch.Tag.pointwise in func.tags or func._overloadpacket in _ELEMENTWISE)

    def keep(self, *tensors: Tensor) -> None:
        """These are made, or taken, by something that is not computed twice."""
        for tensor in tensors:
            number = self.current.get(tensor.untyped_storage()._cdata)
            if number is not None:
                self.multiplied.add(number)
                self.elementwise[number] = False

    def made_again(self, live: set[int]) -> set[int]:
        """Storages, of those alive after the forward pass, that the backward pass can do without."""
        alive = {number: key for key, number in self.current.items() if key in live}
        there: list[bool] = []  # tensor -> whether the backward pass has it, or can make it again
        again = set()
        for number, inputs in enumerate(self.inputs):
            can = self.elementwise[number] and all(there[one] for one in inputs)
            if can and number in alive and number not in self.multiplied:
                again.add(alive[number])
            there.append(can or number in alive)
        return again


def _makes_new(func: Any) -> bool:
    """Whether an operation only makes a tensor of its own: no view, and nothing changed in place."""
    schema = func._schema
    return not schema.is_mutable and all(r.alias_info is None for r in schema.returns) and func not in _SHARING


#: Elementwise operations that torch does not call so; `empty_like` stands for a fused RMSNorm, see `_RmsNorm`.
_ELEMENTWISE = (
    torch.ops.aten._to_copy,
    torch.ops.aten.clone,
    torch.ops.aten.cat,
    torch.ops.aten.empty_like,
    torch.ops.aten.native_layer_norm,
)

#: Views that do not say so.
_SHARING = (torch.ops.aten._unsafe_view.default, torch.ops.aten._reshape_alias.default)


def _shapes(thing: Any) -> Any:
    """Arguments with every tensor replaced by what decides the shape of a result; hashable."""
    if isinstance(thing, Tensor):
        return (thing.shape, thing.stride(), thing.dtype)
    if isinstance(thing, dict):
        return tuple((name, _shapes(value)) for name, value in thing.items())
    if isinstance(thing, list | tuple):
        return tuple(map(_shapes, thing))
    return (type(thing), thing)


class _Fused(TorchFunctionMode):
    """Takes the place of what a GPU does in one kernel: scaled_dot_product_attention and rms_norm."""

    def __init__(self, ledger: _Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            return _Attention.apply(named["query"], named["key"], named["value"], self.ledger)  # type: ignore[no-untyped-call]
        if func is F.rms_norm:
            named = dict(zip(("input", "normalized_shape", "weight"), args, strict=False)) | kwargs
            return _RmsNorm.apply(named["input"], named["weight"])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


class _Attention(torch.autograd.Function):
    """Shapes of a fused attention: (B, H, T, D) over (B, H, S, D)."""

    @staticmethod
    def forward(ctx: Any, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, ledger: _Ledger) -> Tensor:
        # Its heads lie side by side, as the layer's last product takes them: no copy is made.
        batch, heads, length, _ = q_BHTD.shape
        out_BHTD = q_BHTD.new_empty((batch, length, heads, v_BHSD.shape[-1])).transpose(1, 2)
        sums_BHT = q_BHTD.new_empty(q_BHTD.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(q_BHTD, k_BHSD, v_BHSD, out_BHTD, sums_BHT)
        if ledger.block:
            ledger.block.keep(q_BHTD, k_BHSD, v_BHSD, out_BHTD, sums_BHT)
        ctx.ledger = ledger
        ctx.flops = 2 * q_BHTD.shape[:-1].numel() * k_BHSD.shape[-2] * (q_BHTD.shape[-1] + v_BHSD.shape[-1])
        ledger.flops += ctx.flops
        return out_BHTD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        del gradients
        q, k, v, *_ = ctx.saved_tensors
        ctx.ledger.flops += 2 * ctx.flops
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None


class _RmsNorm(torch.autograd.Function):
    """Shapes of a fused RMSNorm over the last dimension of (..., W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_W: Tensor) -> Tensor:
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32), weight_W)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None]:
        del gradients
        x, _, weight_W = ctx.saved_tensors
        return torch.empty_like(x), torch.empty_like(weight_W) if ctx.needs_input_grad[1] else None
