import itertools
import sys
import types

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ga3c.choices import NETWORK_NAMES
from ga3c.envs import EnvSpec
from ga3c.errors import UsageError
from ga3c.flops import cost
from ga3c.networks import NETWORKS, blocks, build_network

ATARI = (4, 84, 84)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mlp"])
def test_an_image_network_gives_logits_and_values(name):
    network = build_network(name, ATARI, 6, "orthogonal")
    logits, values = network(torch.zeros(3, *ATARI, dtype=torch.uint8))
    assert logits.shape == (3, 6)
    assert values.shape == (3,)


def test_bytes_mean_the_same_as_floats():
    network = build_network("small", ATARI, 6, "uniform")
    states = torch.randint(0, 256, (5, *ATARI), dtype=torch.uint8)
    for from_bytes, from_floats in zip(network(states), network(states.float()), strict=True):
        torch.testing.assert_close(from_bytes, from_floats, rtol=1e-4, atol=1e-5)


def test_the_orthogonal_policy_starts_almost_uniform_and_the_value_does_not_share_its_gain():
    network = build_network("small", ATARI, 6, "orthogonal")
    logits, _ = network(torch.randint(0, 256, (8, *ATARI), dtype=torch.uint8))
    assert logits.softmax(1).sub(1 / 6).abs().max() < 0.02
    assert network.value.weight.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_uniform_initialisation_is_the_released_codes():
    network = build_network("small", ATARI, 6, "uniform")
    bound = 1 / (4 * 8 * 8) ** 0.5
    assert network.convs[0].weight.abs().max() <= bound
    assert network.convs[0].weight.abs().max().item() > 0.9 * bound
    assert network.convs[0].bias.abs().max() > 0


def test_small_has_the_papers_size_and_the_cost_by_hand():
    parameters, mflop = cost(build_network("small", ATARI, 6, "orthogonal"), torch.zeros(1, *ATARI), 6)
    convolutions = 16 * 4 * 64 + 16, 32 * 16 * 16 + 32
    dense = 32 * 9 * 9 * 256 + 256
    assert parameters == sum(convolutions) + dense + 256 * 6 + 6 + 256 + 1
    by_hand = 20 * 20 * 16 * 4 * 64 + 9 * 9 * 32 * 16 * 16 + 32 * 9 * 9 * 256 + 256 * 7
    assert mflop == pytest.approx(2 * by_hand / 1e6)


def test_the_large_family_grows_in_cost():
    costs = [
        cost(build_network(name, ATARI, 6, "orthogonal"), torch.zeros(1, *ATARI), 6)[1]
        for name in ("small", "large-s3", "large", "large-s1")
    ]
    assert costs == sorted(costs)


def test_mlp_takes_vector_states():
    logits, values = build_network("mlp", (4,), 2, "orthogonal")(torch.zeros(3, 4))
    assert logits.shape == (3, 2)
    assert values.shape == (3,)


def test_an_unknown_network_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="'natur'; nearest: nature"):
        build_network("natur", ATARI, 6, "orthogonal")


def test_a_convolutional_network_refuses_vectors():
    with pytest.raises(UsageError, match="try mlp"):
        build_network("small", (4,), 2, "orthogonal")


