"""What is checked of `prompt_tuning`. Contract: Lester et al. 2021, sections 2 and 3.2."""

import torch
from torch import nn

from grader.exam.checks import blame, described, near, part, rejects, require, same, tensor
from grader.exam.kit import CheapMeta, Missing, need, set_
from grader.suites.shared import properties

V, D, P = 11, 6, 4  # the embedding table is (V, D)


# What probes do


def table_of(values):
    """An nn.Embedding that holds these values; it trains, as a fresh one does. Its padding_idx
    means nothing here."""
    rows, width = values.shape
    embedding = nn.Embedding(rows, width, 0, device=values.device, dtype=values.dtype)
    set_(embedding, weight=values)
    return embedding


def make(kata, table, prompt):
    module = kata.PromptTuning(table_of(table), prompt.shape[0])
    set_(module, prompt=prompt)
    return module


def pair(answer):
    """(embeds, mask), from a tuple of any kind."""
    if isinstance(answer, tuple) and len(answer) == 2:
        return answer[0], answer[1]
    kind = type(answer).__name__
    raise Missing(f"forward should return a tuple (embeds, mask), not a {kind}")


def run(kata, table, prompt, ids, mask):
    module = make(kata, table, prompt)
    return pair(module(ids) if mask is None else module(ids, mask))


def run_all(kata, cases):
    return [run(kata, *case) for case in cases]


def learn(module, ids, mask, g):
    """The embeddings, and the gradients of (embeds * g).sum() to the prompt and the table."""
    module.prompt.grad = None
    y, _ = pair(module(ids, mask))
    if y.requires_grad and y.shape == g.shape:
        (y * g).sum().backward()
    return y.detach(), module.prompt.grad, module.embedding.weight.grad


# What is right, and what known mistakes make of it


def oracle(table, prompt, ids):
    return torch.cat([prompt.expand(len(ids), -1, -1), table[ids]], 1)


def slips(table, prompt, ids):
    if len(ids) == 1:
        return {}
    rows, content = prompt.expand(len(ids), -1, -1), table[ids]
    known = {"prompt-after-content": torch.cat([content, rows], 1)}
    if len(prompt) > 1:
        mixed = prompt.repeat_interleave(len(ids), 0).view(rows.shape)
        known["prompt-rows-mixed"] = torch.cat([mixed, content], 1)
    return known


def right_embeds(got, table, prompt, ids, what="embeds", **options):
    what = f"{what} for input_ids {tuple(ids.shape)} and prompt {tuple(prompt.shape)}"
    want = oracle(table, prompt, ids)
    shape = tuple(tensor(got, what).shape)
    text = f"{what} has shape {shape}, expected {tuple(want.shape)}"
    bug = "length-kept" if shape == (*ids.shape, prompt.shape[1]) else None
    require(shape == tuple(want.shape), text, bug)
    near(got, want, what=what, dtype=table.dtype, unless=slips(table, prompt, ids), **options)


def right_mask(got, mask, ids, length, what="the mask"):
    """mask: that which was given, or None."""
    given = torch.ones_like(ids) if mask is None else mask
    ones = torch.ones(len(ids), length, dtype=given.dtype)
    want = torch.cat([ones, given], 1)
    bug = "default-mask-missing" if mask is None and got is None else None
    text = f"{what} is {described(got)}, expected one of shape {tuple(want.shape)}"
    require(isinstance(got, torch.Tensor), text, bug)
    bug = "mask-not-extended" if got.shape == ids.shape else None
    require(got.shape == want.shape, text, bug)
    known = {
        "mask-hides-the-prompt": torch.cat([0 * ones, given], 1),
        "mask-ignored": torch.ones_like(want),
    }
    known = {bug: v.double() for bug, v in known.items() if not torch.equal(v, want)}
    if not torch.equal(got.double(), want.double()):  # a mask may hold -inf
        near(got.double(), want.double(), what=what, rtol=0.0, atol=0.0, dtype=None, unless=known)
    bug = "default-mask-dtype" if mask is None else "mask-in-another-dtype"
    require(
        got.dtype == given.dtype, f"{what} is {_name(got.dtype)}, not {_name(given.dtype)}", bug
    )


def _name(dtype):
    return str(dtype)[6:]


