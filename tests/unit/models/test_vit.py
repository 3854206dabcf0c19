from __future__ import annotations

import pytest
import torch
from torch import nn

from inn_automl.integral import IntegralNetwork
from inn_automl.models import build
from inn_automl.models.vit import HEAD_SIZE, MAX_TOKENS, Attention, VisionTransformer
from tests.unit.integral.oracle import assert_same, check_costs, randomized, some_widths


def test_attention_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = (
        randomized(Attention(48, 3)),
        nn.MultiheadAttention(48, 48 // HEAD_SIZE, batch_first=True),
    )
    layers = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    x = torch.randn(2, 7, 48)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize(
    ("shape", "num_tokens"),
    [
        ((1, 8, 8), 16),
        ((1, 28, 28), 49),
        ((3, 32, 32), 64),
        ((3, 64, 48), 48),
        ((3, 224, 224), 49),
        ((1, 3, 3), 9),
    ],
)
def test_larger_images_have_larger_patches(shape: tuple[int, ...], num_tokens: int) -> None:
    module = build("vit", shape, 3, width=0.5, depth=2)
    assert isinstance(module, VisionTransformer)
    assert module.position.shape[1] == num_tokens <= MAX_TOKENS
    with torch.no_grad():
        assert module.stem(torch.zeros(1, *shape)).flatten(2).shape[2] == num_tokens


def test_heads_hidden_neurons_and_the_stream_are_resized() -> None:
    module, x = randomized(build("vit", (1, 8, 8), 3, depth=2)).eval(), torch.randn(2, 1, 8, 8)
    network = IntegralNetwork(module, x)
    assert network.frozen == ()
    assert {group.name: (group.size, group.unit) for group in network.groups} == {
        "stem.0": (64, 1),
        "stem.3": (64, 1),  # the residual stream
        "blocks.0.attention.query": (64, HEAD_SIZE),
        "blocks.0.expand": (128, 1),
        "blocks.1.attention.query": (64, HEAD_SIZE),
        "blocks.1.expand": (128, 1),
    }
    network.eval()
    for widths in some_widths(network):
        plain = network.discretize(widths).eval()
        assert_same(plain(x), network(x, widths), 1e-6)
        check_costs(network, widths, plain, x)


def test_a_head_that_is_left_out_was_one_that_adds_nothing() -> None:
    """What is left of attention is what the module computes with the last heads at zero."""
    module, x = randomized(build("vit", (1, 8, 8), 3, depth=2)).eval(), torch.randn(2, 1, 8, 8)
    network = IntegralNetwork(module, x).eval()
    widths = {**network.full_widths, "blocks.1.attention.query": 2 * HEAD_SIZE}
    with torch.no_grad():
        found = network(x, widths)
        project = module.get_submodule("blocks.1.attention.project")
        project.weight[:, 2 * HEAD_SIZE :] = 0.0  # type: ignore[index]
        torch.testing.assert_close(found, module(x))
