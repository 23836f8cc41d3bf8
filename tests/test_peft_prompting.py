"""Prompt and prefix tuning against PEFT on a tiny GPT-2, on the same weights.

PEFT is not needed to use or test the project: `pip install -e '.[compare]'` brings it.
"""

from typing import Any

import pytest
import torch
from models import solution
from torch import Tensor

peft = pytest.importorskip("peft", reason="PEFT is not installed: pip install -e '.[compare]'")
transformers = pytest.importorskip("transformers")

# Its words for what is to come are no affair of ours.
pytestmark = pytest.mark.filterwarnings("default")

B, L, P, D, HEADS, VOCABULARY = 3, 5, 4, 12, 3, 11


def _gpt2() -> Any:
    """One layer, random weights and biases, no dropout."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=32,
        n_embd=D,
        n_layer=1,
        n_head=HEADS,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return model


def _tokens() -> tuple[Tensor, Tensor]:
    """Tokens, and a mask that hides the end of the first row."""
    mask = torch.ones(B, L, dtype=torch.long)
    mask[0, 3:] = 0
    return torch.randint(VOCABULARY, (B, L)), mask


@pytest.mark.parametrize("masked", [True, False])
def test_prompt_tuning_agrees_with_peft(masked: bool) -> None:
    """PEFT's PromptEmbedding before the tokens: the same logits, and the same gradient."""
    model = _gpt2()
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    theirs = peft.get_peft_model(model, config)
    ours = solution("prompt_tuning").PromptTuning(model.get_input_embeddings(), P)
    other = theirs.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        ours.prompt.copy_(torch.randn(P, D))
        other.copy_(ours.prompt)
    tokens, mask = _tokens()
    given = mask if masked else None
    want = theirs(input_ids=tokens, attention_mask=given).logits
    embeds, mask = ours(tokens, given)
    got = model(inputs_embeds=embeds, attention_mask=mask).logits
    torch.testing.assert_close(got, want)
    g = torch.randn_like(want)
    (want * g).sum().backward()
    (got * g).sum().backward()
    assert other.grad is not None
    torch.testing.assert_close(ours.prompt.grad, other.grad)


def test_prefix_tuning_agrees_with_peft() -> None:
    """PEFT's key-value form, through the model's own attention: the same outputs of the layer, and
    the same gradients of the prefix and of the layer's input."""
    model = _gpt2()
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P)
    theirs = peft.get_peft_model(model, config)
    attention = model.transformer.h[0].attn
    ours = solution("prefix_tuning").PrefixAttention(D, HEADS, P)
    other = theirs.prompt_encoder["default"].embedding.weight  # (P, keys and values of the layer)
    with torch.no_grad():
        weights = (
            *attention.c_attn.weight.T.chunk(3),
            attention.c_proj.weight.T,
        )  # (in, out) there
        biases = (*attention.c_attn.bias.chunk(3), attention.c_proj.bias)
        for name, weight, bias in zip("qkvo", weights, biases):
            ours.get_submodule(f"{name}_proj").weight.copy_(weight)
            ours.get_submodule(f"{name}_proj").bias.copy_(bias)
        other.copy_(torch.randn_like(other))
        keys, values = _by_head(other)
        ours.prefix_k.copy_(keys)
        ours.prefix_v.copy_(values)

    seen: list[Tensor] = []

    def leaf(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append(args[0].detach().requires_grad_())
        return (seen[0], *args[1:]), kwargs

    def keep(_: Any, args: Any, output: Any) -> None:
        seen.append(output[0])

    attention.register_forward_pre_hook(leaf, with_kwargs=True)
    attention.register_forward_hook(keep)
    theirs(input_ids=_tokens()[0])
    x, want = seen
    mine = x.detach().clone().requires_grad_()
    got = ours(mine, causal=True)
    torch.testing.assert_close(got, want)
    g = torch.randn_like(want)
    (want * g).sum().backward()  # type: ignore[no-untyped-call]
    (got * g).sum().backward()
    assert other.grad is not None
    for value, grad in zip((ours.prefix_k, ours.prefix_v), _by_head(other.grad)):
        torch.testing.assert_close(value.grad, grad)
    torch.testing.assert_close(mine.grad, x.grad)


def _by_head(flat: Tensor) -> Tensor:
    """(P, 2 * d_model) to keys and values, each (heads, P, d_head)."""
    return flat.view(P, 2, HEADS, D // HEADS).permute(1, 2, 0, 3)