def test_a_users_own_network_is_loaded_from_its_module(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "from ga3c.networks import MLP\ndef wide(shape, actions):\n    return MLP(shape, actions, width=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    network = build_network("my_networks:wide", (4,), 2, "orthogonal")
    assert network.policy[0].out_features == 8


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def net(shape): pass", "cannot be made: TypeError"),
        ("def net(shape, actions): return 7", "is a int"),
        ("net = 7", "something to call is needed"),
        ("def net(shape, actions): import torch; return torch.nn.ReLU()", "has no parameters"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("", "cannot be loaded: AttributeError"),
    ],
)
def test_a_users_network_that_cannot_be_used_is_said(tmp_path, monkeypatch, code, words):
    (tmp_path / "users_network.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "users_network", raising=False)
    with pytest.raises(UsageError, match=words):
        build_network("users_network:net", (4,), 2, "orthogonal")


@pytest.mark.parametrize("name", ["no_such_module:net", ":net", ".x:net"])
def test_a_module_that_is_not_there_is_said(name):
    with pytest.raises(UsageError, match="cannot be loaded"):
        build_network(name, (4,), 2, "orthogonal")


def test_outputs_that_do_not_fit_the_actions_are_refused_before_anything_starts():
    class Wide(torch.nn.Linear):
        def forward(self, states):
            return super().forward(states), states[:, 0]

    with pytest.raises(UsageError, match=r"logits \(2, 2\) and values \(2,\) are needed"):
        cost(Wide(4, 3), torch.zeros(1, 4), 2)
    with pytest.raises(UsageError, match=r"the network fails on states \[1, 5\]: RuntimeError"):
        cost(Wide(4, 2), torch.zeros(1, 5), 2)


def test_normalised_states_have_no_background_and_unit_deviation():
    network = build_network("small", ATARI, 6, "uniform")
    states = torch.full((64, *ATARI), 87.0)
    states[:, :, 40:44, 40:44] = torch.randint(0, 256, (64, 4, 4, 4)).float()
    plain = [c.clone() for c in network(states)]
    network.normalise(states.to(torch.uint8))
    by_hand = (states - states.mean(0)) / (states - states.mean(0)).square().mean().sqrt()
    network_by_hand = build_network("small", ATARI, 6, "uniform")
    network_by_hand.load_state_dict(network.state_dict())
    network_by_hand.mean.zero_(), network_by_hand.scale.fill_(1.0)
    for ours, theirs, before in zip(network(states), network_by_hand(by_hand), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(ours, before, atol=1e-3)


def test_pictures_may_have_their_channels_last():
    first = build_network("small", (3, 84, 96), 6, "uniform")
    last = build_network("small", (84, 96, 3), 6, "uniform")
    last.load_state_dict(first.state_dict())
    states = torch.randint(0, 256, (5, 3, 84, 96), dtype=torch.uint8)
    for network, layout in ((first, states), (last, states.permute(0, 2, 3, 1))):
        network.normalise(layout)
    for a, b in zip(first(states), last(states.permute(0, 2, 3, 1)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("shape", "image"), [(ATARI, True), ((84, 84, 3), True), ((7, 7, 3), False), ((4,), False)])
def test_large_pictures_get_convolutions_and_the_rest_an_mlp(shape, image):
    assert EnvSpec("X", "envpool", shape, "uint8", 2, 1, None, "none").is_image == image


def test_the_names_that_options_are_checked_with_are_those_of_the_networks():
    assert tuple(NETWORKS) == NETWORK_NAMES


@pytest.mark.parametrize("name", list(NETWORKS))
def test_operations_are_counted_as_torchs_own_counter_does(name):
    shape = (4,) if name == "mlp" else ATARI
    network = build_network(name, shape, 6, "uniform")
    counted = []
    for batch in (1, 2):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(batch, *shape))
        counted.append(counter.get_total_flops())
    assert cost(network, torch.zeros(1, *shape), 6)[1] == pytest.approx((counted[1] - counted[0]) / 1e6)


def test_whatever_a_users_network_computes_with_is_counted():
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(8, 4))

        def forward(self, states):
            features = torch.nn.functional.linear(input=states, weight=self.weight)
            product = torch.einsum("bi,ij->bj", features, self.weight)
            return product[:, :2], product[:, 2]

    assert cost(Attention(), torch.zeros(1, 4), 2) == (32, pytest.approx(2 * 2 * 4 * 8 / 1e6))


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)])
def test_a_network_that_trains_and_plays_differently_is_refused(monkeypatch, layer):
    module = types.ModuleType("two_faced")
    module.make = lambda shape, actions: torch.nn.Sequential(torch.nn.Linear(4, 4), layer)
    monkeypatch.setitem(sys.modules, "two_faced", module)
    with pytest.raises(UsageError, match=rf"'two_faced:make' has a {type(layer).__name__}, which trains and plays"):
        build_network("two_faced:make", (4,), 2, "orthogonal")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("small", (4, 84, 84)), ("nature", (4, 84, 84)), ("large", (4, 84, 84)), ("small", (1, 96, 60)),
     ("small", (84, 84, 3)), ("small", (4, 86, 84))],
)  # fmt: skip
@pytest.mark.parametrize("count", [5, 24])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_training_computes_what_prediction_does_however_the_first_convolution_is_made(name, shape, count, layout):
    """On a CPU training has its first convolution in blocks; what it gives is the same, and so is the gradient."""
    torch.manual_seed(1)
    network = build_network(name, shape, 6, "orthogonal")
    states = torch.randint(0, 256, (count, *shape), dtype=torch.uint8).contiguous(memory_format=layout)
    network.normalise(states)
    kept = states.clone()

    def outputs_and_gradients(given):
        network.zero_grad()
        logits, values = network(given)
        (logits.square().sum() + values.sum()).backward()
        return [logits, values, *(parameter.grad for parameter in network.parameters())]

    ours = outputs_and_gradients(states)
    plain = outputs_and_gradients(states.float())  # of floats no blocks are made
    with torch.no_grad():
        predicted = network(states)
    assert torch.equal(states, kept)
    for one, other in [*zip(ours, plain, strict=True), *zip(ours, predicted, strict=False)]:
        # conv(x) - conv(mean), as it is without blocks, loses some digits, by which a ReLU may open; with blocks out of
        # order all would be wrong.
        assert (one - other).norm() <= 0.03 * other.norm() + 1e-4


def test_the_pixels_of_a_block_become_its_channels():
    image = torch.arange(2 * 4 * 6, dtype=torch.uint8).reshape(1, 2, 4, 6)
    found = blocks(image, 2)
    assert found.shape == (1, 8, 2, 3)
    assert found.is_contiguous(memory_format=torch.channels_last)
    for y, x in itertools.product(range(2), range(3)):
        of_a_block = image[0, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        assert torch.equal(found[0, :, y, x], of_a_block.permute(1, 2, 0).flatten())
    assert torch.equal(blocks(image.float(), 2), found.float())
