"""What crosses between examiner and stage: a JSON tree, and behind it the bytes of its tensors.

Nothing here can run code when it is decoded, and every length is bounded before it is read. A
tensor is written with its dtype, shape and place among the bytes; decoded, each is a copy.
"""

import ctypes
import itertools
import math
import re
import socket
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
import torch

LIMIT_BYTES = 64 << 20
_MAX_NODES = 200_000
_MAX_DEPTH = 24
_MAX_DIMENSIONS = 64
_HEADER = struct.Struct("!II")
_TAG = "$"
_PLAIN = {bool, int, type(None)}
# Taken before a submission is loaded.
_to_json, _from_json = msgspec.json.encode, msgspec.json.decode
_DTYPES = {str(v)[6:]: v for v in vars(torch).values() if isinstance(v, torch.dtype)}
# Those of which a tensor may cross; of quantized ones torch makes no plain tensor from bytes.
_CROSSING = {
    name: dtype
    for name, dtype in _DTYPES.items()
    if re.fullmatch(r"bool|(u?int|b?float|complex)(8|16|32|64|128)(_e\w+)?", name)
}
_NAMES = {dtype: name for name, dtype in _CROSSING.items()}


class WireError(Exception):
    """A message is malformed, too large or cannot be sent."""


@dataclass(frozen=True)
class Foreign:
    """Stands for an object that evidence has no form for: only its type's name crosses."""

    type: str


class _Encoder:
    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.size = self.nodes = 0

    def tree(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is str:
            return value if value.isascii() else self._text(value)
        if kind is float:
            return value if math.isfinite(value) else {_TAG: "float", "v": repr(value)}
        if kind is dict:
            return self._dict(value, depth)
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, torch.dtype):
            return {_TAG: "dtype", "v": str(value)[6:]}
        if isinstance(value, torch.device):
            return value.type
        if isinstance(value, bytes):
            return {_TAG: "bytes", "at": self._place(value), "size": len(value)}
        if isinstance(value, list):
            return self._all(list.__iter__(value), depth)
        if isinstance(value, tuple):
            return {_TAG: "tuple", "v": self._all(tuple.__iter__(value), depth)}
        if isinstance(value, Mapping):
            return self._dict(dict(itertools.islice(value.items(), _MAX_NODES)), depth)
        if kind.__module__ == "numpy":
            return self._numpy(value)
        for plain in (int, str, float):  # subclasses: their plain value
            if isinstance(value, plain):
                return self.tree(plain.__new__(plain, value), depth)  # type: ignore[type-var]
        return {_TAG: "foreign", "v": kind.__name__}

    def _all(self, values: Iterable[Any], depth: int) -> list[Any]:
        if depth >= _MAX_DEPTH:
            raise WireError("evidence too large")
        # Most of what crosses is of these kinds, and a call for each would take its time.
        trees = [
            value
            if (kind := type(value)) in _PLAIN or (kind is str and value.isascii())
            else self.tree(value, depth + 1)
            for value in itertools.islice(values, _MAX_NODES)
        ]
        self.nodes += len(trees)
        if self.nodes >= _MAX_NODES:
            raise WireError("evidence too large")
        return trees

    def _dict(self, value: dict[Any, Any], depth: int) -> Any:
        keys, values = self._all(value, depth), self._all(value.values(), depth)
        return {_TAG: "dict", "v": list(zip(keys, values))}

    def _text(self, value: str) -> Any:
        """JSON has no halves of surrogate pairs; Python's texts may hold them."""
        try:
            value.encode()
        except UnicodeEncodeError:
            data = value.encode(errors="surrogatepass")
            return {_TAG: "text", "at": self._place(data), "size": len(data)}
        return value

    def _tensor(self, value: torch.Tensor) -> Any:
        plain = torch.Tensor.detach(value)
        dtype, shape = plain.dtype, plain.shape
        if plain.is_meta:
            return {_TAG: "meta", "shape": shape, "dtype": str(dtype)[6:]}
        if plain.layout != torch.strided:
            return {_TAG: "foreign", "v": f"{plain.layout} tensor"}
        if dtype not in _NAMES:
            return {_TAG: "foreign", "v": f"{dtype} tensor"}
        size = plain.numel() * dtype.itemsize
        if size > LIMIT_BYTES:
            raise WireError("evidence too large")
        if not plain.is_cpu or plain.is_conj() or plain.is_neg():
            plain = plain.resolve_conj().resolve_neg().cpu()
        plain = plain.contiguous()
        at = self._place(ctypes.string_at(plain.data_ptr(), size))
        return {_TAG: "tensor", "dtype": _NAMES[dtype], "shape": shape, "at": at}

    def _place(self, data: bytes) -> int:
        at = self.size
        self.size += len(data)
        if self.size > LIMIT_BYTES:
            raise WireError("evidence too large")
        self.body.append(data)
        return at

    def _numpy(self, value: Any) -> Any:
        try:
            tensor = torch.as_tensor(value)
        except TypeError:
            return {_TAG: "foreign", "v": f"{type(value).__name__} of {value.dtype}"}
        return {**self._tensor(tensor), _TAG: "array"}


