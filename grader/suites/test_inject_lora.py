"""What is checked of `inject_lora`. Contract: LoRA (Hu et al. 2021), section 4.2."""

import torch

from grader.exam.checks import blame, part, require
from grader.suites.shared import injection
from grader.suites.shared.injection import (
    ALPHA,
    RANK,
    WIDTH,
    net,
    net_frozen_in_part,
    plain,
    sharing,
    tied,
)


def inject_lora(kata, model, names, rank=RANK, alpha=ALPHA):
    return kata.inject_lora(model, names, rank=rank, alpha=alpha)


LORA = injection.by_name(inject_lora, **injection.LORA)


# shape


@part("shape")
def test_factor_shapes(stage, draw):
    """Every wrapped layer has lora_A (rank, in_features) and lora_B (out_features, rank)."""
    for names in (["fc"], ["neck.q_proj", "neck.o_proj", "exits.out"]):
        with blame("parameters-not-returned", "the model alone"):
            slips = {"rank-not-passed": {"rank": 8}}
            injection.adapters_have_shapes(stage, draw, LORA, net, names, slips, rank=3)


@part("shape")
def test_rank_one(stage, draw):
    """A rank of 1 is legal."""
    injection.adapters_have_shapes(stage, draw, LORA, net, ["fc"])
    with blame("rank-one-refused", "rank"):
        injection.adapters_have_shapes(stage, draw, LORA, net, ["fc"], rank=1)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """The adapted model takes the same inputs as before: (..., d), a single vector too."""
    injection.any_leading_dimensions(stage, draw, LORA.adapted(draw, plain, ["first"]))


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    injection.non_contiguous(stage, draw, LORA.adapted(draw, plain, ["first"]))


# init


@part("init")
def test_returns_the_same_model(stage):
    """The very model passed in is changed and returned, not a copy."""
    injection.returns_the_same_model(stage, LORA, plain, ["first"])


@part("init")
def test_wraps_the_named_layer(stage):
    """A named layer becomes a LoRALinear whose `base` is that very layer, its values untouched."""
    injection.wraps(stage, LORA, net, ["fc"])


@part("init")
def test_wraps_a_subclass_of_linear(stage):
    """A layer of a class derived from nn.Linear is wrapped like any other."""
    injection.wraps_a_subclass_of_linear(stage, LORA)


@part("init")
def test_follows_dotted_paths(stage):
    """Names are dotted paths such as "encoder.attn.q_proj", of any depth."""
    injection.follows_dotted_paths(stage, LORA)


@part("init")
def test_follows_paths_through_containers(stage):
    """Paths lead through nn.ModuleList, nn.Sequential and nn.ModuleDict, whatever its keys."""
    injection.follows_paths_through_containers(stage, LORA)


@part("init")
def test_children_keep_their_order(stage, draw):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    for name in ("blocks.1.mlp.2", "blocks.0.attn.q_proj"):
        injection.wraps(stage, LORA, net, [name])
    injection.children_keep_their_order(stage, draw, LORA)


@part("init")
def test_replaces_no_other_layer(stage):
    """Only the layers with exactly these names are replaced; all other modules stay as they are."""
    injection.replaces_no_other_layer(stage, LORA)


@part("init")
def test_list_of_the_factors(stage):
    """The list holds exactly the factors of the wrapped layers, themselves and no copies."""
    injection.list_of_the_new(stage, LORA, net, ["fc", "neck.q_proj"])


@part("init")
def test_second_call_returns_its_own(stage):
    """A second call returns the factors of the layers that it wraps itself."""
    injection.second_call_returns_its_own(stage, LORA)


@part("init")
def test_list_in_the_order_of_the_names(stage):
    """The list follows the order of linear_names, lora_A before lora_B."""
    injection.list_in_the_order_of_the_names(stage, LORA)


@part("init")
def test_any_iterable_of_names(stage):
    """linear_names may be any iterable, a one-shot iterator too."""
    injection.any_iterable_of_names(stage, LORA)


@part("init")
def test_name_given_twice_counts_once(stage):
    """A name given twice counts once."""
    injection.name_given_twice_counts_once(stage, LORA)


@part("init")
def test_second_name_of_a_layer(stage):
    """A layer that the model has under two names can be given by either."""
    injection.second_name_of_a_layer(stage, LORA)


@part("init")
def test_tied_layer_is_wrapped_once(stage, draw):
    """A layer reached under two listed names is wrapped once and stays tied."""
    injection.named_ties_are_kept(stage, draw, LORA)


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only their weight are two; the weight stays shared."""
    injection.layers_that_share_a_weight(stage, draw, LORA, ["left", "right"])


@part("init")
def test_starts_as_it_was(stage, draw):
    """Right after the call the model computes what it did before, with the same values."""
    for names in (["fc"], LORA.usual):
        injection.starts_as_it_was(stage, draw, LORA, names)


def called_by_name(kata):
    model = net()
    kata.inject_lora(alpha=4.0, rank=2, linear_names=["fc"], model=model)
    return model.fc.lora_A.shape[0]


@part("init")
def test_arguments(stage, draw):
    """rank (from 1 up) defaults to 8 and alpha to 16; arguments by place or by name."""
    names = ["first"]
    injection.takes_rank_and_alpha(stage, draw, LORA, plain, names, first=(names,))
    rank = stage(called_by_name)
    require(rank == 2, f"with all arguments by name lora_A has {rank} rows at rank 2")


@part("init")
def test_factors_start(stage):
    """lora_A starts random and lora_B at zero, anew for every layer."""
    injection.factors_start(stage, LORA, ["0", "1"])


@part("init")
def test_modes_stay(stage):
    """Every module stays in the mode it was in, training or evaluation."""
    injection.modes_stay(stage, LORA)


# freeze


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """lora_A and lora_B train; all else is frozen: biases, norms, a `lora_gate` of the model's."""
    for names in (["fc"], ["neck.q_proj"], LORA.usual):
        injection.all_else_is_frozen(stage, draw, LORA, names, rank=5)


