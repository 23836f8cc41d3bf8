"""What is checked of `adapter_cache`. Contract: S-LoRA (Sheng et al. 2023), section 5."""

import dis
import random
from functools import partial

import torch

from grader.exam.checks import Raised, blame, counted, described, fail, part, rejects, require
from grader.exam.kit import need
from grader.suites.shared import sequences
from grader.suites.shared.caches import MISTAKES, Cache

# Adapters and calls are written as `caches` says.
FAILURES = ("", "OSError", "RuntimeError", "MemoryError", "KeyError")


# On the stage


def played(kata, adapters, budget, sequences):
    """What is there after each call, of each sequence on a cache of its own."""
    errors = {"OSError": OSError, "RuntimeError": RuntimeError, "MemoryError": MemoryError}
    errors |= {"KeyError": KeyError, "KeyboardInterrupt": KeyboardInterrupt}
    seen = []
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
                if isinstance(error, (NotImplementedError, SystemExit)):
                    raise
                text, kinds = str(error), type(error).__mro__
                end = next(k.__name__ for k in kinds if k.__module__ == "builtins")
                end = "load" if error is now["error"] else end
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
            passed = not type(manager).__exit__(manager, type(error), error, error.__traceback__)
        except type(error) as again:
            passed = again is error
        return "ok" if passed else "swallowed"
    type(manager).__exit__(manager, None, None, None)
    return "ok"


def alike(got, tensors):
    """Whether these are the tensors that load gave, in whichever dict."""
    if not hasattr(got, "keys") or list(got.keys()) != list(tensors):
        return False
    pairs = [(got[key], tensors[key]) for key in tensors]
    return all(a is b or (a.data_ptr(), a.shape) == (b.data_ptr(), b.shape) for a, b in pairs)


# Drawing and telling


def drawn(rng, names, length, *, enter=0.0, raising=0.0, failing=0.0):
    """A sequence of calls. enter, raising, failing: shares of use() among the calls, of blocks
    that raise, of calls during which load raises."""
    calls, live = [], []
    for token in range(length):
        if live and rng.random() < min(0.6, 0.18 * len(live)):
            out = live.pop(rng.randrange(len(live)))
            kind = rng.choice(("OSError", "RuntimeError", "KeyError", "KeyboardInterrupt"))
            raises = rng.random() < raising
            calls.append(("raise" if raises else "leave", *out, kind if raises else ""))
            continue
        failure = rng.choice(FAILURES[1:]) if rng.random() < failing else ""
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
        end = call["end"] if call["end"] in ("ok", "load", "others", "swallowed") else "refused"
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
            if among is None or kind.bug in among
        ],
        partial(tidy, right),
        partial(told, right),
    )


GETS = {"length": 24}
PINS = {"length": 30, "enter": 0.55}
BLOCKS = {"length": 30, "enter": 0.6, "raising": 0.7}
FAILS = {"length": 40, "enter": 0.5, "raising": 0.2, "failing": 0.35}
SIZES = (
    *("elements-counted", "one-size-of-element", "first-dtype-for-all"),
    *("shared-counted-once", "storage-counted"),
)
LOADS = ("loads-twice", "loads-on-hits", "failure-remembered")


def sized(rng, sizes, dtype=torch.int8):
    """Adapters a, b, c, … of so many bytes, in two tensors each."""
    adapters = {}
    for name, size in zip("abcdefgh", rng.sample(sizes, len(sizes))):
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

    def load(name):
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
        seen = stage(fresh, keywords)
        for number, (kind, resident, used_kind, used, loads) in enumerate(seen):
            when = f"after {number} calls of get" if number else "of a new cache"
            text = f"resident {when} should be a list of names; it is a {kind}"
            require(kind == "list", text, "resident-is-no-list")
            text = f"used_bytes {when} should be an int; it is a {used_kind}"
            require(used_kind == "int", text, "used-bytes-is-no-int")
            if not number:
                text = f"resident of a new cache is {resident}, expected []"
                require(resident == [], text, "shared-between-caches")
                require(used == 0, f"used_bytes of a new cache is {used}, expected 0")
                require(loads == [], f"making a cache has loaded {loads}")


def two_caches(kata, both):
    def load(name):
        return {"lora_A": torch.zeros(4, dtype=torch.int8)}

    first, second = kata.AdapterCache(8, load), kata.AdapterCache(4, load)
    with first.use("a"):
        if both:
            second.get("a")
            second.get("c")
        first.get("b")
    return first.resident, first.used_bytes, second.resident, second.used_bytes


@part("init")
def test_caches_are_independent(stage):
    """Two caches share nothing."""
    stage(two_caches, False)
    with blame("shared-between-caches"):
        seen = stage(two_caches, True)
    seen, want = (sorted(seen[0]), *seen[1:]), (["a", "b"], 8, ["c"], 4)
    text = f"resident and used_bytes of two caches used in turn are {seen}, expected {want}"
    mixed = "c" in seen[0] or "a" in seen[2]
    require(seen == want, text, "shared-between-caches" if mixed else None)


