"""The format written and read by hand, without the package."""
import json
import struct
from pathlib import Path

import torch

KINDS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
DTYPES = {kind: dtype for dtype, kind in KINDS.items()}


def _factors(model):
    return {n: t for n, t in model.state_dict().items() if n.split(".")[-1] in {"lora_A", "lora_B"}}


def save_adapter(model, path):
    header, body, at = {"__metadata__": {"made_by": "hand"}}, [], 0
    for name, tensor in sorted(_factors(model).items(), reverse=True):
        dense = tensor.detach().cpu().contiguous().reshape(-1)
        raw = bytes(dense.view(torch.uint8).tolist())
        header[name] = {
            "dtype": KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(raw)],
        }
        body.append(raw)
        at += len(raw)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(head)) + head + b"".join(body))


def load_adapter(model, path):
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    body = data[8 + length :]
    own = _factors(model)
    problems = [f"missing {n}" for n in own if n not in header]
    problems += [f"unexpected {n}" for n in header if n not in own]
    problems += [
        f"{n} has shape {header[n]['shape']}, not {list(t.shape)}"
        for n, t in own.items()
        if n in header and tuple(header[n]["shape"]) != tuple(t.shape)
    ]
    if problems:
        raise ValueError("; ".join(problems))
    for name, info in header.items():
        start, end = info["data_offsets"]
        values = torch.frombuffer(bytearray(body[start:end]), dtype=DTYPES[info["dtype"]])
        own[name].copy_(values.reshape(info["shape"]))