def padded(draw, rows, length, dtype=torch.int64):
    """A mask with zeros at either end, other ones in each row, and of more than two a row of zeros
    alone."""
    mask = torch.ones(rows, length, dtype=torch.int64)
    mask[0, length // 2 + 1 :] = 0
    mask[-1, : length // 2] = 0
    mask[1:-1][:1] = 0
    return mask.to(dtype)


def tokens(draw, rows, length, vocabulary=V):
    """Ids; of more than two rows one has the same id throughout."""
    ids = draw.integers(0, vocabulary, rows, length)
    ids[1:-1][:1] = ids[0, 0].clone()
    return ids


# shape


# Batch, length, num_tokens, d: one, or some of them the same.
SIZES = [(3, 5, 4, 6), (1, 5, 4, 6), (3, 1, 4, 6), (1, 1, 4, 6), (2, 4, 4, 6), (4, 2, 4, 6)]
SIZES += [(6, 6, 6, 6), (4, 6, 4, 6), (6, 4, 6, 6), (5, 5, 3, 3), (3, 4, 5, 1), (2, 2, 1, 1)]
SIZES += [(3, 5, 1, 6), (6, 2, 4, 5), (9, 20, 70, 5)]


@part("shape")
def test_output_shapes(stage, draw):
    """embeds is (B, num_tokens + L, d), mask (B, num_tokens + L); sizes of one are legal."""
    cases = []
    for rows, length, p, d in SIZES:
        ids = draw.integers(0, V, rows, length)
        cases.append((draw(V, d), draw(p, d), ids, padded(draw, rows, length)))
    with blame("mask-not-returned", "(embeds, mask), not a Tensor"):
        embeds, mask = stage(run, *cases[0])
    right_embeds(embeds, *cases[0][:3])
    right_mask(mask, cases[0][3], cases[0][2], P)
    outputs = stage(run_all, cases)
    for (embeds, mask), (table, prompt, ids, given) in zip(outputs, cases):
        right_embeds(embeds, table, prompt, ids)
        right_mask(mask, given, ids, len(prompt))


def run_strided(kata, table, prompt, ids, mask):
    module, seen = make(kata, table, prompt), []
    for given in ((ids.T, mask.T), (ids[:, ::2], mask[:, ::2])):
        before = [(t.shape, t.stride()) for t in given]
        answer = pair(module(*given))
        seen.append((*answer, [(t.shape, t.stride()) for t in given] == before))
    return seen


@part("shape")
def test_non_contiguous_inputs(stage, draw):
    """input_ids and attention_mask need not be contiguous; shape and strides stay."""
    table, prompt = draw(V, D), draw(P, D)
    ids, mask = draw.integers(0, V, 3, 5), padded(draw, 3, 5)
    views = (ids.T, mask.T), (ids[:, ::2], mask[:, ::2])
    for (embeds, got, kept), (i, m) in zip(stage(run_strided, table, prompt, ids, mask), views):
        right_embeds(embeds, table, prompt, i)
        right_mask(got, m, i, P)
        require(kept, "a forward changes shape or strides of what it is given")


def layout(kata, table):
    module = kata.PromptTuning(table_of(table), 3)
    places = (vars(module), module._parameters, module._buffers, module._modules)
    own = {n for place in places for n in place if not n.startswith("_") and n != "training"}
    prompt = getattr(module, "prompt", None)
    there = ", ".join(sorted(own)) or "nothing"
    return hasattr(module, "prompt"), there, isinstance(prompt, nn.Module) or prompt


@part("shape")
def test_prompt_shape(stage, draw):
    """prompt is (num_tokens, d)."""
    has, there, prompt = stage(layout, draw(V, D))
    require(has, f"PromptTuning has no `prompt`; it has: {there}", "attribute-missing")
    text = "prompt should be a parameter (num_tokens, d), not a module"
    require(prompt is not True, text, "prompt-is-a-module")
    shape = tuple(tensor(prompt, "prompt").shape)
    bug = {(1, 3, D): "prompt-has-batch-dimension"}.get(shape)
    require(shape == (3, D), f"prompt has shape {shape}, expected {(3, D)}", bug)


# init


def started(kata, table, number, ids, style):
    """The prompt, that of another made alike, the table, and whether they share storage."""
    embedding = table_of(table)
    weight = embedding.weight
    step = ids[1] - ids[0] if style == "range" else 1
    kinds = {"list": list, "tuple": tuple, "range": lambda v: range(v[0], v[-1] + step, step)}
    given = kinds[style](ids)
    module = kata.PromptTuning(embedding=embedding, num_tokens=number, init_ids=given)
    prompt = need(module, "prompt")
    shared = prompt.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    again = kata.PromptTuning(embedding, number, given).prompt
    return prompt, again, weight, shared, list(given) == list(ids)


# Rows that init_ids names, and how.
STARTS: list[tuple[tuple[int, ...], str]] = [
    ((7, 2, 9, 2), "list"),
    ((3, 10, 0, 5), "tuple"),
    ((2, 3, 4, 5), "range"),
]
STARTS += [((0, 1, 2, 3), "list"), ((8,), "list"), ((0,), "tuple"), ((6, 6, 6), "list")]
STARTS += [(tuple(range(V)), "range"), ((*range(V), 4, 0), "list"), ((299, 7, 256), "list")]
STARTS += [((9, 8, 7, 6), "range"), ((1, 4, 7, 10), "range"), ((8, 5, 2), "range")]


@part("init")
def test_prompt_starts_as_the_rows(stage, draw):
    """With init_ids the prompt starts as a copy of these rows, in their order, in storage of its
    own."""
    for ids, style in STARTS:
        table = draw(300 if max(ids) > V else V, D)
        with blame("argument-renamed", "PromptTuning.__init__() got an unexpected keyword"):
            prompt, again, kept, shared, as_given = stage(started, table, len(ids), ids, style)
        words = f"init_ids={ids} ({style})"
        text = f"prompt shares storage with the embedding table: {words}"
        require(not shared, text, "prompt-is-view")
        want = table[list(ids)]
        random = prompt.shape == want.shape and bool((prompt != again).all())
        alike = random and float(torch.cosine_similarity(prompt, want).mean()) > 0.8
        bug = "init-ids-ignored" if random and not alike and len(ids) == 4 else None
        near(prompt, want, what=f"prompt with {words}", atol=0.0, rtol=0.0, bug=bug)
        require(as_given, f"the caller's init_ids is changed: {words}")
        same(kept, table, "embedding.weight after the module was made")


def fresh(kata, table, number):
    one, other = (kata.PromptTuning(table_of(table), number) for _ in range(2))
    return need(one, "prompt"), other.prompt, one.embedding.weight


def _words(prompt, table):
    return all(bool((table == row).all(1).any()) for row in prompt)


@part("init")
def test_prompt_starts_random(stage, draw):
    """Without init_ids the prompt starts random, non-zero, with a standard deviation below 1.5."""
    sizes = (60, 20, 30, 0.5), (300, 3, 40, 0.5), (60, 12, 12, 0.5), (130, 130, 1, 0.5)
    for rows, number, width, std in (*sizes, (60, 12, 12, 20.0)):
        table = draw(rows, width, std=std)
        prompt, other, kept = stage(fresh, table, number)
        if std > 1.5 and prompt.shape == (number, width) and _words(prompt, table):
            continue  # drawn from the vocabulary (Lester et al.): as large as its words are
        bugs = {"large": "prompt-too-large"}
        bugs |= {"zero": "prompt-zero"} if number == 20 else {}  # later: not at every size
        properties.random_start(prompt, other, "prompt", bugs)
        same(kept, table, "embedding.weight after the module was made")


def elsewhere(kata, table, ids):
    """Whether grad mode and the default dtype, both other than usual, stay."""
    embedding, kept = table_of(table), []
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            for starts in (None, ids):
                kata.PromptTuning(embedding, len(ids), starts)(torch.tensor([ids]))
                kept += [not torch.is_grad_enabled(), torch.get_default_dtype() == torch.float64]
    finally:
        torch.set_default_dtype(torch.float32)
    return kept


@part("init")
def test_leaves_torch_as_it_was(stage, draw):
    """Making and calling one leaves grad mode and the default dtype as they were."""
    kept = stage(elsewhere, draw(V, D), [5, 1])
    for there, what in zip(kept, 2 * ("grad mode, here off", "the default dtype, here float64")):
        require(there, f"making or calling one changes {what}")


def by_place(kata, table, ids):
    embedding = table_of(table)
    weight = embedding.weight
    modules = kata.PromptTuning(embedding, 3), kata.PromptTuning(embedding, 2, ids)
    kept = [need(m, "embedding") is embedding for m in modules]
    return kept, embedding.weight is weight, [m.prompt for m in modules]


@part("init")
def test_embedding_is_the_one_passed_in(stage, draw):
    """embedding is the very nn.Embedding passed in, its weight the same Parameter; several modules
    may share it."""
    table, ids = draw(V, D), (5, 1)
    kept, weight, (_, prompt) = stage(by_place, table, ids)
    for is_it in kept:
        require(is_it, "embedding is not the very nn.Embedding passed in", "embedding-copied")
    require(weight, "embedding.weight is another Parameter than before")
    near(prompt, table[list(ids)], what="prompt with init_ids given by place", rtol=0.0, atol=0.0)


# freeze


def training(kata, table, prompt, ids, frozen):
    embedding = table_of(table).requires_grad_(not frozen)
    module = kata.PromptTuning(embedding, prompt.shape[0])
    set_(module, prompt=prompt)
    states = [(embedding.weight.requires_grad, False)]
    for mode in ("eval", "train"):
        getattr(module, mode)()
        y, _ = pair(module(ids))
        if y.requires_grad:
            y.sum().backward()
        module.load_state_dict(module.state_dict())
        states.append((embedding.weight.requires_grad, embedding.weight.grad is not None))
    params = dict(module.named_parameters())
    prompt, own = need(module, "prompt"), embedding.weight
    return {
        "registered": any(p is prompt for p in params.values()),
        "trains": prompt.requires_grad,
        "table": states,
        "extra": [
            n for n, p in params.items() if p.requires_grad and p is not prompt and p is not own
        ],
    }


@part("freeze")
def test_only_the_prompt_trains(stage, draw):
    """prompt is a parameter that trains; the embedding is frozen and gets no gradient."""
    for frozen in (False, True):
        table, prompt, ids = draw(V, D), draw(P, D), draw.integers(0, V, 3, 5)
        with blame("prompt-cached", "backward through the graph a second time"):
            got = stage(training, table, prompt, ids, frozen)
        text = "prompt is not among parameters(): no optimizer will see it"
        require(got["registered"], text, "prompt-no-parameter")
        require(got["trains"], "prompt does not train (requires_grad is False)", "prompt-frozen")
        trains, learns = (any(flags) for flags in zip(*got["table"]))
        bug = "embedding-trains" if all(t for t, _ in got["table"]) else None
        require(not trains, "embedding.weight is not frozen", bug)
        require(not learns, "embedding.weight receives a gradient")
        extra = ", ".join(got["extra"])
        require(not extra, f"another parameter trains: {extra}", "extra-trainable")


def trained(kata, table, ids, starts, g):
    embedding = table_of(table)
    module = kata.PromptTuning(embedding, len(starts), starts)
    for _ in range(3):
        y, _ = pair(module(ids))
        if y.requires_grad and y.shape == g.shape:
            (y * g).sum().backward()
        with torch.no_grad():
            for p in module.parameters():
                if p.requires_grad and p.grad is not None:
                    p -= 0.1 * p.grad
                    p.grad = None
    return embedding.weight, module.prompt


@part("freeze")
def test_training_never_moves_the_table(stage, draw):
    """Steps on the parameters that train move the prompt and leave the embedding table bit for
    bit."""
    for starts in ((0, 1, 2, 3), (2, 3, 4, 5), (7, 2, 9, 2)):
        table, ids, g = draw(V, D), draw.integers(0, V, 3, 5), draw(3, P + 5, D)
        kept, prompt = stage(trained, table, ids, starts, g)
        same(kept, table, "the embedding table after three steps")
        want = table[list(starts)].double() - 0.3 * g[:, :P].double().sum(0)
        near(prompt, want, what="the prompt after three steps")


# forward


@part("forward")
def test_prompt_stands_before_the_embedded_tokens(stage, draw):
    """embeds is the prompt, the same for every row, and then the rows of the table, unchanged to
    the bit; without a mask and with one."""
    table, prompt = draw(300, D, std=1e4), draw(P, D, std=1e4)
    ids = tokens(draw, 3, 5, 300)
    ids[2, :2] = torch.tensor([299, 256])
    for mask in (padded(draw, 3, 5), None):
        got, _ = stage(run, table, prompt, ids, mask)
        right_embeds(got, table, prompt, ids)
        same(got[:, P:].contiguous(), table[ids], "the embedded tokens behind the prompt")
        for row in got[:, :P]:
            same(row.contiguous(), prompt, "the prompt in embeds")


MASKS = (torch.int64, torch.bool, torch.float32, torch.int32, torch.float64, torch.uint8)
MASKS += (torch.bfloat16, torch.float16)


def masked(kata, table, prompt, ids, masks):
    module = make(kata, table, prompt)
    named = pair(module(input_ids=ids, attention_mask=masks[0]))[1]
    return [named, *(pair(module(ids, mask))[1] for mask in masks[1:])]


@part("forward")
def test_mask_is_extended_by_ones(stage, draw):
    """The mask that comes back has ones for the prompt and then the mask given, in its dtype."""
    ids = draw.integers(0, V, 3, 5)
    masks = [padded(draw, 3, 5, dtype) for dtype in MASKS]
    masks += [0.25 * masks[2], masks[2] - 1, 3 * masks[0], 0 * masks[1], 0 * masks[0]]
    masks += [masks[2].log(), 0.1 * masks[4], (2**24 + 1) * masks[0]]
    masks += [torch.ones_like(masks[i]) for i in (0, 1, 2, 3)]  # all ones: its dtype all the same
    with blame("argument-renamed", "PromptTuning.forward() got an unexpected keyword"):
        got = stage(masked, draw(V, D), draw(P, D), ids, masks)
    for answer, mask in zip(got, masks):
        right_mask(answer, mask, ids, P, f"the mask for a {_name(mask.dtype)} one")


@part("forward")
def test_mask_without_one_given(stage, draw):
    """Without attention_mask the mask is int64 ones throughout."""
    ids = draw.integers(0, V, 3, 5)
    ids[0] = 0  # a padding id says nothing
    _, got = stage(run, draw(V, D), draw(P, D), ids, None)
    right_mask(got, None, ids, P, "the mask without attention_mask")


def keeps(kata, table, prompt, ids, mask):
    module = make(kata, table, prompt)
    for mode in ("train", "eval"):
        getattr(module, mode)()(ids, mask), module(ids)
    return module.prompt, module.embedding.weight


@part("forward")
def test_inputs_unchanged(stage, draw):
    """A forward changes neither input_ids and attention_mask nor prompt and table."""
    given = draw(V, D), draw(P, D), draw.integers(0, V, 3, 5), padded(draw, 3, 5)
    prompt, table = stage(keeps, *given)  # the stage itself looks at the inputs
    same(prompt, given[1], "prompt after a forward")
    same(table, given[0], "the embedding table after a forward")


@part("forward")
def test_modes_return_the_module(stage, draw):
    """train() and eval() return the module itself."""
    properties.modes_return_the_layer(stage, (draw(V, D), draw(P, D)), make)


def walk(kata, table, prompt, later, batches, gs, steps, graph):
    """graph: gradients are taken after each step too; else prompt needs none."""
    module = make(kata, table, prompt)
    module.prompt.requires_grad_(graph)
    batches = [(ids.clone(), mask) for ids, mask in batches]
    return [take(kata, module, *step, batches, gs, graph) for step in zip(steps, later)]


def take(kata, module, step, new, batches, gs, graph):
    """One step, and then all that may have been kept from before it."""
    table, prompt = new
    if step == "new values":
        set_(module, prompt=prompt)
        set_(module.embedding, weight=table)
    elif step == "new data":  # which autograd does not count as a change
        module.prompt.data.copy_(prompt)
        module.embedding.weight.data.copy_(table)
    elif step == "load_state_dict":
        module.load_state_dict(make(kata, table, prompt).state_dict())
    elif step == "new ids":
        for ids, _ in batches:
            ids.copy_((ids + 1) % table.shape[0])
    else:
        getattr(module, step)()
    with torch.no_grad():
        silent = [used(module, ids, mask) for ids, mask in batches]
        left_on = torch.is_grad_enabled()
    plain = [used(module, ids, mask) for ids, mask in batches]
    if not graph:  # what is kept under inference_mode is of no use to one
        with torch.inference_mode():
            silent = [used(module, ids, mask) for ids, mask in batches] + silent
    graphs = [learn(module, *batch, g)[1:] for batch, g in zip(batches, gs) if graph]
    with torch.no_grad():
        fresh = [used(module, ids.clone(), mask) for ids, mask in batches]
        for batch in reversed(batches):  # what keeps the last call's has the next step's first
            module(*batch)
    flags = module.embedding.weight.requires_grad, module.prompt.requires_grad == graph
    return fresh + silent + plain, graphs, left_on, flags


def used(module, ids, given):
    """What came, of which the caller then changes the mask."""
    y, mask = pair(module(ids, given))
    if not isinstance(mask, torch.Tensor):
        return y.detach(), mask
    kept, own = mask.clone(), given is None or mask.data_ptr() != given.data_ptr()
    if own and 0 not in mask.stride():  # else it cannot be written to
        mask.zero_()
    return y.detach(), kept


@part("forward")
def test_follows_its_values(stage, draw):
    """Each forward uses the prompt, the table and the tokens of the moment, in either mode, with
    and without gradients."""
    steps = ["train", "new values", "eval", "new values", "new ids", "train", "load_state_dict"]
    steps += ["new data", "eval", "load_state_dict", "new ids", "new values", "new data"]
    for graph in (True, False):
        ids = [tokens(draw, *shape) for shape in ((3, 5), (2, 7), (3, 5), (3, 5))]
        masks = padded(draw, 3, 5), None, padded(draw, 3, 5) == 1, None
        batches = list(zip(ids, masks))
        gs = [draw(len(i), P + i.shape[1], D) for i in ids]
        first, later = (draw(V, D), draw(P, D)), [(draw(V, D), draw(P, D)) for _ in steps]
        with blame("prompt-cached", "backward through the graph a second time"):
            seen = stage(walk, *first, later, batches, gs, steps, graph)
        past, mode, told = [first], "train", []
        for step, new, (outputs, _, left_on, (thawed, same_flag)) in zip(steps, later, seen):
            if step in ("train", "eval"):
                mode = step
            elif step == "new ids":
                ids = [(i + 1) % V for i in ids]
            else:
                past = [new, *past]
            told.append(f"after {step} ({mode} mode)")
            require(not left_on, "a forward under no_grad() leaves grad mode on")
            require(not thawed, f"the embedding is no longer frozen {told[-1]}")
            require(same_flag, f"a forward changes prompt.requires_grad {told[-1]}")
            for place, (y, m) in enumerate(outputs):
                i, (_, mask) = ids[place % 4], batches[place % 4]
                # A table that was not loaded is no copy, nor are tokens kept for these very ids.
                copied = place < 4 and step != "load_state_dict"
                _follows(y, past, i, told[-1], mode, copied)
                right_mask(m, mask, i, P, f"the mask {told[-1]}")
        for words, (_, graphs, *_) in zip(told, seen):
            for (own, of_table), g in zip(graphs, gs):
                require(own is not None, f"prompt gets no gradient {words}")
                near(own, g[:, :P].double().sum(0), what=f"the gradient of prompt {words}")
                require(of_table is None, f"the embedding table gets a gradient {words}")


def _follows(y, past, ids, words, mode, copied):
    what = f"embeds {words}"
    (table, prompt), *before = past
    if mode == "eval" and tuple(tensor(y, what).shape) == (*ids.shape, D):
        require(False, f"{what}: the embedded tokens come back without a prompt", "off-in-eval")
    want = oracle(table, prompt, ids)
    text = f"{what} has shape {tuple(tensor(y, what).shape)}, expected {tuple(want.shape)}"
    require(y.shape == want.shape, text)
    old = [oracle(table, stale, ids) for _, stale in before]
    known = {"prompt-cached": _nearest(y, old)}
    if copied:
        known["table-copied"] = _nearest(y, [oracle(stale, prompt, ids) for stale, _ in before])
    near(y, want, what=what, unless=known if before else {})


def _nearest(got, values):
    """Of the values that one mistake may give, that which `got` is nearest to."""
    return min(values, key=lambda v: float((got.double() - v).abs().sum()), default=None)


# gradient


# Batch, length, mode, size of the gradient.
PASSES = [(3, 5, "train", 1.0), (3, 5, "eval", 1.0), (4, 6, "train", 1.0), (1, 1, "eval", 1.0)]
PASSES += [(9, 19, "train", 300.0), (1, 3, "train", 1.0)]


def gradients(kata, table, prompt, ids, mask, g, mode):
    """The gradients of prompt and table, and that of prompt over two passes."""
    module = getattr(make(kata, table, prompt), mode)()
    with torch.no_grad():
        module(ids, mask)
    _, own, of_table = learn(module, ids, mask, g)
    own = None if own is None else own.clone()
    y, _ = pair(module(ids))
    if y.requires_grad and y.shape == g.shape:
        (y * g).sum().backward()
    return y.detach(), own, of_table, module.prompt.grad


@part("gradient")
def test_gradient_of_the_prompt(stage, draw):
    """The prompt's gradient is the sum over the batch, in training and in eval mode, whatever the
    mask; the table gets none."""
    for rows, length, mode, size in PASSES:
        table, prompt = draw(V, D), draw(P, D)
        ids, g = tokens(draw, rows, length), draw(rows, P + length, D, std=size)
        mask = padded(draw, rows, length)
        y, got, of_table, twice = stage(gradients, table, prompt, ids, mask, g, mode)
        right_embeds(y, table, prompt, ids)
        want = g[:, :P].double().sum(0)
        text = f"prompt gets no gradient ({mode} mode)"
        require(got is not None, text, "prompt-gets-no-gradient")
        known = {"prompt-gets-no-gradient": 0 * want}
        if rows > 1:
            known |= {"gradient-averaged": want / rows}
        near(got, want, what=f"the gradient of prompt ({mode} mode)", unless=known)
        near(twice, 2 * want, what="the gradient of prompt, added up over two passes,")
        require(of_table is None, "the embedding table gets a gradient", "embedding-trains")


# state


def state_names(kata, table):
    return list(kata.PromptTuning(table_of(table), 3).state_dict())


@part("state")
def test_state_names(stage, draw):
    """prompt is in the state dict under this name."""
    there = stage(state_names, draw(V, D))
    text = f"`prompt` is not in the state dict; it holds: {', '.join(there)}"
    require("prompt" in there, text)


def round_trip(kata, table, prompt, other, ids):
    outputs = []
    for mode in ("train", "eval"):
        first = make(kata, table, prompt)
        second = kata.PromptTuning(table_of(other), prompt.shape[0], [0] * prompt.shape[0])
        second(ids)
        second.load_state_dict(getattr(first, mode)().state_dict())
        outputs += [pair(getattr(second, late)()(ids))[0] for late in ("train", "eval")]
    return outputs


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    table, prompt, other = draw(V, D), draw(P, D), draw(V, D)
    ids = draw.integers(0, V, 3, 5)
    for y in stage(round_trip, table, prompt, other, ids):
        right_embeds(y, table, prompt, ids, "embeds after load_state_dict")


# dtype and device


def in_dtype(kata, table, prompt, ids, g, starts, later):
    """later: the module is made in float32 and moved to the dtype."""
    embedding = table_of(table.float() if later else table)
    modules = kata.PromptTuning(embedding, len(starts)), kata.PromptTuning(embedding, 4, starts)
    if later:
        modules = [m.to(table.dtype) for m in modules]
    kinds = [str(need(m, "prompt").dtype) for m in modules]
    rows = modules[1].prompt.detach().clone()
    set_(modules[0].embedding, weight=table)
    set_(modules[0], prompt=prompt)
    flags = modules[0].embedding.weight.requires_grad, modules[0].prompt.requires_grad
    return kinds, rows, flags, *learn(modules[0], ids, None, g)[:2]


@part("dtype")
def test_dtypes(stage, draw):
    """prompt has the dtype of the embedding table, and so has embeds: float64 or bfloat16, from the
    start or after .to()."""
    for dtype in (torch.float64, torch.bfloat16):
        for later in (False, True):
            table, prompt = draw(V, D).to(dtype) / 3, draw(P, D).to(dtype) / 3
            ids, g = draw.integers(0, V, 3, 5), draw(3, P + 5, D, dtype=dtype)
            kinds, rows, flags, y, own = stage(in_dtype, table, prompt, ids, g, (7, 2, 9, 2), later)
            for kind in kinds:
                text = f"prompt is {kind[6:]}, the embedding table {_name(dtype)}"
                known = "float32-prompt" if kind == "torch.float32" else None
                require(kind == str(dtype), text, known)
            if not later:
                want = table[[7, 2, 9, 2]]
                near(rows, want, what="prompt with init_ids", dtype=dtype, rtol=0.0, atol=0.0)
            require(tuple(flags) == (False, True), ".to() changes what trains")
            words = f"embeds of a {_name(dtype)} table"
            require(y.dtype == dtype, f"{words} is {_name(y.dtype)}")
            right_embeds(y, table, prompt, ids, words, rtol=0.0, atol=0.0)
            require(own is not None, f"prompt gets no gradient in {_name(dtype)}")
            want = g[:, :P].double().sum(0)
            near(own, want, what=f"the gradient of a {_name(dtype)} prompt", dtype=dtype)


def on_meta(kata, starts, moved, run):
    with CheapMeta():
        embedding = nn.Embedding(9, 6, device="cpu" if moved else "meta", dtype=torch.bfloat16)
        module = kata.PromptTuning(embedding, 4, starts)
        module = module.to("meta") if moved else module
        if not run:
            return need(module, "prompt")
        ids = torch.zeros(2, 5, dtype=torch.int64, device="meta")
        mask = torch.ones(2, 5, dtype=torch.bool, device="meta")
        return *pair(module(ids)), *pair(module(ids, mask))


@part("device")
def test_meta_device(stage):
    """An embedding on the meta device gives a prompt, embeddings and masks there."""
    for starts, moved in ((None, False), ((7, 2, 8, 2), False), (None, True)):
        prompt = tensor(stage(on_meta, starts, moved, False), "prompt")
        text = f"prompt is on {prompt.device.type}; the embedding is on meta"
        require(prompt.device.type == "meta", text, "cpu-prompt")
        near_meta(prompt, "prompt", (4, 6), torch.bfloat16)
        y, m, z, n = stage(on_meta, starts, moved, True)
        near_meta(y, "embeds", (2, 9, 6), torch.bfloat16)
        near_meta(z, "embeds", (2, 9, 6), torch.bfloat16)
        near_meta(m, "the mask without attention_mask", (2, 9), torch.int64)
        near_meta(n, "the mask", (2, 9), torch.bool)


def near_meta(got, what, shape, dtype):
    place = tensor(got, what).device.type
    require(place == "meta", f"{what} is on {place}, expected meta")
    text = f"{what} is {described(got)}, expected {_name(dtype)} of shape {shape}"
    require(got.shape == shape and got.dtype == dtype, text)


# errors


def of_number(kata, number):
    kata.PromptTuning(nn.Embedding(11, 6), number)


@part("errors")
def test_num_tokens_below_one(stage):
    """num_tokens < 1 raises ValueError naming num_tokens."""
    properties.at_least_one(stage, of_number, "num_tokens", "number-unchecked")


def of_ids(kata, number, ids):
    kata.PromptTuning(nn.Embedding(11, 6), num_tokens=number, init_ids=ids)


@part("errors")
def test_ids_of_another_number(stage):
    """Another number of init_ids than num_tokens raises ValueError naming either."""
    names = "num_tokens", "init_ids"
    cases = ((4, (7, 2, 9)), (3, [7, 2, 9, 2]), (2, [3]), (1, (3, 3)), (3, []), (1, ()), (0, []))
    for number, ids in cases:
        outcome = stage.attempt(of_ids, number, ids)
        what = f"num_tokens={number} with init_ids={ids}"
        bug = "ids-unchecked" if ids else "empty-ids-as-none" if number else None
        rejects(outcome, "ValueError", names, what=what, bug=bug)


def after_error(kata, table, number, ids, trains):
    embedding = table_of(table).requires_grad_(trains)
    try:
        kata.PromptTuning(embedding, number, ids)
    except ValueError:
        return embedding.weight.requires_grad, embedding.weight
    return None, embedding.weight


@part("errors")
def test_errors_leave_the_embedding(stage, draw):
    """After a ValueError the embedding is as it was."""
    for number, ids in ((0, None), (-1, None), (3, [7, 2]), (2, [7, 2, 9])):
        table = draw(V, D)
        trains, kept = stage(after_error, table, number, ids, True)
        text = f"the embedding was frozen before the error was raised (num_tokens={number})"
        require(trains is not False, text, "frozen-before-check")
        same(kept, table, "embedding.weight after the error")
        trains, _ = stage(after_error, table, number, ids, False)
        require(not trains, "after the error an embedding that was frozen trains")


# gpu


def on_device(kata, table, prompt, ids, mask, g, starts, device):
    module = make(kata, table.to(device), prompt.to(device))
    ids, mask = ids.to(device), mask.to(device)
    y, m = pair(module(ids, mask))
    (y * g.to(device)).sum().backward()
    ones = pair(module(ids))[1]
    other = kata.PromptTuning(module.embedding, len(starts), starts).prompt
    kept = kata.PromptTuning(module.embedding, len(starts)).prompt
    places = [str(t.device.type) for t in (y, m, ones, other, kept)]
    return y, m, ones, module.prompt.grad, other, places


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    table, prompt, starts = draw(V, D), draw(P, D), [7, 2, 9, 2]
    ids, mask, g = draw.integers(0, V, 3, 5), padded(draw, 3, 5), draw(3, P + 5, D)
    given = table, prompt, ids, mask, g, starts, stage.device
    y, m, ones, own, other, places = stage(on_device, *given)
    for place in places:
        require(place == stage.device.split(":")[0], f"something is on {place}", "cpu-prompt")
    right_embeds(y, table, prompt, ids)
    right_mask(m, mask, ids, P)
    right_mask(ones, None, ids, P)
    near(own, g[:, :P].double().sum(0), what="the gradient of prompt")
    near(other, table[starts], what="prompt with init_ids")
