"""What is checked of `peft_arithmetic`. Contract: LoRA (Hu et al. 2021), section 4.2, and more."""

import math

import torch

from grader.exam.checks import blame, described, fail, part, require
from grader.exam.kit import copy, nn
from grader.suites.shared.quantizers import only

# Counts of a table of cases


def plain(value):
    """The number itself where a subclass of float stands for one, as NumPy's float64 does; in words
    what is a number of no other kind, which would come as an array."""
    if isinstance(value, float):
        return float(value)
    if value is None or isinstance(value, int):
        return value
    return f"{repr(value)[:60]} of type {type(value).__module__}.{type(value).__name__}"


def tabulated(kata, function, cases):
    """Numbers as they are, others in words."""
    return [plain(getattr(kata, function)(*case)) for case in cases]


def agree(got, want):
    """Equal numbers; of a float, to its rounding."""
    if isinstance(want, float):
        return isinstance(got, (int, float)) and math.isclose(got, want, rel_tol=1e-12)
    return type(got) is int and got == want


def counts(stage, function, cases, right, slips):
    """function(*case) is right(*case), and of its type, for each case.

    slips: what known mistakes compute, named where all cases are as they say.
    """
    compare(stage(tabulated, function, cases), function, cases, right, slips)


def compare(got, function, cases, right, slips):
    calls = [f"{function}({', '.join(map(str, case))})" for case in cases]
    for value, case, call in zip(got, cases, calls):
        if not agree(value, right(*case)):
            of_type(value, right(*case), call)
            known = only(
                bug
                for bug, slip in slips
                if all(agree(value, slip(*case)) for value, case in zip(got, cases))
            )
            fail(f"{call} is {value}, expected {right(*case)}", known)


def of_type(value, want, call):
    """Right in value, and of another type, is a mistake of its own."""
    if isinstance(value, (int, float)) and type(value) is not bool:
        wrong = isinstance(want, int) and isinstance(value, float)
        near = wrong and math.isclose(value, want, rel_tol=1e-12)
        require(not near, f"{call} is the float {value}, expected the int {want}", "count-is-float")
        return
    came = value if isinstance(value, str) else described(value)
    fail(f"{call} should be {type(want).__name__} {want}; it is {came}")


def sizes(draw, *bounds):
    """Some cases, their numbers below these bounds (100 and more: at least 20) and all distinct."""
    cases = []
    while len(cases) < 4:
        case = tuple(int(draw.integers(20 if b >= 100 else 2, b)) for b in bounds)
        if len(set(case)) == len(case):
            cases.append(case)
    return cases


# forward


def lora(d_in, d_out, rank):
    return rank * d_in + d_out * rank


LORA_SLIPS = [
    ("lora-as-dense", lambda i, o, r: r * i * o),
    ("square-assumed", lambda i, o, r: 2 * r * i),
    ("square-assumed", lambda i, o, r: 2 * r * o),
    ("one-factor-only", lambda i, o, r: r * i),
    ("one-factor-only", lambda i, o, r: r * o),
]


@part("forward")
def test_lora_param_count(stage, draw):
    """lora_param_count(d_in, d_out, rank) is rank * (d_in + d_out), for any sizes."""
    pairs = sizes(draw, 900, 900, 20)
    turned = [(d_out, d_in, rank) for d_in, d_out, rank in pairs]
    counts(stage, "lora_param_count", pairs + turned, lora, LORA_SLIPS)
    edges = [
        (768, 768, 8),
        (1, 1, 1),
        (7, 5, 0),
        (1, 300, 4),
        (300, 1, 4),
        (4, 6, 50),
        (2**20, 3 * 2**19, 7),
    ]
    counts(stage, "lora_param_count", [*edges, (12288, 49152, 1)], lora, LORA_SLIPS)


def summed(kata, shapes, rank, kind):
    given = list(shapes)
    if kind == "tuple":
        given = tuple(shapes)
    elif kind == "view of a dict":
        given = dict(enumerate(shapes)).values()
    elif kind == "generator":
        given = (pair for pair in shapes)
    elif kind == "zip":
        given = zip(*zip(*shapes))
    elif kind == "list of torch.Size":
        given = [torch.Size(pair) for pair in shapes]
    return plain(kata.model_lora_param_count(given, rank)), given == shapes


