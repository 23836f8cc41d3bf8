"""What is checked of `inject_ia3`. Contract: IA3 (Liu et al. 2022), section 3.3."""

import torch

from grader.exam.checks import blame, part, require
from grader.exam.kit import nn
from grader.suites.shared import injection
from grader.suites.shared.injection import WIDTH, net, net_frozen_in_part, plain, sharing, tied


def inject_ia3(kata, model, names):
    return kata.inject_ia3(model, names)


def scales(draw, layer, dtype):
    """A scale for a layer, far from one."""
    return ((1 + draw(layer.out_features, std=0.7, dtype=torch.float64)).to(dtype),)


IA3 = injection.by_name(
    inject_ia3,
    new=("scale",),
    word="scale",
    draws=scales,
    right=lambda x, y, scale: y * scale,
    slips={},
    own="own-scale-taken",
)


# shape


@part("shape")
def test_scale_shapes(stage, draw):
    """Every wrapped layer has a scale (out_features,)."""
    names = ["fc", "neck.q_proj", "neck.o_proj", "exits.out"]
    with blame("parameters-not-returned", "the model alone"):
        injection.adapters_have_shapes(stage, draw, IA3, net, names)


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """The adapted model takes the same inputs as before: (..., d), a single vector too."""
    injection.any_leading_dimensions(stage, draw, IA3.adapted(draw, plain, ["first"]))


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    injection.non_contiguous(stage, draw, IA3.adapted(draw, plain, ["first"]))


# init


@part("init")
def test_returns_the_same_model(stage):
    """The very model passed in is changed and returned, not a copy."""
    injection.returns_the_same_model(stage, IA3, plain, ["first"])


@part("init")
def test_wraps_the_named_layer(stage):
    """A named layer becomes a IA3Linear whose `base` is that very layer, its values untouched."""
    injection.wraps(stage, IA3, net, ["fc"])


@part("init")
def test_wraps_a_subclass_of_linear(stage):
    """A layer of a class derived from nn.Linear is wrapped like any other."""
    injection.wraps_a_subclass_of_linear(stage, IA3)


@part("init")
def test_follows_dotted_paths(stage):
    """Names are dotted paths such as "encoder.attn.q_proj", of any depth."""
    injection.follows_dotted_paths(stage, IA3)


@part("init")
def test_follows_paths_through_containers(stage):
    """Paths lead through nn.ModuleList, nn.Sequential and nn.ModuleDict, whatever its keys."""
    injection.follows_paths_through_containers(stage, IA3)


@part("init")
def test_children_keep_their_order(stage, draw):
    """A layer takes the place of the one it replaces: a Sequential runs in the order it had."""
    for name in ("blocks.1.mlp.2", "blocks.0.attn.q_proj"):
        injection.wraps(stage, IA3, net, [name])
    injection.children_keep_their_order(stage, draw, IA3)


@part("init")
def test_replaces_no_other_layer(stage):
    """Only the layers with exactly these names are replaced; all other modules stay as they are."""
    injection.replaces_no_other_layer(stage, IA3)


@part("init")
def test_list_of_the_scales(stage):
    """The list holds exactly the scales of the wrapped layers, themselves and no copies."""
    injection.list_of_the_new(stage, IA3, net, ["fc", "neck.q_proj"])


@part("init")
def test_second_call_returns_its_own(stage):
    """A second call returns the scales of the layers that it wraps itself."""
    injection.second_call_returns_its_own(stage, IA3)


@part("init")
def test_list_in_the_order_of_the_names(stage):
    """The list follows the order of linear_names."""
    injection.list_in_the_order_of_the_names(stage, IA3)


@part("init")
def test_any_iterable_of_names(stage):
    """linear_names may be any iterable, a one-shot iterator too."""
    injection.any_iterable_of_names(stage, IA3)


@part("init")
def test_name_given_twice_counts_once(stage):
    """A name given twice counts once."""
    injection.name_given_twice_counts_once(stage, IA3)


@part("init")
def test_second_name_of_a_layer(stage):
    """A layer that the model has under two names can be given by either."""
    injection.second_name_of_a_layer(stage, IA3)


@part("init")
def test_tied_layer_is_wrapped_once(stage, draw):
    """A layer reached under two listed names is wrapped once and stays tied."""
    injection.named_ties_are_kept(stage, draw, IA3)


@part("init")
def test_layers_that_share_a_weight(stage, draw):
    """Two layers that share only their weight are two; the weight stays shared."""
    injection.layers_that_share_a_weight(stage, draw, IA3, ["left", "right"])


@part("init")
def test_starts_as_it_was(stage, draw):
    """Right after the call the model computes what it did before, with the same values."""
    for names in (["fc"], IA3.usual):
        injection.starts_as_it_was(stage, draw, IA3, names)


def called_by_name(kata):
    model = net()
    kata.inject_ia3(linear_names=["fc"], model=model)
    return hasattr(model.fc, "scale")


@part("init")
def test_arguments_by_name(stage):
    """The arguments are called model and linear_names."""
    require(stage(called_by_name), "with its arguments given by name the call replaces nothing")


def scales_at_the_start(kata):
    model = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 5))
    kata.inject_ia3(model, ["1", "0"])
    return model[0].scale, model[1].scale, model[0].scale is model[1].scale


