import threading

import numpy as np
import pytest
import torch

from ga3c.choices import LossConfig
from ga3c.device import place, resolve_device, resolve_precision
from ga3c.errors import UsageError
from ga3c.model import Batch, Model, NonFiniteLossError
from ga3c.networks import build_network
from ga3c.optim import build_optimiser
from ga3c.slabs import Place, Slab, SlabLayout

CPU = torch.device("cpu")


def make_model(name="mlp", shape=(4,), device=CPU, precision="fp32", **changes):
    torch.manual_seed(0)
    network = place(build_network(name, shape, 3, "orthogonal"), device)
    loss = LossConfig(entropy_cost=0.01, value_cost=0.5, reduction="mean", log_floor=0.0, normalise_advantages=False)
    optimiser = build_optimiser("adam", network.parameters(), 1e-3, 0.999, 1e-5)
    return Model(network, optimiser, loss, **({"max_grad_norm": 0.5} | changes), device=device, precision=precision)


def make_batch(size=32, shape=(4,), **changes):
    generator = torch.Generator().manual_seed(1)
    states = torch.rand((size, *shape), generator=generator)
    fields = {
        "states": states if len(shape) == 1 else (states * 255).to(torch.uint8),
        "actions": torch.randint(0, 3, (size,), generator=generator),
        "returns": torch.rand(size, generator=generator),
        "live": torch.ones(size, dtype=torch.bool),
        "versions": np.zeros(size, np.int64),
    }
    return Batch(**(fields | changes))


def weights(model):
    return [p.detach().clone() for p in model.network.parameters()]


def test_actions_are_drawn_from_the_policy():
    model = make_model()
    with torch.no_grad():
        model.network.policy[-1].bias.copy_(torch.log(torch.tensor([0.6, 0.3, 0.1])))
        model.network.policy[-1].weight.zero_()
    actions = model.predict(torch.zeros(30_000, 4)).actions
    np.testing.assert_allclose(np.bincount(actions, minlength=3) / 30_000, [0.6, 0.3, 0.1], atol=0.015)


@pytest.mark.parametrize("channels_last", [True, False])
def test_states_in_slabs_are_predicted_for_as_those_of_one_tensor(channels_last):
    model = make_model("small", (4, 84, 84))
    places = [
        Place(Slab(SlabLayout(2, 2, envs, (4, 84, 84), "uint8", channels_last=channels_last)), 1, 0) for envs in (3, 5)
    ]
    assert model.reads_in_place(places[:1])
    assert not model.reads_in_place(places), "a CPU computes with states that lie side by side"
    for each in places:
        states = each.arrays.observations
        states[...] = np.random.default_rng(each.envs).integers(0, 256, states.shape)
    parts = [torch.from_numpy(each.arrays.observations) for each in places]
    for asked, together in ((places[:1], parts[0]), (places, torch.cat(parts))):
        in_place, plain = model.predict_in_place(asked), model.predict(together)
        assert len(in_place.actions) == len(together)
        np.testing.assert_allclose(in_place.values, plain.values, rtol=1e-5, atol=1e-6)


def test_an_update_moves_the_weights_and_advances_the_version():
    model = make_model()
    before = weights(model)
    figures = model.update(make_batch(), 1e-2)
    assert model.version == 1
    assert model.predict(torch.zeros(1, 4)).version == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    assert figures.samples == 32
    assert figures.entropy == pytest.approx(np.log(3), abs=0.05)


def test_policy_lag_is_the_updates_since_the_action_was_chosen():
    model = make_model()
    for _ in range(5):
        model.update(make_batch(), 1e-3)
    live = torch.tensor([True, True, True, False])
    versions = np.array([5, 3, 1, -1000])
    figures = model.update(make_batch(4, live=live, versions=versions), 1e-3)
    assert (figures.samples, figures.lags) == (3, {0: 1, 2: 1, 4: 1})


def test_the_gradient_is_clipped_to_the_norm_that_was_asked_for():
    model = make_model(max_grad_norm=1e-3)
    figures = model.update(make_batch(returns=torch.full((32,), 50.0)), 0.0)
    total = torch.cat([p.grad.flatten() for p in model.network.parameters()]).norm()
    assert figures.gradient_norm > 1
    assert total.item() == pytest.approx(1e-3, rel=1e-2)


def test_a_loss_that_is_not_finite_stops_with_the_batchs_statistics_and_changes_nothing():
    model = make_model()
    before = weights(model)
    returns = torch.zeros(32)
    returns[3] = float("nan")
    with pytest.raises(NonFiniteLossError, match=r"policy_loss nan.*32 live samples.*states 0"):
        model.update(make_batch(returns=returns), 1e-3)
    assert model.version == 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))


