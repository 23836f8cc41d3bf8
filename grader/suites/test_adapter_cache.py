"""What is checked of `adapter_cache`. Contract: S-LoRA (Sheng et al. 2023), section 5."""

import dis
import random
from functools import partial

import torch

from grader.exam.checks import Raised, blame, counted, described, fail, part, rejects, require
from grader.exam.kit import need, nn
from grader.suites.shared import sequences
from grader.suites.shared.caches import INTERRUPTS, MISTAKES, Cache

# Adapters and calls are written as `caches` says.
BLOCK_ENDS = ("OSError", "RuntimeError", "KeyError", "ValueError", "MemoryError", *INTERRUPTS)
FAILURES = ("OSError", "RuntimeError", "MemoryError", "KeyError", "TimeoutError", *INTERRUPTS[:2])


# On the stage


def played(kata, adapters, budget, sequences):
    """What is there after each call, of each sequence on a cache of its own."""
    errors = [OSError, RuntimeError, KeyError, ValueError, MemoryError, TimeoutError]
    errors += [KeyboardInterrupt, SystemExit, GeneratorExit]
    errors = {kind.__name__: kind for kind in errors}
    seen, outside = [], []
    for calls in sequences:
        loads, given, using, now = [], {}, {}, {}

        def load(name, loads=loads, given=given, now=now):
            loads.append(name)
            if now["error"] is not None:
                raise now["error"]
            tensors = {}
            for key, numel, dtype, of in adapters[name]:
                if not of:
                    shape = {0: (2, numel // 2), 1: (1, numel, 1)}[numel % 2] if numel > 1 else ()
                    tensors[key] = torch.zeros(shape, dtype=dtype)
                elif tensors[of].numel() == numel:
                    tensors[key] = tensors[of]
                else:
                    tensors[key] = tensors[of].view(-1)[:numel]
            given.setdefault(name, []).append(tensors)
            return tensors

        cache, trace = kata.AdapterCache(budget, load), []
        for verb, name, token, failure in calls:
            before, end, text, got = len(loads), "ok", "", None
            now["error"] = errors[failure](f"cannot read {name}") if failure else None
            try:
                if verb == "get":
                    got = cache.get(name)
                elif verb == "enter":
                    manager = cache.use(name)
                    got = type(manager).__enter__(manager)
                    using[token] = manager
                elif token in using:
                    manager = using.pop(token)
                    end = left(manager, now["error"] if verb == "raise" else None)
            except BaseException as error:
                stops = isinstance(error, (NotImplementedError, SystemExit))
                if stops and error is not now["error"]:
                    raise
                text, kinds = str(error), type(error).__mro__
                end = next(k.__name__ for k in kinds if k.__module__ == "builtins")
                end = "load" if error is now["error"] else end
            outside.append(got)  # it lives on where it is evicted
            if end == "ok" and verb in ("get", "enter"):
                end = "ok" if any(alike(got, one) for one in given.get(name, [])) else "others"
            used = cache.used_bytes
            used = used.item() if isinstance(used, torch.Tensor) else used
            there = {"end": end, "resident": list(cache.resident), "used_bytes": used}
            trace.append({**there, "loads": loads[before:], "text": text})
        seen.append(trace)
    return seen


def left(manager, error):
    """Leave a `with` block, by this error if there is one."""
    try:
        if error is not None:
            raise error
    except BaseException:
        try:
            stopped = type(manager).__exit__(manager, type(error), error, error.__traceback__)
        except BaseException as again:
            if isinstance(again, NotImplementedError):
                raise
            return "ok" if again is error else "replaced"
        return "swallowed" if stopped else "ok"
    type(manager).__exit__(manager, None, None, None)
    return "ok"


def alike(got, tensors):
    """Whether these are the tensors that load gave, in whichever dict and order."""

    def told(t):
        return t.data_ptr(), t.shape, t.stride(), t.dtype, t.requires_grad

    if not isinstance(got, dict) or set(got) != set(tensors):
        return False
    pairs = [(got[key], tensors[key]) for key in tensors]
    return all(a is b or told(a) == told(b) for a, b in pairs)


def plainly(kata, *given, of):
    """What a probe sees. A MemoryError that the cache raises is no lack of memory."""
    try:
        return of(kata, *given)
    except MemoryError as error:
        kind = type("MemoryError", (Exception,), {"__module__": "builtins"})
        raise kind(str(error)).with_traceback(error.__traceback__) from None


# Drawing and telling


def drawn(rng, names, length, *, enter=0.0, raising=0.0, failing=0.0):
    """A sequence of calls. enter, raising, failing: shares of use() among the calls, of blocks
    that raise, of calls during which load raises."""
    calls, live = [], []
    for token in range(length):
        if live and rng.random() < min(0.6, 0.18 * len(live)):
            out = live.pop(rng.randrange(len(live)))
            kind = rng.choice(BLOCK_ENDS)
            raises = rng.random() < raising
            calls.append(("raise" if raises else "leave", *out, kind if raises else ""))
            continue
        failure = rng.choice(FAILURES) if rng.random() < failing else ""
        verb = "enter" if rng.random() < enter else "get"
        again = verb == "enter" and live and rng.random() < 0.35
        name = rng.choice(live)[0] if again else rng.choice(names)
        calls.append((verb, name, token, failure))
        if verb == "enter":
            live.append((name, token))
    return calls


def tidy(model, calls):
    """Without leaving what was not entered."""
    inside, kept = set(), []
    for call, seen in zip(calls, model.play(calls)):
        verb, _, token, _ = call
        if verb == "enter" and seen["end"] == "ok":
            inside.add(token)
        if verb in ("get", "enter") or token in inside:
            kept.append(call)
        if verb in ("leave", "raise"):
            inside.discard(token)
    return kept


def written(calls, ends):
    """The calls as one would write them: `with` blocks, where they are nested."""
    lines, inside, nested = [], [], _nested(calls, ends)
    raised = {token: failure for verb, _, token, failure in calls[:-1] if verb == "raise"}
    for (verb, name, token, failure), end in zip(calls, ends):
        pad, went_in = "    " * len(inside), verb == "enter" and end == "ok"
        comment = {"ok": "", "load": f"  # load raises {failure}"}.get(end, f"  # raises {end}")
        if verb == "get":
            lines.append(f'{pad}cache.get("{name}"){comment}')
        elif verb == "enter" and nested:
            guard = f"suppress({raised[token]}), " if token in raised else ""
            body = "" if went_in else " ..."
            lines.append(f'{pad}with {guard}cache.use("{name}"):{body}{comment}')
            inside += [token] * went_in
        elif verb == "enter":
            lines.append(f'block_{token} = cache.use("{name}")')
            lines.append(f"block_{token}.__enter__(){comment}")
        elif nested:
            if verb == "raise":
                lines.append(f"{pad}raise {failure}")
            elif lines[-1].endswith(":"):
                lines.append(f"{pad}...")
            inside.remove(token)
        else:
            error = f"{failure}, {failure}(), None" if verb == "raise" else "None, None, None"
            lines.append(f"block_{token}.__exit__({error})")
    return [*lines[:-1], lines[-1] + " ..."] if lines[-1].endswith(":") else lines


def _nested(calls, ends):
    """Whether each block is left before those around it."""
    inside = []
    for (verb, _, token, _), end in zip(calls, ends):
        if verb == "enter" and end == "ok":
            inside.append(token)
        elif verb in ("leave", "raise") and inside.pop() != token:
            return False
    return True


ENDS = {
    "ok": "no exception",
    "load": "the exception that load raised",
    "refused": "an exception of the cache",
    "swallowed": "no exception, though the block raised",
    "replaced": "another exception than the one that the block raised",
}


def told(model, calls, got, want):
    """The calls to read, and what came and what is right after the last."""
    sizes = ", ".join(f"{n} {Cache.size(model, n)}" for n in sorted({call[1] for call in calls}))
    ends = [seen["end"] for seen in model.play(calls)]
    code = [f"cache = AdapterCache({model.budget}, load)  # bytes: {sizes}", *written(calls, ends)]
    field = next(field for field, value in want.items() if got.get(field) != value)
    one, other = got[field], want[field]
    if field == "end":
        came = f"{got['kind']}: {got['text']}" if one == "refused" else ENDS.get(one, one)
        right = "that of the block" if calls[-1][0] == "raise" and other == "ok" else ENDS[other]
        what = f"The last of these calls ends with {came}; expected {right}"
        if one == "others":
            what = "The last of these calls gives other tensors than load gave"
    elif field == "loads":
        what = (
            f"The last of these calls has called load {counted(len(one), 'time')}, not {len(other)}"
        )
    else:
        what = f"After these calls {field} is {one}, expected {other}"
    return f"{what}:\n" + "\n".join(f"  {line}" for line in code)


def coarse(trace, fields):
    """Without what other checks look at: which exception the cache raised, and loads."""
    seen = []
    for call in trace:
        end = call["end"] if call["end"] in (*ENDS, "others") else "refused"
        kept = {**call, "end": end, "kind": call["end"]}
        seen.append({field: kept[field] for field in (*fields, "kind", "text") if field in kept})
    return seen


class Seen:
    """A model of which only some fields are compared."""

    def __init__(self, model, fields):
        self.model, self.fields, self.bug, self.budget = model, fields, model.bug, model.budget

    def play(self, calls):
        trace = coarse(self.model.play(calls), self.fields)
        return [{field: call[field] for field in self.fields} for call in trace]


STATE = ("end", "resident", "used_bytes")


def holds(stage, rng, adapters, budget, *profiles, among=None, fields=STATE):
    """Sequences of the last profile leave what they should. A mistake (one of `among`, if given)
    is named that explains them, and more of every profile."""
    right = Cache(adapters, budget)

    def some(profile, times):
        made = (drawn(rng, sorted(adapters), **profile) for _ in range(times))
        return [tidy(right, calls) for calls in made]

    def play(wanted):
        return [coarse(trace, fields) for trace in stage(played, adapters, budget, wanted)]

    sequences.judge(
        play,
        some(profiles[-1], 10),
        lambda: [calls for profile in profiles for calls in some(profile, 15)],
        Seen(right, fields),
        [
            Seen(kind(adapters, budget), fields)
            for kind in MISTAKES
            if (kind.bug in among if among else kind.bug not in SIZES)
        ],
        partial(tidy, right),
        partial(told, right),
    )


GETS = {"length": 24}
PINS = {"length": 30, "enter": 0.55}
BLOCKS = {"length": 30, "enter": 0.6, "raising": 0.7}
FAILS = {"length": 40, "enter": 0.5, "raising": 0.2, "failing": 0.35}
TIGHT = {"length": 40, "enter": 0.7, "failing": 0.2}
SIZES = ("elements-counted", "one-size-of-element", "shared-counted-once")
LOADS = ("loads-twice", "loads-on-hits", "failure-remembered")


def sized(rng, sizes, names="abcdefgh", dtype=torch.int8):
    """Adapters a, b, c, … of so many bytes, in two tensors each."""
    adapters = {}
    for name, size in zip(names, rng.sample(sizes, len(sizes))):
        first = rng.randint(1, size - 1) if size > 1 else 1
        parts = [("q.lora_A", first, dtype, "")]
        parts += [("q.lora_B", size - first, dtype, "")] if size > 1 else []
        adapters[name] = tuple(parts)
    return adapters


def source(draw):
    return random.Random(int(draw.integers(0, 2**40)))


# init


def fresh(kata, keywords):
    loads = []

    def load(name, /):
        loads.append(name)
        return {"lora_A": torch.ones(3)}

    if keywords:
        cache = kata.AdapterCache(load=load, budget_bytes=64)
    else:
        cache = kata.AdapterCache(64, load)
    seen = []
    for name in (None, "a", "b"):
        if name is not None:
            cache.get(name)
        resident, used = need(cache, "resident"), need(cache, "used_bytes")
        kind = "list" if isinstance(resident, list) else type(resident).__name__
        whole = isinstance(used, int) and not isinstance(used, bool)
        resident = resident[:] if kind == "list" else None
        seen.append((kind, resident, "int" if whole else type(used).__name__, used, list(loads)))
    return seen


@part("init")
def test_starts_empty(stage):
    """A new cache holds nothing and has loaded nothing. resident is a list, used_bytes an int."""
    for keywords in (False, True):
        seen = stage(plainly, keywords, of=fresh)
        for number, (kind, resident, used_kind, used, loads) in enumerate(seen):
            when = f"after {number} calls of get" if number else "of a new cache"
            text = f"resident {when} should be a list of names; it is a {kind}"
            require(kind == "list", text, "resident-is-no-list")
            text = f"used_bytes {when} should be an int; it is a {used_kind}"
            require(used_kind == "int", text)
            if not number:
                text = f"resident of a new cache is {resident}, expected []"
                require(resident == [], text, "shared-between-caches" if keywords else None)
                require(used == 0, f"used_bytes of a new cache is {used}, expected 0")
                require(loads == [], f"making a cache has loaded {loads}")


def two_caches(kata, used):
    """resident and used_bytes of two caches, of which these are used, in turn."""

    def load(sizes):
        return lambda name: {"lora_A": torch.zeros(sizes[name], dtype=torch.int8)}

    caches = (
        kata.AdapterCache(8, load({"a": 4, "b": 4})),
        kata.AdapterCache(4, load({"a": 2, "c": 3})),
    )
    inside = caches[0].use("a") if 0 in used else None
    if inside:
        inside.__enter__()
    for at, name in (1, "a"), (1, "c"), (0, "b"):
        if at in used:
            caches[at].get(name)
    if inside:
        inside.__exit__(None, None, None)
    return [(list(cache.resident), cache.used_bytes) for cache in caches]


@part("init")
def test_caches_are_independent(stage):
    """Two caches share nothing."""
    want = [(["a", "b"], 8), (["c"], 3)]
    for at in (0, 1):
        seen = stage(plainly, (at,), of=two_caches)[at]
        text = f"resident and used_bytes of a cache used alone are {seen}, expected {want[at]}"
        require(seen == want[at], text)
    with blame("shared-between-caches"):
        seen = stage(plainly, (0, 1), of=two_caches)
    text = f"resident and used_bytes of two caches used in turn are {seen}, expected {want}"
    require(seen == want, text, "shared-between-caches")


# state


def in_a_block(kata, way, odd):
    given = []

    def load(name):
        tensors = {"q.lora_A": torch.ones(2, 3), "q.lora_B": torch.zeros(3, 2)}
        if odd:
            tensors = {
                "q.lora_A": torch.ones(2, 3, requires_grad=True),
                "gate": torch.ones(6, 9)[::2, 1:3],
            }
            tensors["turned"] = nn.Parameter(torch.zeros(4, 2).T)
            tensors["turned"].grad = torch.ones(2, 4)
            tensors["same"] = torch.ones(3, 1).expand(3, 4)
        given.append(tensors)
        return tensors

    cache = kata.AdapterCache(400, load)
    if way == "get":
        got = [cache.get("red"), cache.get("red")]
    else:
        with cache.use("red") as first, cache.use("red") as second:
            got = [first, second]
    right = [any(alike(one, tensors) for tensors in given) for one in got]
    left = odd and all(
        t.requires_grad == (k in ("q.lora_A", "turned")) for k, t in given[0].items()
    )
    return (
        right,
        [dict(one) if isinstance(one, dict) else one for one in got],
        left,
        cache.used_bytes,
    )


@part("state")
def test_gives_the_tensors(stage):
    """get returns the tensors that load gave, and `with cache.use(name) as tensors` yields them."""
    for way in ("get", "use"):
        words = "context manager protocol", "__enter__"
        with blame("use-is-no-context-manager" if way == "use" else None, *words):
            same, got, _, _ = stage(plainly, way, False, of=in_a_block)
        for right, value in zip(same, got):
            text = f"{way} gives {described(value)}, not the tensors that load gave"
            copied = isinstance(value, dict) and set(value) == {"q.lora_A", "q.lora_B"}
            bug = "use-yields-nothing" if way == "use" and value in (None, "red") else None
            require(right, text, "tensors-copied" if copied else bug)
        same, got, flags, used = stage(plainly, way, True, of=in_a_block)
        text = f"{way} gives {described(got[0])}, not the tensors that load gave"
        require(all(same), f"{text}, which need not be contiguous and may require gradients")
        require(flags, "requires_grad of the tensors that load gave has been changed")
        shapes = "(2, 3), (3, 2), (2, 4) and (3, 4), some not contiguous"
        text = f"used_bytes is {used}, expected 128, of float32 tensors {shapes}"
        require(used == 128, text)


@part("state")
def test_least_recently_used_goes_first(stage, draw):
    """On a miss others are evicted, least recently used first, until it fits and no further, even
    where a later one alone would have made room; exactly the budget fits. A hit is a use."""
    rng = source(draw)
    adapters = sized(rng, [rng.randint(1, 7), 2, 3, 5, rng.randint(6, 9), 4, 12])
    holds(stage, rng, adapters, 12, GETS)
    many = sized(rng, [1] * 12 + [2] * 3, [*"abcdefghij", "A", "", "a ", " a", "a/b.1"])
    holds(stage, rng, many, 12, GETS, {**PINS, "length": 40})


@part("state")
def test_pins(stage, draw):
    """An adapter in use is not evicted, however often it is in use, until its last block is left,
    in whichever order; entering is a use, leaving is none."""
    rng = source(draw)
    adapters = sized(rng, [1, 2, 3, rng.randint(2, 4), 5, 4, rng.randint(1, 3), 6])
    holds(stage, rng, adapters, 13, PINS)


@part("state")
def test_blocks_that_raise(stage, draw):
    """A block that raises is left too, and its exception passes."""
    rng = source(draw)
    adapters = sized(rng, [1, 2, 3, rng.randint(2, 4), 5, 4, 6])
    holds(stage, rng, adapters, 13, PINS, BLOCKS)


@part("state")
def test_failed_calls_leave_nothing(stage, draw):
    """Where load raises, or the adapter does not fit, the cache, its order and its pins are as
    before, and a later call tries again."""
    rng = source(draw)
    adapters = sized(rng, [1, 2, 3, rng.randint(3, 5), 5, 9, rng.randint(14, 20), 11])
    holds(stage, rng, adapters, 13, PINS, BLOCKS, FAILS)


def unentered(kata, called):
    loads = []

    def load(name):
        loads.append(name)
        return {"lora_A": torch.zeros(2, dtype=torch.int8)}

    cache = kata.AdapterCache(6, load)
    for name in "abc":
        cache.get(name)
    early = [cache.use("a"), cache.use("d")] if called else []
    seen = [list(cache.resident), list(loads)]
    for name in "be":  # evicts a
        cache.get(name)
    seen += [list(cache.resident)]
    del early
    return seen


@part("state")
def test_use_acts_when_entered(stage):
    """Calling use() does nothing until its block is entered: no load, no use, no pin."""
    seen = stage(plainly, False, of=unentered)
    want = [["a", "b", "c"], ["a", "b", "c"], ["c", "b", "e"]]
    text = (
        f"resident is {seen[0]} after get a, b, c, and {seen[2]} after get b and e where three fit"
    )
    require(seen == want, f"{text}, expected {want[0]} and {want[2]}")
    before, loads, after = stage(plainly, True, of=unentered)
    bug = "use-acts-when-called"
    require("d" not in loads, f"calling use('d') without entering loads: {loads}", bug)
    text = f"resident is {before} after get a, b, c and use('a') not entered"
    require(before == ["a", "b", "c"], text, bug if before == ["b", "c", "a"] else None)
    text = f"resident is {after} after get b and e too, expected ['c', 'b', 'e']"
    require(after == ["c", "b", "e"], text, bug if "a" in after else None)


def released(kata):
    import gc
    import weakref

    alive = []

    def load(name):
        tensors = {"lora_A": torch.zeros(4, dtype=torch.int8)}
        alive.append((name, weakref.ref(tensors["lora_A"])))
        return tensors

    cache = kata.AdapterCache(8, load)
    for name in "abcab":
        cache.get(name)
        with cache.use(name):
            pass
    for name in "cd":
        cache.get(name)
    gc.collect()
    return list(cache.resident), [name for name, tensor in alive if tensor() is not None]


@part("state")
def test_evicted_tensors_are_released(stage):
    """The cache keeps nothing of what it has evicted."""
    resident, alive = stage(plainly, of=released)
    require(resident == ["c", "d"], f"resident is {resident} after a, b, a, b, c, d where two fit")
    text = f"tensors are still alive of: {', '.join(alive)}; resident are c and d"
    require(sorted(alive) == ["c", "d"], text, "evicted-kept-alive")


def stored(kata):
    """What becomes of the tensors that load takes from a store, and of what was given of them."""
    store = {name: {"lora_A": torch.full((2, 2), 3.0), "lora_B": torch.ones(2)} for name in "abcd"}
    before = {name: dict(tensors) for name, tensors in store.items()}
    cache, given = kata.AdapterCache(48, store.__getitem__), []
    for name in "abcda":
        given.append((name, cache.get(name)))
        with cache.use(name) as tensors:
            given.append((name, tensors))
    given += store.items()
    return [
        f"{key} of {name}"
        for name, tensors in given
        for key, tensor in before[name].items()
        if tensors.get(key) is None
        or tensors[key].untyped_storage().nbytes() != 4 * tensor.numel()
        or not tensors[key].equal(torch.full_like(tensor, {"lora_A": 3.0, "lora_B": 1.0}[key]))
    ]


@part("state")
def test_evicted_tensors_stay_as_they_are(stage):
    """What is evicted is only forgotten: whoever else holds it can go on using it."""
    lost = stage(plainly, of=stored)
    require(not lost, f"eviction has destroyed what others hold: {', '.join(sorted(set(lost)))}")


# dtype


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES += (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)
DTYPES += (torch.int16, torch.float8_e4m3fn, torch.float8_e5m2)


@part("dtype")
def test_bytes(stage, draw):
    """The bytes of an adapter are the sum of numel * element_size over its keys, whatever their
    dtypes; a tensor under two keys, or a view of it, counts twice."""
    rng = source(draw)
    adapters, every = {}, rng.sample(DTYPES, 12) + rng.sample(DTYPES, 6)
    for name in "abcdef":
        kinds, every = every[:3], every[3:]
        keys = ("q.lora_A", "q.lora_B", "magnitude")
        parts = [(key, rng.randint(1, 9), kind, "") for key, kind in zip(keys, kinds)]
        adapters[name] = tuple(parts)
    holds(stage, rng, adapters, 200, GETS, among=SIZES)
    for name in "ace":
        (key, numel, kind, _), *_ = adapters[name]
        again = ("tied.lora_A", numel, kind, key), ("part.lora_A", (numel + 1) // 2, kind, key)
        adapters[name] = (*adapters[name], *again)
    holds(stage, rng, adapters, 260, GETS, among=SIZES)


def reloaded(kata):
    """What is there after each call, of adapters that are not of the same size each time."""
    sizes = {"a": [2, 5], "b": [8], "c": [11, 3], "d": [1]}

    def load(name):
        return {"lora_A": torch.zeros(sizes[name].pop(0), dtype=torch.int8)}

    cache, seen = kata.AdapterCache(8, load), []
    for name in "abcacd":
        try:
            cache.get(name)
        except MemoryError:
            seen.append("MemoryError")
        else:
            seen.append((list(cache.resident), cache.used_bytes))
    return seen


@part("dtype")
def test_bytes_of_the_last_load(stage):
    """The bytes are those of the tensors that are held, also where a name was smaller before."""
    want = [(["a"], 2), (["b"], 8), "MemoryError", (["a"], 5), (["a", "c"], 8), (["c", "d"], 4)]
    seen = stage(plainly, of=reloaded)
    text = "resident and used_bytes after get a, b, c, a, c, d, of 2, 8, 11, 5, 3 and 1 bytes"
    require(seen == want, f"{text} in a budget of 8, are {seen}, expected {want}")


# cost


@part("cost")
def test_loads_once_a_miss(stage, draw):
    """load is called once for each miss, also for one that then fails, and never on a hit."""
    rng = source(draw)
    adapters = sized(rng, [1, 2, 3, rng.randint(3, 5), 5, 4, 16])
    holds(stage, rng, adapters, 13, FAILS, among=LOADS, fields=("loads",))
    adapters = sized(rng, [2, 3, 5, 6, 7, 16]) | {"h": ()}
    holds(stage, rng, adapters, 11, TIGHT, among=LOADS, fields=("loads",))


# errors


RAISE = dis.opmap["RAISE_VARARGS"]
SMALL, HALF, LARGE = "tiny-lora", "half-lora", "huge-lora"


def refusals(kata, cases):
    """What get and use raise for an adapter, by what is resident and what of it is pinned."""
    sizes, seen = {SMALL: 2, HALF: 6, LARGE: 11}, []

    def load(name):
        return {"lora_A": torch.zeros(sizes[name.partition(".")[0]], dtype=torch.int8)}

    for resident, pinned, asked in cases:
        for way in ("get", "use"):
            cache, outcome = kata.AdapterCache(10, load), None
            for name in resident:
                cache.get(name)
            inside = [cache.use(name) for name in pinned]
            for manager in inside:
                manager.__enter__()
            try:
                if way == "get":
                    cache.get(asked)
                else:
                    with cache.use(asked):
                        pass
            except Exception as error:
                if isinstance(error, NotImplementedError):
                    raise
                outcome = met(error, kata)
            seen.append((outcome, cache.used_bytes > 10))
            for manager in inside:
                manager.__exit__(None, None, None)
    return seen


def met(error, kata):
    """Types and text of an exception, and whether a `raise` of the file made it."""
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    code = last.tb_frame.f_code
    deliberate = code.co_filename == kata.__file__ and code.co_code[last.tb_lasti] == RAISE
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    return names, str(error), deliberate


def refused(stage, cases, error, word):
    """get and use raise this error in these cases, naming the adapter."""
    seen = stage(plainly, cases, of=refusals)
    for at, (outcome, over) in enumerate(seen):
        (resident, pinned, asked), way = cases[at // 2], ("get", "use")[at % 2]
        there = (
            f"; resident: {', '.join(resident) or 'none'}; pinned: {', '.join(pinned) or 'none'}"
        )
        came = Raised(outcome[0], outcome[1], False, outcome[2]) if outcome else outcome
        what = f"{way}({asked!r}), {word}{there},"
        bug = "over-budget-let-in" if over else None
        yield came, partial(rejects, came, error, asked, what=what, bug=bug)


@part("errors")
def test_larger_than_the_budget(stage):
    """An adapter larger than the budget raises MemoryError naming it, whatever is pinned."""
    cases = [((), (), LARGE), ((SMALL, HALF), (), LARGE)]
    for _, ask in refused(stage, cases, "MemoryError", "too large"):
        ask()
    cases = [((SMALL,), (SMALL,), LARGE), ((SMALL, HALF), (SMALL, HALF), LARGE)]
    for came, ask in refused(stage, cases, "MemoryError", "too large"):
        if isinstance(came, Raised) and "builtins.RuntimeError" in came.types:
            said = (
                "MemoryError is what an adapter larger than the budget raises, whatever is pinned"
            )
            fail(f"{said}; RuntimeError was raised: {came.text}", "pins-before-the-budget")
        ask()


@part("errors")
def test_no_room_beside_what_is_pinned(stage):
    """Where an adapter does not fit because the rest is pinned, RuntimeError names it."""
    cases = [((HALF,), (HALF,), f"{HALF}.2"), ((SMALL, HALF), (HALF,), f"{HALF}.2")]
    cases += [((SMALL, HALF, f"{SMALL}.2"), (f"{SMALL}.2", SMALL, HALF), f"{SMALL}.3")]
    for _, ask in refused(stage, cases[:2], "RuntimeError", "without room"):
        ask()


def load_failures(kata):
    class Gone(Exception):
        pass

    class Full(MemoryError):
        pass

    kinds = [OSError, KeyError, ValueError, RuntimeError, MemoryError, Gone, Full, TimeoutError]
    seen = []
    for kind in [*kinds, KeyboardInterrupt, SystemExit]:
        for way in ("get", "use"):
            thrown, loads = [kind("no such adapter")], []

            def load(name, thrown=thrown, loads=loads):
                loads.append(name)
                if name == "bad" and thrown:
                    raise thrown[0]
                return {"lora_A": torch.zeros(2, dtype=torch.int8)}

            cache, got = kata.AdapterCache(4, load), "nothing"

            def ask(name, cache=cache, way=way):
                if way == "get":
                    cache.get(name)
                else:
                    with cache.use(name):
                        pass

            ask("a")
            ask("b")
            try:
                ask("bad")
            except BaseException as error:
                if isinstance(error, NotImplementedError):
                    raise
                got = "it" if error is thrown[0] else type(error).__name__
            left, called = list(cache.resident), loads[2:]
            thrown.clear()
            ask("bad")
            seen.append((kind.__name__, way, got, left, called, list(cache.resident)))
    return seen


@part("errors")
def test_what_load_raises_passes(stage):
    """What load raises passes through get and use as it is, and a later call tries again."""
    for kind, way, got, left, called, after in stage(plainly, of=load_failures):
        text = f"load raises {kind} in {way}(): {got} comes out, not that very exception"
        require(got == "it", text, None if got == "nothing" else "load-error-wrapped")
        text = f"resident is {left} after load raised {kind} in {way}(), it was ['a', 'b']"
        require(left == ["a", "b"], text)
        text = f"load raises {kind} in {way}() and has been called {counted(len(called), 'time')}"
        require(called == ["bad"], text)
        text = f"resident is {after} after {way}() again, load raising no longer; expected"
        require(after == ["b", "bad"], f"{text} ['b', 'bad']")