@part("init")
def test_scales_start_at_one(stage):
    """Every scale starts at one, and every layer has its own."""
    first, second, one = stage(scales_at_the_start)
    for values in (first, second):
        require(bool((values == 1).all()), "a scale does not start at ones")
    require(not one, "two layers have one scale together")


@part("init")
def test_modes_stay(stage):
    """Every module stays in the mode it was in, training or evaluation."""
    injection.modes_stay(stage, IA3)


# freeze


@part("freeze")
def test_all_else_is_frozen(stage, draw):
    """The scales train; all else is frozen: biases, norms, a `scale` of the model's own."""
    for names in (["fc"], ["neck.q_proj"], IA3.usual):
        injection.all_else_is_frozen(stage, draw, IA3, names)


@part("freeze")
def test_empty_list_freezes_all(stage):
    """With no names nothing is replaced, the list is empty, and all parameters are frozen."""
    injection.empty_list_freezes_all(stage, IA3)


@part("freeze")
def test_tied_parameters_are_frozen(stage):
    """Parameters that several modules share are frozen too, and stay shared."""
    for make in (tied, sharing):
        injection.freezes_all_else(stage, IA3, make, ["mid"])


@part("freeze")
def test_parameters_frozen_before(stage):
    """What was frozen before stays so, and the scales on frozen layers train."""
    for names in (IA3.usual, []):
        injection.freezes_all_else(stage, IA3, net_frozen_in_part, names)


@part("freeze")
def test_called_under_no_grad(stage, draw):
    """The call leaves grad mode and default dtype as they were; under no_grad too all else is
    frozen and what is new trains."""
    injection.called_under_no_grad(stage, draw, IA3, ["fc"])


# forward


@part("forward")
def test_output_with_scales(stage, draw):
    """Every wrapped layer computes base(x) * scale; the bias is scaled too."""
    for names in (["fc"], ["neck.o_proj"], IA3.usual):
        what = f"the output with scales in {', '.join(names)}"
        injection.computes(stage, IA3.adapted(draw, net, names), draw(3, 4, WIDTH), what)


@part("forward")
def test_follows_the_scales(stage, draw):
    """Outputs follow the scales of the moment, and are the same in train and eval mode."""
    injection.follows_its_values(stage, draw, IA3)


@part("forward")
def test_training_the_list_trains_the_model(stage, draw):
    """What an optimizer does to the parameters of the list, the model computes with."""
    injection.training_the_list_trains_the_model(stage, draw, IA3)


@part("forward")
def test_models_do_not_share(stage, draw):
    """Two models adapted one after the other have nothing in common."""
    injection.models_do_not_share(stage, draw, IA3)


@part("forward")
def test_second_call_keeps_the_first(stage, draw):
    """A second call leaves the layers of the first as they are."""
    injection.second_call_keeps_the_first(stage, draw, IA3)


@part("forward")
def test_input_is_left_unchanged(stage, draw):
    """The adapted model does not change its input in place."""
    injection.input_is_left_unchanged(stage, draw, IA3)


# gradient


@part("gradient")
def test_gradients(stage, draw):
    """All scales and the input get their gradients, through the frozen layers too."""
    for names in (["fc"], IA3.usual):
        injection.gradients(stage, IA3.adapted(draw, net, names), draw(3, 4, WIDTH))


@part("gradient")
def test_gradients_of_tied_layers(stage, draw):
    """The scale of a layer that runs twice gets the sum of both gradients."""
    injection.gradients(stage, IA3.adapted(draw, tied, ["stack.0.0"]), draw(4, 6))


# state


@part("state")
def test_state_names(stage):
    """The scales are in the model's state dict under the layer's path."""
    injection.state_names(stage, IA3)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another adapted model's state reproduces its outputs."""
    injection.state_round_trip(stage, draw, IA3)


# dtype and device


@part("dtype")
def test_scales_have_the_dtype_of_their_layer(stage):
    """New scales have the dtype of the layer they adapt, in a model of several dtypes too."""
    names = ["fc", "neck.q_proj", "exits.out", "exits.0"]
    injection.dtype_of_the_layer(stage, IA3, names)


@part("dtype")
def test_float64(stage, draw):
    """A float64 model stays exact to 1e-9."""
    injection.works_in_dtype(stage, draw, IA3.net(draw, torch.float64))


@part("dtype")
def test_bfloat16(stage, draw):
    """A bfloat16 model works."""
    injection.works_in_dtype(stage, draw, IA3.adapted(draw, plain, ["second"], torch.bfloat16))


@part("device")
def test_meta_device(stage):
    """A model on the meta device gets its scales there."""
    injection.meta_device(stage, IA3, ["second", "first"])


# errors


@part("errors")
def test_unknown_names(stage):
    """A name that the model does not have raises KeyError with that name; nothing is changed."""
    injection.refuses_unknown_names(stage, IA3)


@part("errors")
def test_modules_that_are_no_linears(stage):
    """The name of a module that is no nn.Linear raises TypeError with that name."""
    injection.refuses_other_modules(stage, IA3)


@part("errors")
def test_adapted_layers_are_refused(stage):
    """The name of a layer that is adapted already raises TypeError with that name."""
    injection.refuses_adapted_layers(stage, IA3)


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU, and nothing stays behind."""
    injection.same_on_the_accelerator(stage, draw, IA3)