def test_predictions_never_see_half_an_update():
    """Weights are all k at version k: a prediction that mixed two versions would give another value."""

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = torch.nn.ParameterList(torch.nn.Parameter(torch.zeros(1)) for _ in range(50))

        def forward(self, states):
            values = torch.stack([part.expand(len(states)) for part in self.parts]).sum(0)
            return torch.zeros(len(states), 3), values

    class AddOne(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p.add_(1.0)

    network = Constant()
    loss = LossConfig(0.0, 0.5, "mean", 0.0, False)
    model = Model(network, AddOne(network.parameters(), lr=1.0), loss, max_grad_norm=0, device=CPU, precision="fp32")
    done, wrong, seen = threading.Event(), [], 0

    def predict():
        nonlocal seen
        while not done.is_set():
            prediction = model.predict(torch.zeros(2, 4))
            seen += 1
            if prediction.values[0] != 50 * prediction.version:
                wrong.append((prediction.values[0], prediction.version))

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        model.update(make_batch(2), 1e-3)
    done.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert model.version == 150
    assert seen > 0
    assert wrong == []


def test_a_prediction_beside_a_reduced_precision_update_reads_the_weights_of_its_version():
    """Autocast's cache of casted weights is shared by threads; it must be off."""
    model = make_model("small", (4, 84, 84), precision="bf16")
    states = torch.randint(0, 256, (8, 4, 84, 84), dtype=torch.uint8)
    done, seen = threading.Event(), {}

    def predict():
        while not done.is_set():
            prediction = model.predict(states)
            seen.setdefault(prediction.version, []).append(prediction.values)

    thread = threading.Thread(target=predict)
    thread.start()
    for _ in range(10):
        model.update(make_batch(16, (4, 84, 84), returns=torch.full((16,), 5.0)), 1e-2)
    done.set()
    thread.join(20)
    assert not thread.is_alive()
    assert sum(len(values) for values in seen.values()) > 5
    for values in seen.values():
        for other in values[1:]:
            np.testing.assert_array_equal(values[0], other)


def test_many_trainers_update_one_after_the_other():
    model = make_model()
    threads = [threading.Thread(target=lambda: [model.update(make_batch(), 1e-3) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert model.version == 80


def test_reduced_precision_learns_the_same_direction():
    reference, reduced = (make_model("small", (4, 84, 84), precision=p) for p in ("fp32", "bf16"))
    batch = make_batch(64, (4, 84, 84))
    for model in (reference, reduced):
        model.update(batch, 0.0)
    for a, b in zip(reference.network.parameters(), reduced.network.parameters(), strict=True):
        cosine = torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)
        assert cosine > 0.97


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:", "cpu:0x"])
def test_a_device_that_cannot_be_had_is_said(name):
    with pytest.raises(UsageError, match=f"got '{name}'; auto, cpu, cuda, cuda:N or simulated:NAME would be right"):
        resolve_device(name)


def test_a_cuda_device_that_is_not_there_is_said():
    with pytest.raises(UsageError, match="this machine has"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


def test_predictions_go_on_while_a_checkpoint_holds_an_update_back():
    model = make_model()
    with model.paused(1.0):
        update = threading.Thread(target=model.update, args=(make_batch(), 1e-3))
        update.start()
        update.join(0.3)
        assert update.is_alive(), "it has stepped while it was held"
        predicted = threading.Thread(target=model.predict, args=(torch.zeros(1, 4),))
        predicted.start()
        predicted.join(20)
        assert not predicted.is_alive(), "the prediction waits behind the update that waits"
        assert model.version == 0
    update.join(20)
    assert model.version == 1


def test_a_checkpoint_does_not_wait_for_ever_for_a_step_to_end():
    model = make_model()
    with model.paused(1.0), pytest.raises(TimeoutError, match="written to for 0"), model.paused(0.1):
        pass


def test_tf32_on_a_cpu_is_refused_and_auto_fits_the_machine():
    with pytest.raises(UsageError, match="tf32 needs --device cuda"):
        resolve_precision("tf32", CPU)
    assert resolve_precision("auto", CPU) in ("fp32", "bf16")


@pytest.mark.gpu
def test_cpu_and_cuda_agree():
    cuda = torch.device("cuda")
    here, there = make_model("small", (4, 84, 84)), make_model("small", (4, 84, 84), device=cuda)
    there.network.load_state_dict(here.network.state_dict())
    states = torch.randint(0, 256, (16, 4, 84, 84), dtype=torch.uint8)
    np.testing.assert_allclose(here.predict(states).values, there.predict(states).values, rtol=1e-3, atol=1e-3)
    figures = [model.update(make_batch(32, (4, 84, 84)), 1e-3) for model in (here, there)]
    np.testing.assert_allclose(figures[0].gradient_norm, figures[1].gradient_norm, rtol=1e-2)


class LegalOnly(torch.nn.Module):
    """Rules out the actions whose element of the state is 0, with -inf."""

    def __init__(self):
        super().__init__()
        self.policy, self.value = torch.nn.Linear(3, 3), torch.nn.Linear(3, 1)

    def forward(self, states):
        return self.policy(states).masked_fill(states == 0, -torch.inf), self.value(states).squeeze(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_actions_that_a_network_rules_out_are_never_drawn_and_training_goes_on(precision):
    network = place(LegalOnly(), CPU)
    loss = LossConfig(entropy_cost=0.01, value_cost=0.5, reduction="mean", log_floor=0.0, normalise_advantages=False)
    optimiser = build_optimiser("adam", network.parameters(), 1e-2, 0.999, 1e-5)
    model = Model(network, optimiser, loss, max_grad_norm=0.5, device=CPU, precision=precision)
    states = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]).repeat(500, 1)
    for _ in range(3):
        prediction = model.predict(states)
        assert (states.gather(1, torch.from_numpy(prediction.actions).unsqueeze(1)) == 1).all()
        batch = make_batch(1000, (3,), states=states, actions=torch.from_numpy(prediction.actions))
        assert np.isfinite(model.update(batch, 1e-2)[1:5]).all()
    assert all(parameter.isfinite().all() for parameter in network.parameters())
