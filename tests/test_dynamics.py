"""The ensemble and its fitting: each test is one of the classic silent bugs."""

import math

import pytest
import torch
from tensordict import TensorDict

from lit_mbrl.dynamics import Dynamics, fit
from lit_mbrl.dynamics import fitting as fitting_module
from lit_mbrl.networks.mlp import NARROW, lies_transposed

S, A = 3, 1
WIDE = NARROW  # so many states have outputs that lie row by row, S has narrow ones
NEVER = "never"


def small(networks: int = 4, elites: int = 2, states: int = S, **kwargs: object) -> Dynamics:
    settings = {"hidden_sizes": [16], "weight_decay": [0.0, 0.0], **kwargs}
    return Dynamics(states, A, NEVER, networks=networks, elites=elites, **settings)  # type: ignore[arg-type]


def with_bounds_of_their_own(dynamics: Dynamics) -> Dynamics:
    """Each dimension's log-variance is clamped elsewhere."""
    with torch.no_grad():
        dynamics.max_log_var.uniform_(0, 1)
        dynamics.min_log_var.uniform_(-2, -1)
    return dynamics


def linear_transitions(rows: int, noise: float = 0.0, scale: float = 1.0) -> TensorDict:
    """s' = s + B (s, a) and r = c (s, a), with Gaussian noise."""
    observation, action = scale * torch.randn(rows, S), torch.rand(rows, A) * 2 - 1
    weights = torch.linspace(-0.5, 0.5, (S + A) * (S + 1)).view(S + A, S + 1)
    change = torch.cat([observation / scale, action], -1) @ weights
    change = change + noise * torch.randn_like(change)
    return TensorDict(
        {
            "observation": observation,
            "action": action,
            "reward": change[:, -1],
            "next": {"observation": observation + change[:, :-1]},
        },
        batch_size=[rows],
    )


def test_initial_weights_are_truncated_normals() -> None:
    """Deviation 1 / (2 sqrt(in)) cut at two of its own, biases zero, bounds +0.5 and -10."""
    torch.manual_seed(0)
    dynamics = Dynamics(S, A, NEVER)
    for weight in dynamics.ensemble.weights:
        std = 1 / (2 * math.sqrt(weight.shape[1]))
        assert weight.abs().max() <= 2 * std
        if weight.numel() > 10_000:
            # Cutting a normal at two deviations leaves 0.8796 of its deviation.
            assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.02)
    assert all(not bias.any() for bias in dynamics.ensemble.biases)
    assert dynamics.max_log_var.eq(0.5).all() and dynamics.min_log_var.eq(-10).all()
    assert len({tuple(w.flatten()[:3].tolist()) for w in dynamics.ensemble.weights[0]}) == 7


@pytest.mark.parametrize("states", [S, WIDE])
def test_forward_equals_separate_networks(states: int) -> None:
    """The batched products against one network at a time, standardised and clamped by hand."""
    torch.manual_seed(0)
    dynamics = with_bounds_of_their_own(small(states=states))
    dynamics.set_input_scale(torch.randn(50, states + A) * 3 + 1)
    inputs = torch.randn(4, states + 1, states + A)  # rows that may be taken for outputs
    mean, log_var = dynamics(inputs)
    assert lies_transposed(log_var) == (states == S)
    for e in range(4):
        x = (inputs[e] - dynamics.input_mean) / dynamics.input_std
        (w0, w1), (b0, b1) = dynamics.ensemble.weights, dynamics.ensemble.biases
        hidden = x @ w0[e] + b0[e]
        out = (hidden * torch.sigmoid(hidden)) @ w1[e] + b1[e]
        raw = out[:, states + 1 :]
        upper, lower = dynamics.max_log_var, dynamics.min_log_var
        raw = upper - torch.log1p((upper - raw).exp())
        raw = lower + torch.log1p((raw - lower).exp())
        assert torch.allclose(mean[e], out[:, : states + 1], atol=1e-6)
        assert torch.allclose(log_var[e], raw, atol=1e-5)


def test_log_variance_stays_within_its_bounds() -> None:
    dynamics = small()
    with torch.no_grad():
        dynamics.ensemble.weights[-1].mul_(1e4)
    _, log_var = dynamics(torch.randn(4, 500, S + A))
    # The clamps are applied one after the other, so the upper bound holds up to softplus(-10.5).
    assert log_var.max() <= 0.5 + 1e-4
    assert log_var.min() >= -10
    assert log_var.max() > 0.4 and log_var.min() < -9.9


