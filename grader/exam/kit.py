"""What probes may use on the stage, beside torch itself.

A probe runs next to the learner's code; these helpers set up its layers, say plainly what is
missing, and count work.
"""

import _thread
import contextlib
import copy
import math
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

__all__ = [
    "CheapMeta",
    "F",
    "Missing",
    "copy",
    "count",
    "grad_of",
    "linear",
    "math",
    "need",
    "nn",
    "set_",
    "torch",
    "trainable",
]


class Missing(Exception):
    """A name of the contract is not there."""


def need(owner: Any, name: str) -> Any:
    """`owner.name`, or Missing with what is there instead."""
    try:
        return getattr(owner, name)
    except AttributeError:
        places = ("__dict__", "_parameters", "_buffers", "_modules")
        own = {n for place in places for n in getattr(owner, place, {})}
        there = ", ".join(n for n in sorted(own) if not n.startswith("_") and n != "training")
        raise Missing(
            f"{type(owner).__name__} has no `{name}`; it has: {there or 'nothing'}"
        ) from None


class _Unset(nn.Linear):
    """Without the random values that would be written over."""

    def reset_parameters(self) -> None:
        pass


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """A plain nn.Linear with this weight (out, in) and bias (out,)."""
    out, into = weight.shape
    given = {"device": weight.device, "dtype": weight.dtype}
    layer: nn.Linear = _Unset(into, out, bias is not None, **given)
    layer.__class__ = nn.Linear
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


def set_(module: Any, **values: torch.Tensor) -> None:
    """Write values into the named tensors of a module, in place."""
    for name, value in values.items():
        target = need(module, name)
        if not isinstance(target, torch.Tensor):
            kind = type(target).__name__
            raise Missing(f"`{name}` of {type(module).__name__} is no tensor but a {kind}")
        if target.shape != value.shape:
            raise Missing(
                f"`{name}` of {type(module).__name__} has shape {tuple(target.shape)}, "
                f"expected {tuple(value.shape)}"
            )
        with torch.no_grad():
            target.copy_(value)


def trainable(module: nn.Module) -> list[str]:
    """Names of the parameters that train, each once."""
    return [name for name, p in module.named_parameters() if p.requires_grad]


def grad_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor's gradient, or None."""
    return tensor.grad


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True would import the compiler at the first operator: a second


_OPERATORS = frozenset(torch._C._dispatch_get_all_op_names())
_KERNEL_IN_PYTHON = re.compile(r"^(?:CPU|Composite\w*)\b.*\(none\) \[ boxed \]", re.MULTILINE)


