"""What is checked of `adapter_block`. Contract: Houlsby et al. 2019, section 2.1."""

import torch
from torch.nn.functional import layer_norm

from grader.exam.checks import part
from grader.suites.shared import blocks, properties
from grader.suites.shared.blocks import TRAINED, Block, D

BLOCK = Block(
    "AdapterBlock",
    lambda x, f, a: x + f(x) + a(x + f(x)),
    slips={
        "residual-twice": lambda x, f, a: 2 * (x + f(x)) + a(x + f(x)),
        "delta-twice": lambda x, f, a: x + f(x) + 2 * a(x + f(x)),
        "norm-added": lambda x, f, a: x + f(x) + a(layer_norm(x + f(x), x.shape[-1:])),
        "input-added-again": lambda x, f, a: 2 * x + f(x) + a(x + f(x)),
        "adapter-sees-input": lambda x, f, a: x + f(x) + a(x),
        "adapter-sees-sublayer": lambda x, f, a: x + f(x) + a(f(x)),
        "sublayer-residual-missing": lambda x, f, a: f(x) + a(f(x)),
        "adapter-residual-missing": lambda x, f, a: a(x + f(x)),
        "sublayer-lost": lambda x, f, a: x + a(x + f(x)),
        "adapter-ignored": lambda x, f, a: x + f(x),
        "sublayer-ignored": lambda x, f, a: x + a(x),
    },
    own=(lambda x, f, a: a(x + f(x)),),
    residual=True,
    cut=lambda x, f, a: x + f(x.detach()) + a(x + f(x.detach())),
    detached=lambda x, f, a: x + f(x) + a((x + f(x)).detach()),
    asleep=lambda x, f, a: x + f(x),
)


# shape


@part("shape")
def test_any_leading_dimensions(stage, draw):
    """Inputs are (..., d): from none to four leading dimensions, of size one too, as d may be."""
    blocks.leading_dimensions(stage, draw, BLOCK)


@part("shape")
def test_non_contiguous_input(stage, draw):
    """Inputs need not be contiguous."""
    properties.non_contiguous(stage, draw, BLOCK.layer(draw))


@part("shape")
def test_both_see_the_whole_input(stage, draw):
    """Both modules get their input in its own shape: such as mix positions (attention), or the
    first dimension, work."""
    blocks.both_see_the_whole_input(stage, draw, BLOCK)


# init


@part("init")
def test_keeps_the_modules_passed_in(stage, draw):
    """`sublayer` and `adapter` are the very modules passed in, their values untouched."""
    blocks.keeps_the_modules(stage, draw, BLOCK)


# freeze


@part("freeze")
def test_sublayer_is_frozen(stage, draw):
    """No parameter of the sublayer, at any depth, requires or receives a gradient, also after
    train(), eval(), load_state_dict() and to()."""
    blocks.sublayer_frozen(stage, draw, BLOCK)


@part("freeze")
def test_adapter_is_left_as_it_arrives(stage, draw):
    """Parameters of the adapter that train go on training, frozen ones stay frozen."""
    blocks.adapter_left(stage, draw, BLOCK)


@part("freeze")
def test_no_other_parameter_trains(stage, draw):
    """The block has no trainable parameter of its own."""
    blocks.nothing_else_trains(stage, draw, BLOCK)


# forward


@part("forward")
def test_one_residual_around_each(stage, draw):
    """h = x + sublayer(x), and the output is h + adapter.forward_delta(h)."""
    properties.computes(stage, BLOCK.layer(draw), draw(3, 4, D))


@part("forward")
def test_uses_forward_delta_alone(stage, draw):
    """Whether the adapter's own forward adds a residual makes no difference."""
    blocks.uses_forward_delta(stage, draw, BLOCK)


@part("forward")
def test_adapter_needs_no_forward(stage, draw):
    """An adapter that has forward_delta and no forward of its own works, whatever else it has."""
    blocks.needs_no_forward(stage, draw, BLOCK)


@part("forward")
def test_sublayer_runs_once(stage, draw):
    """Each forward runs the sublayer once, in training and in eval mode, also under no_grad."""
    blocks.runs_once(stage, draw, BLOCK)


@part("forward")
def test_both_follow_train_and_eval(stage, draw):
    """train() and eval() reach sublayer and adapter to their depths, and return the block; making
    the block and load_state_dict() switch nothing, and leave their dropout as it is."""
    blocks.follow_modes(stage, draw, BLOCK)


@part("forward")
def test_input_unchanged(stage, draw):
    """The input is not changed in place, also where the sublayer hands on x itself; nor is a tensor
    that a module keeps and hands out."""
    blocks.input_unchanged(stage, draw, BLOCK)


@part("forward")
def test_blocks_are_independent(stage, draw):
    """Another block around other modules changes nothing."""
    properties.independent(stage, draw, *BLOCK.layers(draw))


@part("forward")
def test_follows_its_parameters(stage, draw):
    """Each forward uses the values of the moment, in either mode, also under no_grad."""
    blocks.follows_its_parameters(stage, draw, BLOCK)


# gradient


@part("gradient")
def test_gradients_of_the_adapter(stage, draw):
    """The adapter's parameters get the exact gradients, in training and in eval mode."""
    blocks.gradients_of_the_adapter(stage, draw, BLOCK)


@part("gradient")
def test_gradient_to_the_input(stage, draw):
    """The gradient flows to the input: past, and through, the frozen sublayer and the adapter."""
    blocks.gradient_to_the_input(stage, draw, BLOCK)


@part("gradient")
def test_gradients_after_no_grad(stage, draw):
    """Nothing of a call under no_grad is kept for the next one."""
    blocks.gradients_after_no_grad(stage, draw, BLOCK)


@part("gradient")
def test_gradient_through_saved_outputs(stage, draw):
    """What sublayer and adapter give is not changed in place: their backward may need it."""
    blocks.gradient_through_saved_outputs(stage, draw, BLOCK)


# state


@part("state")
def test_state_names(stage, draw):
    """The tensors of both modules are in the state dict under sublayer. and adapter."""
    blocks.state_names(stage, draw, BLOCK)


@part("state")
def test_state_round_trip(stage, draw):
    """load_state_dict of another instance's state reproduces its outputs."""
    blocks.state_round_trip(stage, draw, BLOCK)


# dtype and device


@part("dtype")
def test_float64(stage, draw):
    """float64 modules give float64 outputs, exact to 1e-9."""
    properties.in_dtype(stage, draw, BLOCK.layer(draw, torch.float64), "float32-inside")


@part("dtype")
def test_bfloat16(stage, draw):
    """bfloat16 modules give bfloat16 outputs."""
    properties.in_dtype(stage, draw, BLOCK.layer(draw, torch.bfloat16))


@part("device")
def test_meta_device(stage, draw):
    """Modules on the meta device stay there, and give outputs there."""
    properties.meta_device(stage, BLOCK.layer(draw, plain=True))


# gpu


@part("gpu")
def test_same_on_the_accelerator(stage, draw):
    """Outputs and gradients on the accelerator are those of the CPU."""
    properties.accelerator(stage, draw, BLOCK.layer(draw), TRAINED)