def distinct_constants(dynamics: Dynamics) -> None:
    """Make network e predict the change e + 1 for any input, with hardly any variance."""
    with torch.no_grad():
        dynamics.ensemble.weights[-1].zero_()
        for e in range(dynamics.ensemble.networks):
            dynamics.ensemble.biases[-1][e, 0, : S + 1] = e + 1.0
            dynamics.ensemble.biases[-1][e, 0, S + 1 :] = -100.0
        dynamics.min_log_var.fill_(-40.0)


def test_only_elites_predict_and_uniformly() -> None:
    """Each row has one elite for all its dimensions; the elites share the rows evenly."""
    torch.manual_seed(0)
    dynamics = small(networks=7, elites=5)
    distinct_constants(dynamics)
    dynamics.elites.copy_(torch.tensor([6, 0, 3, 2, 5]))
    counts = torch.zeros(8)
    per_row = torch.zeros(13, 8)
    for _ in range(2000):
        observation = torch.randn(13, S)
        following, reward, _ = dynamics.step(observation, torch.zeros(13, A))
        member = reward.round().long()
        assert torch.allclose(
            following - observation, member[:, None].float().expand(-1, S), atol=1e-4
        )
        counts += torch.bincount(member, minlength=8)
        per_row[torch.arange(13), member] += 1
    expected = torch.tensor([0.0, 1, 0, 1, 1, 0, 1, 1]) / 5  # network e predicts e + 1
    assert torch.allclose(counts / counts.sum(), expected, atol=0.01)
    # Also at each row's own place, though 13 rows cannot be dealt evenly to five elites.
    assert torch.allclose(per_row / 2000, expected.expand(13, -1), atol=0.05)


@pytest.mark.parametrize("rows", [1, 2, 5, 23])
def test_step_returns_each_row_its_own_prediction(rows: int) -> None:
    """Dealing the rows out and back keeps their order."""
    torch.manual_seed(0)
    dynamics = small(networks=1, elites=1)
    with torch.no_grad():
        dynamics.ensemble.biases[-1][..., S + 1 :] = -100.0
        dynamics.min_log_var.fill_(-40.0)
    observation, action = torch.randn(rows, S), torch.rand(rows, A)
    mean, _ = dynamics(torch.cat([observation, action], -1)[None])
    following, reward, _ = dynamics.step(observation, action)
    assert torch.allclose(following, observation + mean[0, :, :S], atol=1e-5)
    assert torch.allclose(reward, mean[0, :, S], atol=1e-5)


def test_step_samples_the_predicted_spread() -> None:
    torch.manual_seed(0)
    dynamics = small(networks=1, elites=1)
    observation, action = torch.zeros(200_000, S), torch.zeros(200_000, A)
    mean, log_var = dynamics(torch.zeros(1, 1, S + A))
    following, reward, _ = dynamics.step(observation, action)
    sample = torch.cat([following, reward[:, None]], -1)
    assert torch.allclose(sample.mean(0), mean[0, 0], atol=0.01)
    assert torch.allclose(sample.var(0), log_var[0, 0].exp(), rtol=0.02)


def test_fit_learns_linear_dynamics_and_their_noise() -> None:
    torch.manual_seed(0)
    dynamics = Dynamics(S, A, NEVER, [32, 32], [0.0] * 3)
    report = fit(dynamics, dynamics.optimizer(), linear_transitions(2000, noise=0.1))
    assert report.holdout_mse < 1.5 * 0.1**2
    _, log_var = dynamics(torch.randn(7, 200, S + A))
    assert log_var[dynamics.elites].mean().exp().sqrt().item() == pytest.approx(0.1, rel=0.25)
    others = linear_transitions(500, noise=0.1)
    following, reward, _ = dynamics.expected_step(others["observation"], others["action"])
    for found, true in (following, others["next", "observation"]), (reward, others["reward"]):
        assert (found - true).square().mean() < 1.5 * 0.1**2


def test_scaler_is_refitted_on_the_training_split_and_saved() -> None:
    torch.manual_seed(0)
    dynamics = small()
    optimizer = dynamics.optimizer()
    fit(dynamics, optimizer, linear_transitions(500, scale=1.0), patience=1)
    first = dynamics.input_std.clone()
    fit(dynamics, optimizer, linear_transitions(500, scale=10.0), patience=1)
    assert (dynamics.input_std[:S] / first[:S]).mean() > 5
    restored = small()
    restored.load_state_dict(dynamics.state_dict())
    assert torch.equal(restored.input_std, dynamics.input_std)
    assert torch.equal(restored.input_mean, dynamics.input_mean)
    assert torch.equal(restored.elites, dynamics.elites)


def test_constant_inputs_keep_their_scale() -> None:
    dynamics = small()
    inputs = torch.randn(100, S + A)
    inputs[:, 1] = 3.0
    dynamics.set_input_scale(inputs)
    assert dynamics.input_std[1] == 1
    mean, log_var = dynamics(inputs.expand(4, -1, -1))
    assert mean.isfinite().all() and log_var.isfinite().all()