# state


def in_a_block(kata, way):
    given = []

    def load(name):
        given.append({"q.lora_A": torch.ones(2, 3), "q.lora_B": torch.zeros(3, 2)})
        return given[-1]

    cache = kata.AdapterCache(100, load)
    if way == "get":
        got = [cache.get("red"), cache.get("red")]
    else:
        with cache.use("red") as first, cache.use("red") as second:
            got = [first, second]
    return [any(alike(one, tensors) for tensors in given) for one in got], got


@part("state")
def test_gives_the_tensors(stage):
    """get returns the tensors that load gave, and `with cache.use(name) as tensors` yields them."""
    for way in ("get", "use"):
        words = "context manager protocol", "__enter__"
        with blame("use-is-no-context-manager" if way == "use" else None, *words):
            same, got = stage(in_a_block, way)
        for right, value in zip(same, got):
            text = f"{way} gives {described(value)}, not the tensors that load gave"
            copied = isinstance(value, dict) and set(value) == {"q.lora_A", "q.lora_B"}
            bug = "use-yields-nothing" if way == "use" and value in (None, "red") else None
            require(right, text, "tensors-copied" if copied else bug)


@part("state")
def test_least_recently_used_goes_first(stage, draw):
    """On a miss others are evicted, least recently used first, until it fits and no further, even
    where a later one alone would have made room; exactly the budget fits. A hit is a use."""
    rng = source(draw)
    adapters = sized(rng, [rng.randint(1, 7), 2, 3, 5, rng.randint(6, 9), 4, 12])
    holds(stage, rng, adapters, 12, GETS)


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


def unentered(kata):
    loads = []

    def load(name):
        loads.append(name)
        return {"lora_A": torch.zeros(2, dtype=torch.int8)}

    cache = kata.AdapterCache(6, load)
    for name in "abc":
        cache.get(name)
    early = [cache.use("a"), cache.use("d")]
    seen = [list(cache.resident), list(loads)]
    for name in "be":  # evicts a
        cache.get(name)
    seen += [list(cache.resident)]
    del early
    return seen


@part("state")
def test_use_acts_when_entered(stage):
    """Calling use() does nothing until its block is entered: no load, no use, no pin."""
    before, loads, after = stage(unentered)
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
    gc.collect()
    return list(cache.resident), [name for name, tensor in alive if tensor() is not None]


@part("state")
def test_evicted_tensors_are_released(stage):
    """The cache keeps nothing of what it has evicted."""
    resident, alive = stage(released)
    require(resident == ["a", "b"], f"resident is {resident} after a, b, c, a, b where two fit")
    text = f"tensors are still alive of: {', '.join(alive)}; resident are a and b"
    require(sorted(alive) == ["a", "b"], text, "evicted-kept-alive")


# dtype


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES += (torch.int64, torch.int32, torch.int8, torch.uint8, torch.bool)


@part("dtype")
def test_bytes(stage, draw):
    """The bytes of an adapter are the sum of numel * element_size over its keys, whatever their
    dtypes; a tensor under two keys, or a view of it, counts twice."""
    rng = source(draw)
    adapters, every = {}, rng.sample(DTYPES, 9) + rng.sample(DTYPES, 9)
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


# cost


@part("cost")
def test_loads_once_a_miss(stage, draw):
    """load is called once for each miss, also for one that then fails, and never on a hit."""
    rng = source(draw)
    adapters = sized(rng, [1, 2, 3, rng.randint(3, 5), 5, 4, 16])
    holds(stage, rng, adapters, 13, FAILS, among=LOADS, fields=("loads",))


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
    seen = stage(refusals, cases)
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

    kinds = (OSError, KeyError, ValueError, RuntimeError, MemoryError, Gone)
    seen = []
    for kind in kinds:
        for way in ("get", "use"):
            thrown = kind("no such adapter")

            def load(name, thrown=thrown):
                if name == "bad":
                    raise thrown
                return {"lora_A": torch.zeros(2, dtype=torch.int8)}

            cache, got = kata.AdapterCache(4, load), "nothing"
            cache.get("a")
            cache.get("b")
            try:
                if way == "get":
                    cache.get("bad")
                else:
                    with cache.use("bad"):
                        pass
            except BaseException as error:
                if isinstance(error, NotImplementedError):
                    raise
                got = "it" if error is thrown else type(error).__name__
            seen.append((kind.__name__, way, got, list(cache.resident)))
    return seen


@part("errors")
def test_what_load_raises_passes(stage):
    """What load raises passes through get and use as it is."""
    for kind, way, got, resident in stage(load_failures):
        text = f"load raises {kind} in {way}(): {got} comes out, not that very exception"
        require(got == "it", text, "load-error-wrapped")
        text = f"resident is {resident} after load raised {kind} in {way}(), it was ['a', 'b']"
        require(resident == ["a", "b"], text)