@part("freeze")
def test_empty_list_freezes_all(stage):
    """With no names nothing is replaced, the list is empty, and all parameters are frozen."""
    injection.empty_list_freezes_all(stage, LORA)


@part("freeze")
def test_tied_parameters_are_frozen(stage):
    """Parameters that several modules share are frozen too, and stay shared."""
    for make in (tied, sharing):
        injection.freezes_all_else(stage, LORA, make, ["mid"])


@part("freeze")
def test_parameters_frozen_before(stage):
    """What was frozen before stays so, and the factors on frozen layers train."""
    for names in (LORA.usual, []):
        injection.freezes_all_else(stage, LORA, net_frozen_in_part, names)


@part("freeze")
def test_called_under_no_grad(stage, draw):
    """The call leaves grad mode and default dtype as they were; under no_grad too all else is
    frozen and what is new trains."""
    injection.called_under_no_grad(stage, draw, LORA, ["fc"])


# forward


@part("forward")
def test_output_with_updates(stage, draw):
    """Every wrapped layer computes base(x) + alpha / rank * (x @ lora_A.T @ lora_B.T)."""
    for names in (["fc"], ["neck.o_proj"], LORA.usual):
        what = f"the output with updates in {', '.join(names)}"
        injection.computes(stage, LORA.adapted(draw, net, names), draw(3, 4, WIDTH), what)


@part("forward")
def test_follows_the_factors(stage, draw):
    """Outputs follow the factors of the moment, and are the same in train and eval mode."""
    injection.follows_its_values(stage, draw, LORA)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    injection.training_the_list_trains_the_model(stage, draw, LORA)


@part("forward")
def test_models_do_not_share(stage, draw):
    """Two models adapted one after the other have nothing in common."""
    injection.models_do_not_share(stage, draw, LORA)


@part("forward")
def test_second_call_keeps_the_first(stage, draw):
    """A second call leaves the layers of the first as they are."""
    injection.second_call_keeps_the_first(stage, draw, LORA)


@part("forward")
def test_input_is_left_unchanged(stage, draw):
    """The adapted model does not change its input in place."""
    injection.input_is_left_unchanged(stage, draw, LORA)


# gradient


@part("gradient")
def test_gradients(stage, draw):
    """All factors and the input get their gradients, through the frozen layers too."""
    for names in (["fc"], LORA.usual):
        injection.gradients(stage, LORA.adapted(draw, net, names), draw(3, 4, WIDTH))


@part("gradient")
def test_gradients_of_tied_layers(stage, draw):
    """The factors of a layer that runs twice get the sum of both gradients."""
    injection.gradients(stage, LORA.adapted(draw, tied, ["stack.0.0"]), draw(4, 6))


# state


@part("state")
def test_state_names(stage):
    """The factors are in the model's state dict under the layer's path."""
    injection.state_names(stage, LORA)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    injection.state_round_trip(stage, draw, LORA)


# dtype and device


@part("dtype")
def test_factors_have_the_dtype_of_their_layer(stage):
    """New factors have the dtype of the layer they adapt, in a model of several dtypes too."""
    names = ["fc", "neck.q_proj", "exits.out", "exits.0"]
    injection.dtype_of_the_layer(stage, LORA, names)


@part("dtype")
def test_float64(stage, draw):
    """A float64 model stays exact to 1e-9."""
    injection.works_in_dtype(stage, draw, LORA.net(draw, torch.float64))


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 model works."""
    injection.works_in_dtype(stage, draw, LORA.adapted(draw, plain, ["second"], torch.bfloat16))


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its factors there."""
    injection.meta_device(stage, LORA, ["second", "first"])


# errors


@part("errors")
def test_unknown_names(stage):
    """A name that the model does not have raises KeyError with that name; nothing is changed."""
    injection.refuses_unknown_names(stage, LORA)


@part("errors")
def test_modules_that_are_no_linears(stage):
    """The name of a module that is no nn.Linear raises TypeError with that name."""
    injection.refuses_other_modules(stage, LORA)


@part("errors")
def test_adapted_layers_are_refused(stage):
    """The name of a layer that is adapted already raises TypeError with that name."""
    injection.refuses_adapted_layers(stage, LORA)


@part("errors")
def test_rank_below_one(stage):
    """rank < 1 raises ValueError naming rank if there are names, before anything is changed."""
    cases = [(names, "rank") for names in (["fc"], ["neck.q_proj", "fc"])]
    for rank in (0, -1):
        injection.refuses(stage, LORA, "ValueError", "rank-unchecked", cases, rank=rank)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    injection.same_on_the_accelerator(stage, draw, LORA)
