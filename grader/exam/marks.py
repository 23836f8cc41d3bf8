"""What in a source reaches for its surroundings: for a person to look at. It decides nothing.

A sandbox keeps a submission from everything outside of its process. Inside, Python lets code search
frames and memory for the objects of those who ask it; an honest answer has no use for that.
"""

import ast
from collections.abc import Iterator

_NAMES = {
    "_getframe",
    "_current_frames",
    "currentframe",
    "getouterframes",
    "getinnerframes",
    "f_back",
    "f_globals",
    "f_locals",
    "tb_frame",
    "gi_frame",
    "__globals__",
    "__builtins__",
    "__code__",
    "__import__",
    "__subclasses__",
    "__closure__",
    "get_referents",
    "get_referrers",
    "get_objects",
    "setprofile",
    "settrace",
    "meta_path",
    "_DisableTorchDispatch",
    "DisableTorchFunction",
    "DisableTorchFunctionSubclass",
    "_disable_current_modes",
    "_dispatch_library",
    "_get_current_dispatch_mode",
    "_get_current_function_mode",
    "_len_torch_dispatch_stack",
    "_len_torch_function_stack",
    "_profiler_enabled",
    "addaudithook",
    "__torch_function__",
    "__torch_dispatch__",
}
_BUILT_IN = {"eval", "exec"}  # by themselves: a module has an `eval`, too
_MODULES = {
    "_ctypes",
    "_posixsubprocess",
    "_thread",
    "builtins",
    "cffi",
    "ctypes",
    "gc",
    "mmap",
    "multiprocessing",
    "ptrace",
    "pty",
    "resource",
    "signal",
    "socket",
    "subprocess",
    "threading",
}
_DOTTED = {"sys.modules", "inspect.stack", "inspect.trace", "os.fork", "os.kill", "os.memfd_create"}
_PATHS = ("/proc", "/dev/", "/sys/", "/box")


def of(source: bytes) -> tuple[str, ...]:
    """Such as "line 3: sys.modules", one for each thing, in the order of the lines; none where the
    source is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    first: dict[str, int] = {}
    for what, line in _found(tree):
        first[what] = min(line, first.get(what, line))
    return tuple(f"line {line}: {what}" for what, line in sorted(first.items(), key=lambda i: i[1]))


def _text(node: ast.expr, summands: int = 8) -> str:
    """The text that a literal says, or a short sum of literals; empty for anything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=str(text))) if summands:
            before = _text(left, summands - 1)
            return before and before + text
    return ""


def _found(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] in _MODULES:
                        yield alias.name, node.lineno
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in _MODULES:
                    yield module, node.lineno
                for alias in names:
                    if alias.name in _NAMES or f"{module}.{alias.name}" in _DOTTED:
                        yield f"{module}.{alias.name}", node.lineno
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if f"{owner}.{name}" in _DOTTED:
                yield f"{owner}.{name}", node.lineno
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in _NAMES:
                yield name, node.lineno
            case ast.Name(id=name) if name in _BUILT_IN:
                yield name, node.lineno
            case ast.FunctionDef(name=name) if name in _NAMES:
                yield name, node.lineno
            case ast.Constant(value=str()) | ast.BinOp(op=ast.Add()):
                text = _text(node)
                if text in _NAMES or text in _MODULES or text.startswith(_PATHS):
                    yield repr(text[:40]), node.lineno