@part("forward")
def test_model_lora_param_count(stage, draw):
    """model_lora_param_count adds up all pairs (d_in, d_out), equal ones too; 0 for none."""
    d = int(draw.integers(64, 99))
    blocks = [(d, d), (d, d // 2), (d, 3 * d), (3 * d, d)]
    cases = [
        ([pair for pair in blocks if pair[0] != pair[1]], 5),
        ([blocks[1]], 3),
        ([(2, 9), (9, 3), (4, 4)], 6),
        ([(3 * 2**30, 2**20 + 1), (2**31, 5)], 8),
        (blocks * 4, 6),
        ([(12288, 12288)] * 192, 4),
        ([(4096, 4096), (4096, 1024), (4096, 14336)] * 32, 64),
        ([], 4),
    ]
    slips = [
        (bug, lambda pairs, r, slip=slip: sum(slip(i, o, r) for i, o in pairs))
        for bug, slip in LORA_SLIPS
    ]
    slips += [
        ("equal-shapes-merged", lambda pairs, r: sum(lora(i, o, r) for i, o in set(pairs))),
    ]
    got = []
    for pairs, rank in cases:
        with blame(None if pairs else "no-shapes-fails"):
            got.append(stage(summed, pairs, rank, "list")[0])
    compare(got, "model_lora_param_count", cases, lambda p, r: sum(lora(*s, r) for s in p), slips)


@part("forward")
def test_shapes_are_any_iterable(stage, draw):
    """shapes may be a list, tuple, generator, zip or view of a dict, and is left as it is."""
    pairs = sizes(draw, 300, 300)
    want = sum(lora(*pair, 3) for pair in pairs)
    total, as_it_was = stage(summed, pairs, 3, "list")
    require(agree(total, want), f"model_lora_param_count of a list is {total}, expected {want}")
    require(as_it_was, "model_lora_param_count changes the list of shapes")
    for kind in ("tuple", "list of torch.Size", "view of a dict", "zip", "generator"):
        known = (
            "shapes-taken-for-a-list" if kind in ("view of a dict", "zip", "generator") else None
        )
        with blame(known):
            total, _ = stage(summed, pairs, 3, kind)
        text = f"model_lora_param_count of a {kind} is {total}, expected {want}"
        require(agree(total, want), text, known)
    total, _ = stage(summed, [], 3, "generator")
    require(agree(total, 0), f"model_lora_param_count of an empty generator is {total}, expected 0")


@part("forward")
def test_compression_ratio(stage, draw):
    """compression_ratio is d_in * d_out / lora_param_count, a float."""

    def ratio(i, o, r):
        return i * o / (r * (i + o))

    cases = [*sizes(draw, 900, 900, 20), (12288, 12288, 4), (4096, 1024, 16), (4, 6, 50)]
    slips = [
        ("ratio-inverted", lambda i, o, r: 1 / ratio(i, o, r)),
        ("ratio-rounded", lambda i, o, r: float(int(ratio(i, o, r)))),
        ("ratio-rounded", lambda i, o, r: int(ratio(i, o, r))),
        ("ratio-rounded", lambda i, o, r: float(round(ratio(i, o, r)))),
        ("ratio-rounded", lambda i, o, r: round(ratio(i, o, r))),
        *[("ratio-rounded", lambda i, o, r, n=n: round(ratio(i, o, r), n)) for n in (1, 2, 3, 4)],
        ("ratio-is-the-saving", lambda i, o, r: 1 - 1 / ratio(i, o, r)),
        ("ratio-is-the-saving", lambda i, o, r: 100 * (1 - 1 / ratio(i, o, r))),
    ]
    counts(stage, "compression_ratio", cases, ratio, slips)
    got = stage(tabulated, "compression_ratio", [(12288, 12288, 4)])[0]
    require(type(got) is float, f"compression_ratio should be a float; it is {described(got)}")


def counted(module):
    """Numbers of values in the parameters of a real module."""
    return sum(p.numel() for p in module.parameters())


@part("forward")
def test_adapter_param_count(stage, draw):
    """adapter_param_count is that of nn.Linear(d, m) and nn.Linear(m, d), both with a bias or both
    without."""

    def adapter(d, m, bias=True):
        return counted(nn.Linear(d, m, bias)) + counted(nn.Linear(m, d, bias))

    slips = [
        ("adapter-bias-forgotten", lambda d, m, bias=True: 2 * d * m),
        ("adapter-bias-once", lambda d, m, bias=True: 2 * d * m + (d if bias else 0)),
        ("adapter-bias-once", lambda d, m, bias=True: 2 * d * m + (m if bias else 0)),
        ("adapter-bias-always", lambda d, m, bias=True: 2 * d * m + d + m),
    ]
    pairs = [*sizes(draw, 400, 100), (768, 64), (9, 9), (1, 1), (8, 30)]
    cases = [(d, m, bias) for d, m in pairs for bias in (True, False)]
    counts(stage, "adapter_param_count", [*cases, *pairs], adapter, slips)


@part("forward")
def test_prefix_param_count(stage, draw):
    """prefix_param_count is 2 * num_layers * prefix_len * d_model: keys and values."""

    def prefix(layers, length, d):
        module = nn.ParameterList([torch.zeros(2, length, d) for _ in range(layers)])
        return counted(module)

    slips = [
        ("prefix-values-forgotten", lambda layers, length, d: layers * length * d),
        ("prefix-in-one-layer", lambda layers, length, d: 2 * length * d),
        ("prefix-in-one-layer", lambda layers, length, d: length * d),
    ]
    cases = [*sizes(draw, 20, 99, 300), (1, 1, 1), (24, 5, 1024), (24, 0, 1024)]
    counts(stage, "prefix_param_count", cases, prefix, slips)


def bytes_of(n_total, n_trainable, weight_bits=16, each=14):
    return n_total * weight_bits // 8 + each * n_trainable


@part("forward")
def test_finetune_bytes(stage, draw):
    """finetune_bytes: weight_bits for every weight, and for each trainable one 2 bytes of gradient,
    4 + 4 of Adam's moments and 4 of the master copy."""
    slips = [
        ("bits-taken-for-bytes", lambda n, t, bits=16: n * bits + 14 * t),
        ("bits-divided-too-early", lambda n, t, bits=16: n * (bits // 8) + 14 * t),
        ("states-for-all", lambda n, t, bits=16: bytes_of(n, n, bits)),
        *[
            ("states-left-out", lambda n, t, bits=16, e=e: bytes_of(n, t, bits, e))
            for e in (2, 6, 10)
        ],
        ("gradient-left-out", lambda n, t, bits=16: bytes_of(n, t, bits, 12)),
        ("gradient-of-four-bytes", lambda n, t, bits=16: bytes_of(n, t, bits, 16)),
        ("gradient-in-weight-bits", lambda n, t, bits=16: bytes_of(n, t, bits, 12) + t * bits // 8),
        ("frozen-weights-only", lambda n, t, bits=16: bytes_of(n - t, t, bits)),
        ("frozen-weights-only", lambda n, t, bits=16: bytes_of(n - t, t, bits, 16)),
        ("default-of-32-bits", lambda n, t, bits=32: bytes_of(n, t, bits)),
    ]
    t = int(draw.integers(1000, 99999))
    n = 8 * int(draw.integers(10**6, 10**7))
    cases = [(n, t), (n, n), (n, 0), (0, 0), (n + 2, t, 4)]
    cases += [(n, t, bits) for bits in (1, 2, 3, 4, 5, 6, 8, 16, 32, 64)] + [
        (7 * 10**9, 4194304, 4),
        (64, 8, 4),
    ]
    counts(stage, "finetune_bytes", cases, bytes_of, slips)


def keywords(kata, shapes, dtype):
    got = {
        "lora_param_count": kata.lora_param_count(rank=3, d_out=20, d_in=10),
        "model_lora_param_count": kata.model_lora_param_count(rank=3, shapes=shapes),
        "compression_ratio": kata.compression_ratio(rank=3, d_out=20, d_in=10),
        "adapter_param_count": kata.adapter_param_count(bias=False, bottleneck_dim=4, d_model=10),
        "prefix_param_count": kata.prefix_param_count(d_model=10, prefix_len=4, num_layers=3),
        "storage_bytes": kata.storage_bytes(dtype=dtype, n_params=7),
        "trainable_report": kata.trainable_report(model=nn.Linear(3, 2))[1],
        "finetune_bytes": kata.finetune_bytes(weight_bits=8, n_trainable=10, n_total=100),
    }
    return {function: plain(value) for function, value in got.items()}


@part("forward")
def test_arguments_by_keyword(stage):
    """Arguments may be given by keyword, in any order."""
    got = stage(keywords, [(10, 20), (5, 6)], torch.float16)
    for function, want in (
        ("lora_param_count", 90),
        ("model_lora_param_count", 123),
        ("compression_ratio", 200 / 90),
        ("adapter_param_count", 80),
        ("prefix_param_count", 240),
        ("storage_bytes", 14),
        ("trainable_report", 8),
        ("finetune_bytes", 240),
    ):
        text = f"{function} by keyword gives {got[function]}, expected {want}"
        require(agree(got[function], want), text)


# Reports on models


def reported(kata, numbers, build):
    """Reports on models made by `build`, and how the models are left: in training, in eval mode
    under no_grad, and with what trains and what is frozen exchanged."""
    made = []
    for model in build(*numbers):
        for p in list(model.parameters())[::2]:
            p.grad = torch.ones_like(p) if p.requires_grad else None
        for turn in range(3):
            if turn == 2:
                exchanged(model)
            model.train(turn != 1)
            was, values = as_it_is(model)
            with torch.set_grad_enabled(turn != 1):
                report = kata.trainable_report(model)
            now, after = as_it_is(model)
            kept = now == was and all(p.equal(v) for p, v in zip(after, values))
            kind = "a tuple" if isinstance(report, tuple) else type(report).__name__
            if isinstance(report, (tuple, list)):
                report = [plain(v) for v in report]
            made.append((kind, report, kept))
    return made


def exchanged(model):
    """The model, of which now trains what was frozen, and the other way round."""
    for p in model.parameters():
        p.requires_grad_(p.is_floating_point() and not p.requires_grad)
    return model


def as_it_is(model):
    """What there is of a model, by identity, and the values of parameters and gradients."""

    def told(value):
        if isinstance(value, dict):
            return [(str(key), id(one)) for key, one in value.items()]
        return sorted(value) if isinstance(value, set) else id(value)

    inside = [
        (id(module), [(name, told(value)) for name, value in vars(module).items()])
        for module in model.modules()
    ]
    parameters = [p for module in model.modules() for p in module._parameters.values()]
    parameters = [p for p in parameters if p is not None]
    flags = [(id(p), p.requires_grad, id(p.grad)) for p in parameters]
    values = [v.detach().clone() for p in parameters for v in (p, p.grad) if v is not None]
    return (inside, flags), values


def parameters_of(model):
    """Each parameter once, by identity, found in the modules themselves."""
    found = {id(p): p for m in model.modules() for p in m._parameters.values() if p is not None}
    return list(found.values())


def once(key):
    """Parameters of which those with one key count once, the last or the first: mistakes."""

    def last(model):
        return list({key(p): p for p in parameters_of(model)}.values())

    def first(model):
        return list({key(p): p for p in reversed(parameters_of(model))}.values())

    return last, first


def report_of(parameters, percent=lambda trainable, total: 100 * trainable / total):
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    return trainable, total, percent(trainable, total) if total else 0.0


def _by_percent(percent):
    return lambda model: report_of(parameters_of(model), percent)


def _of(choose):
    return lambda model: report_of(choose(model))


def _swapped(model):
    trainable, total, _ = report_of(parameters_of(model))
    return trainable, total - trainable, 100 * trainable / total


def _with_buffers(persistent):
    def mistake(model):
        trainable, total, _ = report_of(parameters_of(model))
        kept = model.state_dict()
        total += sum(b.numel() for n, b in model.named_buffers() if n in kept or not persistent)
        return trainable, total, 100 * trainable / total

    return mistake


REPORT_SLIPS = [
    ("percent-is-a-fraction", _by_percent(lambda trainable, total: trainable / total)),
    *[
        ("percent-rounded", _by_percent(lambda part, whole, n=n: round(100 * part / whole, n)))
        for n in (None, 1, 2, 3, 4, 5, 6)
    ],
    ("percent-rounded", _by_percent(lambda part, whole: 100 * part // whole)),
    ("all-taken-for-trainable", lambda model: (*[report_of(parameters_of(model))[1]] * 2, 100.0)),
    ("total-without-trainable", _swapped),
    ("buffers-counted", _with_buffers(True)),
    ("buffers-counted", _with_buffers(False)),
    (
        "tied-counted-twice",
        _of(lambda m: [p for c in m.modules() for p in c.parameters(recurse=False)]),
    ),
    ("tied-counted-twice", _of(lambda m: [p for _, p in m.named_parameters("", True, False)])),
    *[("shared-memory-taken-for-tied", _of(choose)) for choose in once(lambda p: p.data_ptr())],
    ("own-parameters-only", _of(lambda m: list(m.parameters(recurse=False)))),
    ("own-parameters-only", _of(lambda m: [p for c in m.children() for p in c.parameters(False)])),
]


def reports(stage, build, *numbers):
    """trainable_report of each model that `build` makes; the model stays as it was."""
    made = stage(reported, numbers, build=build)
    models = []
    for model, another in zip(build(*numbers), build(*numbers)):
        models += [model, model, exchanged(another)]
    for (kind, got, kept), model in zip(made, models):
        text = f"trainable_report should return (trainable, total, percent), not {described(got)}"
        require(_three(got), text)
        want = report_of(parameters_of(model))
        for name, value, right in zip(("trainable", "total", "percent"), got, want):
            if not agree(value, right):
                of_type(value, right, f"trainable_report: {name}")
                said = f"in {tuple(got)}, expected {right}, of a {model}"
                fail(f"trainable_report: {name} is {value} {said}", _known(made, models))
        require(kind == "a tuple", f"trainable_report should return a tuple, not a {kind}")
        require(kept, "trainable_report changes the model")


def _known(made, models):
    return only(
        bug
        for bug, slip in REPORT_SLIPS
        if all(
            _three(got) and all(map(agree, got, slip(m))) for (_, got, _), m in zip(made, models)
        )
    )


def _three(got):
    return isinstance(got, list) and len(got) == 3


def partly_frozen(a, b, c):
    """Models of which a part trains, that part being a different one each time."""
    model = nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.Sequential(nn.Linear(b, c)))
    model.register_parameter("lora_A", nn.Parameter(torch.ones(a)))
    model.requires_grad_(False)
    yield copy.deepcopy(model)
    for chosen in (model[0].bias, model[1].weight, model[2][0].weight, model):
        chosen.requires_grad_()
        yield copy.deepcopy(model)


@part("freeze")
def test_trainable_and_total(stage, draw):
    """trainable_report counts the values of parameters that require gradients, and of all; percent
    is 100 * trainable / total, not rounded."""
    for numbers in (sizes(draw, 90, 80, 70)[0], (7, 11, 13)):
        reports(stage, partly_frozen, *numbers)


def of_every_shape(a, b):
    """A root with parameters of its own, of no and of three dimensions, whatever their names."""
    model = nn.Linear(a, b, bias=False)
    yield model
    model = nn.Module()
    model.scale = nn.Parameter(torch.tensor(2.0))
    model.lora_A = nn.Parameter(torch.ones(a), requires_grad=False)
    model.weight = nn.Parameter(torch.ones(a, 2, b, dtype=torch.bfloat16).transpose(0, 2))
    model.codes = nn.Parameter(torch.ones(b, dtype=torch.uint8), requires_grad=False)
    model.absent = None
    model.register_parameter("bias", None)
    model.deep = nn.ModuleDict({"x": nn.ModuleList([nn.ParameterList([torch.ones(a, b)])])})
    yield model


@part("freeze")
def test_parameters_of_every_kind(stage, draw):
    """Parameters of the root and of any depth count, of any shape, dtype and name."""
    reports(stage, of_every_shape, *sizes(draw, 40, 30)[0])


def without(a):
    yield nn.Sequential(nn.ReLU(), nn.Flatten())
    yield nn.BatchNorm1d(a, affine=False)


@part("freeze")
def test_no_parameters(stage, draw):
    """A model without parameters has (0, 0, 0.0)."""
    stage(reported, sizes(draw, 40, 30)[0], build=of_every_shape)
    with blame("no-parameters-fails"):
        made = stage(reported, (7,), build=without)
    for (_, got, _), what in zip(made[::3], ("no parameters", "buffers alone")):
        right = _three(got) and all(map(agree, got, (0, 0, 0.0)))
        came = tuple(got) if _three(got) else described(got)
        require(right, f"trainable_report of a model of {what} is {came}, expected (0, 0, 0.0)")


def buffered(a, b):
    model = nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b))
    model[0].requires_grad_(False)
    model.register_buffer("codes", torch.zeros(b, a, dtype=torch.uint8))
    yield model
    model = nn.Sequential(nn.Linear(a, b))
    model.register_buffer("cache", torch.zeros(a, 3), persistent=False)
    model[0].register_buffer("statistics", torch.ones(b, 7))
    model.loose = torch.ones(a, a, requires_grad=True)
    model.register_buffer("soft", torch.ones(2, a, requires_grad=True))
    yield model


@part("state")
def test_buffers_do_not_count(stage, draw):
    """Buffers and tensors that are no parameters do not count."""
    reports(stage, buffered, *sizes(draw, 40, 30)[0])


def tied(a, b):
    """Parameters and modules under two names and more, whichever comes first."""
    model = nn.ModuleDict({"embedding": nn.Embedding(a, b), "head": nn.Linear(b, a)})
    model["head"].weight = model["embedding"].weight
    yield model
    model = nn.ModuleDict({"head": nn.Linear(b, a), "embedding": nn.Embedding(a, b)})
    model["embedding"].weight = model["head"].weight
    model.requires_grad_(False)
    model["head"].bias.requires_grad_()
    yield model
    block = nn.Linear(a, b)
    block.alias = block.weight
    yield block
    block = nn.Linear(a, b)
    model = nn.ModuleList([nn.Sequential(block, nn.Linear(b, a)), block, block])
    model.again = block.weight
    model.listed = nn.ParameterList([block.weight, block.bias])
    model[0][1].requires_grad_(False)
    yield model


@part("state")
def test_tied_parameters_count_once(stage, draw):
    """A parameter counts once, however many names it or its module has."""
    reports(stage, tied, *sizes(draw, 40, 30)[0])


def alike(a, b):
    """Parameters that are equal, or share memory, and are different ones all the same."""
    model = nn.Sequential(nn.Linear(a, b), nn.Linear(a, b), nn.LayerNorm(b), nn.LayerNorm(b))
    model[1].load_state_dict(model[0].state_dict())
    model[1].requires_grad_(False)
    model[3].requires_grad_(False)
    yield model
    model = nn.Sequential(nn.Linear(a, b), nn.Linear(a, b))
    model[1].weight = nn.Parameter(model[0].weight.detach(), requires_grad=False)
    yield model


@part("state")
def test_equal_parameters_are_two(stage, draw):
    """Parameters that are equal, or share memory, are different ones: identity tells."""
    reports(stage, alike, *sizes(draw, 40, 30)[0])


# dtype


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
EIGHTS = tuple(getattr(torch, n) for n in sorted(dir(torch)) if n.startswith("float8_"))
WHOLE = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
WHOLE += (torch.uint16, torch.uint32, torch.uint64)


def stored(n, dtype):
    return n * torch.empty(0, dtype=dtype).element_size()


@part("dtype")
def test_storage_bytes(stage, draw):
    """storage_bytes is n_params times the bytes of the dtype: floats, float8, integers, bool."""
    numbers = [int(n) for n in draw.integers(10**5, 10**6, 3)] + [1, 7 * 10**9]
    bits = [("storage-in-bits", lambda n, dtype: 8 * stored(n, dtype))]
    counts(stage, "storage_bytes", [(n, d) for n in numbers for d in FLOATS], stored, bits)
    for kinds in (EIGHTS, WHOLE):
        with blame("storage-of-few-dtypes"):
            counts(stage, "storage_bytes", [(n, d) for n in numbers for d in kinds], stored, bits)
    with blame("storage-of-few-dtypes"):
        got = stage(tabulated, "storage_bytes", [(n, torch.bool) for n in numbers])
    compare(got, "storage_bytes", [(n, torch.bool) for n in numbers], stored, [])


@part("dtype")
def test_counts_are_ints(stage, draw):
    """Counts and bytes are of type int, also large ones."""
    large = 3 * 2**33 + 1
    wants = {
        "lora_param_count": [((large, large, 3), lora(large, large, 3))],
        "adapter_param_count": [((2**21, 2**13 + 1), 2 * 2**21 * (2**13 + 1) + 2**21 + 2**13 + 1)],
        "prefix_param_count": [((96, 2**17 + 1, 2**14 + 1), 192 * (2**17 + 1) * (2**14 + 1))],
        "storage_bytes": [((large, torch.float32), 4 * large), ((0, torch.int8), 0)],
        "finetune_bytes": [((large, large), 16 * large), ((large + 7, 1, 4), large // 2 + 18)],
    }
    for function, cases in wants.items():
        got = stage(tabulated, function, [case for case, _ in cases])
        for value, (case, want) in zip(got, cases):
            call = f"{function}({', '.join(map(str, case))})"
            if not agree(value, want):
                of_type(value, want, call)
                fail(f"{call} is {value}, expected {want}")