def test_holdout_is_a_fifth_and_at_most_its_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = fitting_module.holdout_error

    def recorded(dynamics: Dynamics, inputs: torch.Tensor, targets: torch.Tensor) -> object:
        sizes.append(len(inputs))
        return original(dynamics, inputs, targets)

    monkeypatch.setattr(fitting_module, "holdout_error", recorded)
    dynamics = small()
    fit(dynamics, dynamics.optimizer(), linear_transitions(400), patience=1)
    assert set(sizes) == {80}
    sizes.clear()
    fit(dynamics, dynamics.optimizer(), linear_transitions(400), patience=1, holdout_max=50)
    assert set(sizes) == {50}


def scripted_holdout(
    monkeypatch: pytest.MonkeyPatch, script: list[list[float]]
) -> list[list[torch.Tensor]]:
    """Replace the holdout's error by a script, one row an epoch; returns the weights seen then."""
    seen: list[list[torch.Tensor]] = []

    def scripted(
        dynamics: Dynamics, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append([p.detach().clone() for p in dynamics.ensemble.parameters()])
        errors = torch.tensor(script[min(len(seen), len(script)) - 1])
        return errors, errors

    monkeypatch.setattr(fitting_module, "holdout_error", scripted)
    return seen


def test_each_network_ends_with_its_own_best_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """And improvements of less than 1% of the best do not count."""
    script = [[4.0, 4, 4, 4], [1.0, 3.99, 5, 3], [2.0, 2, 5, 2.98], [2.0, 5, 5, 2.98]]
    seen = scripted_holdout(monkeypatch, script)
    dynamics = small()
    transitions = linear_transitions(300)
    report = fit(dynamics, dynamics.optimizer(), transitions, batch_size=15, patience=2)
    assert report.epochs == 5
    best_epoch = [1, 2, 0, 1]
    for parameter, *snapshots in zip(dynamics.ensemble.parameters(), *seen, strict=True):
        for network, epoch in enumerate(best_epoch):
            assert torch.equal(parameter[network], snapshots[epoch][network])
    assert sorted(dynamics.elites.tolist()) == [0, 1]  # best errors 1, 2, 4, 3


@pytest.mark.parametrize("patience", [1, 5])
@pytest.mark.parametrize("batch_size, updates", [(15, 16), (240, 1), (30, 8)])
def test_fit_stops_after_patience_epochs_without_improvement(
    patience: int, batch_size: int, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or as many as make 16 updates for each of them, where the data are few."""
    scripted_holdout(monkeypatch, [[3.0] * 4, [2.0] * 4, [2.0] * 4])
    dynamics, transitions = small(), linear_transitions(300)
    report = fit(dynamics, dynamics.optimizer(), transitions, batch_size, patience=patience)
    assert report.epochs == 2 + patience * 16 // updates


def test_bootstrap_membership_is_fixed_within_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network sees its own resample of the training split, the same one every epoch."""
    torch.manual_seed(0)
    transitions = linear_transitions(100)
    index = {tuple(o.tolist()): i for i, o in enumerate(transitions["observation"])}
    seen: list[list[list[int]]] = []  # by minibatch, by network
    original = fitting_module.loss

    def recorded(dynamics: Dynamics, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append([[index[tuple(row[:S].tolist())] for row in net] for net in inputs])
        return original(dynamics, inputs, targets)

    monkeypatch.setattr(fitting_module, "loss", recorded)
    dynamics = small()
    report = fit(dynamics, dynamics.optimizer(), transitions, batch_size=30, patience=2)
    minibatches = 3  # of 80 rows, the last one short
    assert len(seen) == minibatches * report.epochs
    epochs = [
        [[row for batch in seen[i : i + minibatches] for row in batch[e]] for e in range(4)]
        for i in range(0, len(seen), minibatches)
    ]
    for network in range(4):
        members = [sorted(epoch[network]) for epoch in epochs]
        assert all(m == members[0] for m in members)
        assert len(members[0]) == 80
        assert 35 < len(set(members[0])) < 65  # with replacement: about 63% distinct
        assert epochs[0][network] != epochs[1][network]  # in another order
    assert sorted(epochs[0][0]) != sorted(epochs[0][1])


def test_weight_decay_is_the_gradient_of_the_l2_loss() -> None:
    """One step with Adam's weight_decay equals one with lambda/2 ||w||^2 in the loss."""
    torch.manual_seed(0)
    decays = [0.3, 0.7]
    ours = small(weight_decay=decays)
    other = small()
    other.load_state_dict(ours.state_dict())
    inputs, targets = torch.randn(4, 20, S + A), torch.randn(4, 20, S + 1)
    optimizer = ours.optimizer()
    fitting_module.loss(ours, inputs, targets).backward()
    optimizer.step()
    penalty = sum(
        d / 2 * w.square().sum() for d, w in zip(decays, other.ensemble.weights, strict=True)
    )
    plain = torch.optim.Adam(other.parameters(), lr=1e-3)
    (fitting_module.loss(other, inputs, targets) + penalty).backward()
    plain.step()
    for mine, theirs in zip(ours.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


@pytest.mark.parametrize("states", [S, WIDE])
def test_loss_equals_a_naive_loop(states: int) -> None:
    torch.manual_seed(0)
    dynamics = with_bounds_of_their_own(small(states=states))
    rows = outputs = states + 1
    inputs, targets = torch.randn(4, rows, states + A), torch.randn(4, rows, outputs)
    mean, log_var = dynamics(inputs)
    assert lies_transposed(log_var) == (states == S)
    total = 0.0
    for e in range(4):
        for b in range(rows):
            for d in range(outputs):
                error = (mean[e, b, d] - targets[e, b, d]) ** 2
                nll = error / log_var[e, b, d].exp() + log_var[e, b, d]
                total += nll.item() / (rows * outputs)
    total += 0.01 * sum((dynamics.max_log_var - dynamics.min_log_var).tolist())
    assert fitting_module.loss(dynamics, inputs, targets).item() == pytest.approx(total, rel=1e-5)


def test_fit_is_warm_started() -> None:
    """A second fit on the same data begins where the first one ended: it takes fewer epochs."""
    torch.manual_seed(0)
    dynamics, transitions = small(), linear_transitions(600, noise=0.05)
    optimizer = dynamics.optimizer()
    first = fit(dynamics, optimizer, transitions)
    second = fit(dynamics, optimizer, transitions)
    assert second.epochs < first.epochs
    assert second.holdout_mse < 1.3 * first.holdout_mse


def test_a_single_network_is_fitted_to_every_row() -> None:
    """Of several, each sees a bootstrap, which leaves a third out."""
    for networks, fewest, most in ((1, 1.0, 1.0), (3, 0.5, 0.75)):
        torch.manual_seed(0)
        dynamics = small(networks=networks, elites=1)
        seen: list[set[float]] = [set() for _ in range(networks)]
        forward = dynamics.forward

        def noted(inputs: torch.Tensor, *rest: object) -> object:
            if torch.is_grad_enabled():
                for rows, row in zip(seen, inputs, strict=True):  # noqa: B023
                    rows.update(row[:, 0].tolist())
            return forward(inputs, *rest)  # noqa: B023

        dynamics.forward = noted  # type: ignore[method-assign, assignment]
        fit(dynamics, dynamics.optimizer(), linear_transitions(500, noise=0.1), patience=1)
        assert all(fewest <= len(rows) / 400 <= most for rows in seen)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_the_batches_of_an_epoch_are_its_rows_in_order(group: int) -> None:
    """In groups of some, each network's rows its own; the last batch is what is left."""
    rows = torch.arange(2 * 35).view(2, 35)
    groups = list(fitting_module.grouped(rows, 8, group))
    assert [len(batches) for batches in groups] == {1: [1] * 5, 2: [2, 2, 1], 4: [4, 1]}[group]
    one_by_one = [batch for batches in groups for batch in batches]
    assert [batch.shape[1] for batch in one_by_one] == [8, 8, 8, 8, 3]
    assert torch.equal(torch.cat(one_by_one, 1), rows)
    exact = list(fitting_module.grouped(rows[:, :32], 8, group))
    assert torch.equal(torch.cat([b for batches in exact for b in batches], 1), rows[:, :32])


def test_a_fit_in_groups_of_updates_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU gets them: of each epoch's 10 batches and a quarter two groups of 4."""
    found = []
    for group in (1, 4):
        monkeypatch.setitem(fitting_module.GROUP, "cpu", group)
        torch.manual_seed(0)
        dynamics = Dynamics(2, 1, "never", [8], [0.0, 0.0], networks=2, elites=1)
        rows = 410
        data = TensorDict(
            {
                "observation": torch.randn(rows, 2),
                "action": torch.rand(rows, 1),
                "reward": torch.randn(rows),
                "next": {
                    "observation": torch.randn(rows, 2),
                    "terminated": torch.zeros(rows, dtype=torch.bool),
                },
            },
            batch_size=[rows],
        )
        report = fit(dynamics, dynamics.optimizer(), data, batch_size=32, patience=2)
        found.append((report, [parameter.detach() for parameter in dynamics.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(map(torch.equal, found[0][1], found[1][1]))