class _Counter(_Mode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops = self.flops = self.largest = 0
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.ops += 1
        self.seen.add(func.name())
        if (formula := flop_registry.get(func.overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for item in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(item, torch.Tensor):
                self.largest = max(self.largest, _held(item))
        return out

    def own(self) -> list[str]:
        """Operators that are not torch's, or whose kernel is not: what they do is not counted."""
        return sorted(
            name
            for name in self.seen
            if name not in _OPERATORS or _KERNEL_IN_PYTHON.search(torch._C._dispatch_dump(name))
        )


class _Handed(TorchFunctionMode):
    """Notes what a call takes out of tensors, to go on with it where no operator is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.listed = self.elsewhere = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _HANDING:
            self.listed += args[0].numel() if func is torch.Tensor.tolist else 0
            self.elsewhere += args[0].dtype.is_floating_point
        return func(*args, **(kwargs or {}))


_HANDING = {
    torch.Tensor.numpy,
    torch.Tensor.tolist,
    torch.Tensor.__array__,
    torch.Tensor.__dlpack__,
}


def _held(tensor: torch.Tensor) -> int:
    """How many values it holds in memory: an expanded view holds no more than its storage."""
    if tensor.layout is not torch.strided:
        return tensor.numel()
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())


class CheapMeta(_Mode):  # type: ignore[no-untyped-call]
    """While inside, operators on meta tensors run on CPU zeros of the same shapes.

    Shapes, dtypes and errors are the same; torch's own meta kernels first import for a second.
    Operators that alias an argument or read a value (also where the result's shape depends on
    values, as in `nonzero`) are torch's own all the same, and so are those that change an argument
    of another shape. As torch does, indexing takes tensors on meta together with indices on the
    CPU.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
        if func is _aten.normal_.default and _is_meta(args[0]):
            return args[0]
        if str(kwargs.get("device")) == "meta" and func in _RANDOM:
            return _aten.empty.memory_format(args[_RANDOM[func]], **kwargs)
        if func._schema.is_mutable:
            return _changed(func, args, kwargs, tensors)
        own = func in _OWN or func.is_view
        if own or _reads(func, tensors) or not any(map(_is_meta, tensors)):
            return func(*args, **kwargs)
        whole = (torch.int64, torch.int32)
        indexed = func in _INDEXING and _is_meta(args[0])
        if any(t.ndim and not _is_meta(t) and not (indexed and t.dtype in whole) for t in tensors):
            raise RuntimeError("Expected all tensors to be on the same device: meta and cpu met")
        zeros = tree_map(lambda v: torch.zeros(v.shape, dtype=v.dtype) if _is_meta(v) else v, args)
        return tree_map(
            lambda v: v.to("meta") if isinstance(v, torch.Tensor) else v, func(*zeros, **kwargs)
        )


_aten = torch.ops.aten
_OWN = {_aten._local_scalar_dense.default, _aten._to_copy.default}
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_select.default,
    _aten.gather.default,
    _aten.embedding.default,
}
# Operators that fill new tensors, and which argument is the size. Their values are not looked at.
_RANDOM = {_aten.randn.default: 0, _aten.normal.float_float: 2}


def _changed(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
    """An operator that changes an argument and gives it back."""
    if len(tensors) > 1 and all(_is_meta(t) and 0 not in t.stride() for t in tensors):
        zeros = {id(t): torch.zeros(t.shape, dtype=t.dtype) for t in tensors}
        words, names = tree_map(lambda v: zeros.get(id(v), v), (args, kwargs))
        result = func(*words, **names)
        given = {id(zero): t for t in tensors if (zero := zeros[id(t)]).shape == t.shape}
        back = [given.get(id(v)) for v in tree_leaves(result)]
        if len(given) == len(zeros) and None not in back:
            return tree_map(lambda v: given[id(v)], result)
    return func(*args, **kwargs)


def _reads(func: Any, tensors: list[torch.Tensor]) -> bool:
    """Whether the result's shape depends on values, which meta tensors do not have."""
    if func is torch.ops.aten.index.Tensor:  # only where a mask is among the indices
        return any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
    return torch.Tag.dynamic_output_shape in func.tags


def _is_meta(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "meta"


threads_at_rest = 0  # how many run before a probe begins: the stage says
_STARTERS = [
    (module, name)
    for module in (_thread, threading)
    for name in vars(module)
    if name.lstrip("_") in ("start_new_thread", "start_new", "start_joinable_thread")
]


@contextlib.contextmanager
def _no_threads() -> Iterator[None]:
    """While inside, no thread can be started, and none may be there: none would be counted."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise Missing("The work is done on another thread, where it cannot be counted")

    if _thread._count() > threads_at_rest:
        refuse()
    kept = [(module, name, getattr(module, name)) for module, name in _STARTERS]
    for module, name in _STARTERS:
        setattr(module, name, refuse)
    try:
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def count(call: Callable[[], Any]) -> dict[str, int]:
    """What a call costs: dispatched operators ("ops"), values in its largest result ("largest"),
    "flops"; values that it makes Python's by tolist ("listed"), and how often it takes floats out
    of torch, which may be right ("elsewhere").

    Raises Missing where a part of the work is done on another thread, or in an operator or a
    kernel that is not torch's.
    """
    counter, handed = _Counter(), _Handed()
    with _no_threads(), handed, counter:
        call()
    if own := counter.own():
        raise Missing(
            f"A part of the work is done in an operator of its own, {own[0]}, "
            "where it cannot be counted"
        )
    return {
        "ops": counter.ops,
        "largest": counter.largest,
        "flops": counter.flops,
        "listed": handed.listed,
        "elsewhere": handed.elsewhere,
    }