class _Decoder:
    """Whatever is not as it should be in a message raises, KeyError or TypeError too."""

    def __init__(self, body: bytes) -> None:
        self.body, self.left = memoryview(body), len(body)

    def tree(self, value: Any) -> Any:
        kind = type(value)
        if kind is dict:
            if value.get(_TAG) not in _KINDS:
                raise WireError("malformed evidence")
            return _KINDS[value[_TAG]](self, value)
        return self._all(value) if kind is list else value

    def _all(self, values: list[Any]) -> list[Any]:
        if type(values) is not list:
            raise WireError("malformed evidence: a list")
        return [
            self.tree(value) if type(value) is dict or type(value) is list else value
            for value in values
        ]

    def _tensor(self, value: dict[str, Any]) -> torch.Tensor:
        dtype, shape = _CROSSING[value["dtype"]], _shape(value)
        piece = self._piece(value["at"], math.prod(shape) * dtype.itemsize)
        if not piece:
            return torch.empty(shape, dtype=dtype)
        own = bytearray(piece)
        if dtype is torch.bool:  # whatever the byte
            return torch.frombuffer(own, dtype=torch.uint8).ne(0).reshape(shape)
        return torch.frombuffer(own, dtype=dtype).view(shape)

    def _array(self, value: dict[str, Any]) -> Any:
        return self._tensor(value).numpy()

    def _meta(self, value: dict[str, Any]) -> torch.Tensor:
        return torch.empty(_shape(value), dtype=_DTYPES[value["dtype"]], device="meta")

    def _dtype(self, value: dict[str, Any]) -> torch.dtype:
        return _DTYPES[value["v"]]

    def _bytes(self, value: dict[str, Any]) -> bytes:
        return bytes(self._piece(value["at"], value["size"]))

    def _text(self, value: dict[str, Any]) -> str:
        return self._bytes(value).decode(errors="surrogatepass")

    def _float(self, value: dict[str, Any]) -> float:
        return _NOT_FINITE[value["v"]]

    def _tuple(self, value: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(self._all(value["v"]))

    def _dict(self, value: dict[str, Any]) -> dict[Any, Any]:
        pairs = value["v"]
        if type(pairs) is not list:
            raise WireError("malformed evidence: a dict")
        return {self.tree(key): self.tree(item) for key, item in pairs}

    def _foreign(self, value: dict[str, Any]) -> Foreign:
        if type(value["v"]) is not str:
            raise WireError("malformed evidence: the name of a type")
        return Foreign(value["v"])

    def _piece(self, at: int, size: int) -> memoryview:
        """Bytes of the body, of which none belongs to two values: all are no more than came."""
        if type(at) is not int or type(size) is not int:
            raise WireError("malformed evidence: the place of a tensor or of bytes")
        self.left -= size
        if at < 0 or size < 0 or self.left < 0 or at + size > len(self.body):
            raise WireError("malformed evidence: the size of a tensor or of bytes")
        return self.body[at : at + size]


def _shape(value: dict[str, Any]) -> list[int]:
    shape: list[int] = value["shape"]
    if type(shape) is not list or len(shape) > _MAX_DIMENSIONS:
        raise WireError("malformed evidence: a tensor's shape")
    for size in shape:
        if type(size) is not int or size < 0:
            raise WireError("malformed evidence: a tensor's shape")
    return shape


_KINDS: dict[str, Callable[[_Decoder, dict[str, Any]], Any]] = {
    name: getattr(_Decoder, f"_{name}")
    for name in (
        "tensor",
        "array",
        "meta",
        "dtype",
        "bytes",
        "text",
        "float",
        "tuple",
        "dict",
        "foreign",
    )
}
_NOT_FINITE = {repr(value): value for value in (math.inf, -math.inf, math.nan)}


def encode(value: Any) -> bytes:
    """One frame. Raises WireError when the value is larger than a message may be."""
    encoder = _Encoder()
    try:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            tree = encoder.tree(value)
        head = _to_json(tree)
    except RecursionError as error:
        raise WireError("evidence too large") from error
    if len(head) + encoder.size > LIMIT_BYTES:
        raise WireError("evidence too large")
    return b"".join((_HEADER.pack(len(head), encoder.size), head, *encoder.body))


def lengths(header: bytes) -> tuple[int, int]:
    """How many bytes of tree and tensors follow. Raises WireError if more than allowed."""
    head, body = _HEADER.unpack(header)
    if head + body > LIMIT_BYTES:
        raise WireError("evidence too large")
    return head, body


HEADER_BYTES = _HEADER.size


def decode(head: bytes, body: bytes) -> Any:
    """The value of a frame. Raises WireError for anything that is not one."""

    def refuse(text: str) -> NoReturn:
        raise WireError(f"malformed evidence: {text}")

    try:
        tree = _from_json(head)
        return _Decoder(body).tree(tree)
    except WireError:
        raise
    except Exception as error:  # whatever a hostile frame provokes in msgspec or torch
        refuse(type(error).__name__)


def receive(sock: socket.socket) -> Any:
    """The next value from a peer that is trusted to send one (the stage's side).

    Raises EOFError when the peer is gone.
    """

    def exactly(count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            chunk = sock.recv(min(count - len(data), 1 << 20))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)

    head, body = lengths(exactly(HEADER_BYTES))
    return decode(exactly(head), exactly(body))
