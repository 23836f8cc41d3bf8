"""One call of a probe as a plain Python file that runs alone."""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from grader.exam import kit
from grader.exam.debugging import Debugged
from grader.exam.wire import Foreign

_INLINE = 64  # entries of a tensor that still stands in the text


def write(found: Debugged, slug: str, file: Path, target: Path) -> list[Path]:
    """Write the last call of a check as the file `target`; returns what was written.

    It imports the learner's `file`, holds the inputs (large ones in a safetensors file beside
    it), makes the call and prints what came, what was expected and the difference. Raises OSError.
    """
    check, call = found.check, found.call
    assert check is not None
    assert call is not None
    values = _Values()
    words = ["kata", *map(values.text, call.args)]
    words += [f"{name}={values.text(value)}" for name, value in call.kwargs.items()]
    words += [f"{name}={helper}" for name, helper in call.helpers.items()]
    made = [
        f'spec = importlib.util.spec_from_file_location("{slug}", {str(file.resolve())!r})',
        "kata = importlib.util.module_from_spec(spec)",
        f'sys.modules["{slug}"] = kata',
        "spec.loader.exec_module(kata)",
        "",
        f"torch.manual_seed({call.seed})",
        f"came = {call.name}({', '.join(words)})",
    ]
    place = None if found.want is None else _place(came=found.evidence, wanted=found.got)
    if place is None:
        made += ['print("came:", came, sep="\\n")']
    else:
        made += [
            f"got, expected = came{place}, {values.text(found.want)}",
            'print("got:", got, "expected:", expected, sep="\\n")',
            'print("difference:", got - expected, sep="\\n")',
        ]
    made += [f"# {line}".rstrip() for line in check.message.splitlines()]
    source = "\n\n".join(_needed(call.source))
    constants = [f"{name} = {_plain(value)}" for name, value in call.values.items()]
    imports = ["import importlib.util", "import sys"]
    saved = []
    if values.large:
        beside = target.with_suffix(".safetensors")
        save_file(values.large, beside)
        saved = [beside]
        imports.append("from pathlib import Path")
        imports.append("from safetensors.torch import load_file")
        constants.append(f"saved = load_file(Path(__file__).with_name({beside.name!r}))")
    title = f'"""{slug}, {check.part}: {check.name.replace("_", " ")}. Run: python {target.name}"""'
    rest = [source, "\n".join(constants), "\n".join(made)]
    blocks = [title, _imports(imports, "\n".join(rest)), *rest]
    target.write_text("\n\n".join(filter(None, blocks)) + "\n", encoding="utf-8")
    return [target, *saved]


class _Values:
    """Values as Python; tensors too large for that are kept to be saved."""

    def __init__(self) -> None:
        self.large: dict[str, torch.Tensor] = {}

    def text(self, value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, dict):
            pairs = (f"{self.text(k)}: {self.text(v)}" for k, v in value.items())
            return f"{{{', '.join(pairs)}}}"
        if isinstance(value, (list, tuple)):
            inner = ", ".join(map(self.text, value))
            if isinstance(value, list):
                return f"[{inner}]"
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        if type(value).__module__ == "numpy":
            return f"{self._tensor(torch.as_tensor(value))}.numpy()"
        return _plain(value)

    def _tensor(self, value: torch.Tensor) -> str:
        if value.device.type == "meta":
            return f'torch.empty({tuple(value.shape)}, dtype={value.dtype}, device="meta")'
        value = value.detach().cpu().contiguous()
        if not value.numel():
            return f"torch.empty({tuple(value.shape)}, dtype={value.dtype})"
        if value.numel() <= _INLINE:
            return f"torch.tensor({_plain(value.tolist())}, dtype={value.dtype})"
        name = f"tensor_{len(self.large)}"
        self.large[name] = value.clone()
        return f'saved["{name}"]'


def _plain(value: Any) -> str:
    return re.sub(r"\b(nan|inf)\b", r'float("\1")', repr(value)) if _numbers(value) else repr(value)


def _numbers(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_numbers, value))
    return isinstance(value, (int, float))


def _place(came: Any, wanted: Any) -> str | None:
    """Where in the evidence that came the value stands that was compared, as Python: '["y"]'."""
    if isinstance(came, torch.Tensor) or not isinstance(came, (dict, list, tuple)):
        same = came is wanted or (
            isinstance(came, torch.Tensor)
            and isinstance(wanted, torch.Tensor)
            and came.shape == wanted.shape
            and came.dtype == wanted.dtype
            and torch.equal(came, wanted)
        )
        return "" if same and not isinstance(came, Foreign) else None
    items = came.items() if isinstance(came, dict) else enumerate(came)
    for key, value in items:
        inner = _place(value, wanted)
        if inner is not None:
            return f"[{key!r}]{inner}"
    return None


def _needed(source: str) -> list[str]:
    """The probe's source, and before it what it uses of the probes' own helpers."""
    there: dict[str, str] = {}
    tree = ast.parse(inspect.getsource(kit))
    text = inspect.getsource(kit)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno, *(mark.lineno for mark in node.decorator_list)])
            there[node.name] = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            there[node.targets[0].id] = ast.get_source_segment(text, node) or ""
    wanted: set[str] = set()
    queue = [source]
    while queue:
        for word in set(re.findall(r"\w+", queue.pop())) - wanted:
            if word in there and not word.startswith("__"):
                wanted.add(word)
                queue.append(there[word])
    return [*(piece for name, piece in there.items() if name in wanted), source]


def _imports(own: list[str], text: str) -> str:
    """These import lines, and those of the helpers' own that the text has a use for."""
    words = set(re.findall(r"\w+", text))
    lines = {*own, "import torch"}
    for node in ast.parse(inspect.getsource(kit)).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            used = [n for n in node.names if (n.asname or n.name.partition(".")[0]) in words]
            if used:
                node.names = used
                lines.add(ast.unparse(node))
    return "\n".join(sorted(lines, key=lambda line: (line.startswith("from"), line)))
