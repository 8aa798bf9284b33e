"""Planners against the closed form and naive loops, and what the next search starts from."""

import math
from typing import Any

import pytest
import torch
from planning_problems import LINEAR_QUADRATIC, STATES, F, G, Q, R, negative_cost, resting
from torch import Tensor

from lit_mbrl.planning import ARC, CEM, ICEM, MPPI, Planner, Problem, RandomShooting, Start
from lit_mbrl.planning.icem import coloured_noise
from lit_mbrl.planning.planner import moments, shifted, truncated_normal


def riccati_cost(state: Tensor, horizon: int) -> Tensor:
    """Of the best plan, whose actions all lie within [-1, 1] for `STATES`."""
    value = Q
    for _ in range(horizon):
        gain = (G.T @ value @ F) / (R + G.T @ value @ G)
        value = Q + F.T @ value @ (F - G @ gain)
    return ((state @ value) * state).sum(-1)


@pytest.mark.parametrize(
    ("planner", "share"),
    [
        (RandomShooting(horizon=5, candidates=2500), 0.1),
        (CEM(horizon=5, candidates=500, elites=50, iterations=5), 0.01),
        (CEM(horizon=5, candidates=500, elites=50, iterations=5, returns="best"), 0.01),
        (MPPI(horizon=5, candidates=500, iterations=5), 0.01),
        (ICEM(horizon=5, candidates=300, elites=10, iterations=5, noise_exponent=0.25), 0.01),
        (ARC(horizon=3, candidates=100, iterations=5, temperature=0.03), 0.01),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Planner) else "",
)
def test_a_linear_quadratic_plan_is_nearly_the_best(planner: Planner, share: float) -> None:
    """From three states at once, and again from the first solution."""
    torch.manual_seed(0)
    best = riccati_cost(STATES, planner.horizon)
    start = None
    for _ in range(2):
        solution = planner(LINEAR_QUADRATIC, STATES, start)
        assert solution.action.shape == (3, planner.horizon, 1)
        assert (solution.action.abs() <= 1).all()
        cost = -negative_cost(STATES, solution.action.unsqueeze(1)).squeeze(1)
        assert (cost >= best - 1e-5).all()
        assert (cost <= (1 + share) * best).all(), cost / best
        start = solution.start


@pytest.mark.parametrize(
    "planner", [RandomShooting(5), CEM(5), MPPI(5), ICEM(5), ARC(5)], ids=lambda p: type(p).__name__
)
def test_actions_keep_to_their_bounds(planner: Planner) -> None:
    """Where the best is far outside of them, plans go to the bound; so does every candidate."""
    torch.manual_seed(0)

    def score(state: Tensor, plans: Tensor) -> Tensor:
        assert plans.abs().max() <= 1
        return 10 * plans.sum((2, 3))

    solution = planner(Problem(score, 2, lambda s, n, h: torch.zeros(len(s), n, h, 2)), STATES)
    mean = float(solution.action.mean())
    assert mean > (0.2 if isinstance(planner, RandomShooting) else 0.4), mean
    assert solution.score.shape == (3,)
    assert solution.sample.shape == solution.action.shape


def test_the_best_candidate_and_its_score_are_returned_together() -> None:
    torch.manual_seed(0)
    for planner in (RandomShooting(4), CEM(4, returns="best"), ICEM(4)):
        solution = planner(LINEAR_QUADRATIC, STATES)
        score = negative_cost(STATES, solution.action.unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(solution.score, score)


def test_each_search_of_a_batch_is_its_own() -> None:
    """Swapping the states swaps the solutions, up to the candidates that are drawn."""
    torch.manual_seed(0)
    planner = CEM(horizon=4, candidates=2000, elites=100)
    forth = planner(LINEAR_QUADRATIC, STATES).action
    back = planner(LINEAR_QUADRATIC, STATES.flip(0)).action.flip(0)
    torch.testing.assert_close(forth, back, atol=0.02, rtol=0)


def test_cem_is_the_naive_loop() -> None:
    """Elites by sorting, moments over them alone, and a tenth of the old ones kept."""
    planner = CEM(horizon=3, candidates=40, elites=7, iterations=3, momentum=0.1)
    torch.manual_seed(1)
    found = planner(LINEAR_QUADRATIC, STATES[:1])
    torch.manual_seed(1)
    mean, variance = torch.zeros(3, 1), torch.full((3, 1), 0.25)
    for _ in range(3):
        plans = truncated_normal(mean[None], variance.sqrt()[None], 40)
        scores = negative_cost(STATES[:1], plans)[0].tolist()
        order = sorted(range(40), key=lambda i: -scores[i])[:7]
        elites = torch.stack([plans[0, i] for i in order])
        mean = 0.1 * mean + 0.9 * elites.mean(0)
        variance = 0.1 * variance + 0.9 * elites.var(0, correction=0)
    torch.testing.assert_close(found.action[0], mean)
    assert float(found.score) == pytest.approx(sum(scores[i] for i in order) / 7)
    assert any(torch.allclose(found.sample[0], plans[0, i]) for i in order)


@pytest.mark.parametrize("kept", [False, True])
def test_arc_is_the_naive_loop(kept: bool) -> None:
    """Where scores differ by far more than eta, what spreads the candidates is the old variance."""
    plans, noise = 20, 0.3
    planner = ARC(3, plans, 4, 0.25, 0.01, prior_std=noise, momentum=0.1, keep_actor_plans=kept)
    start = Start(torch.full((1, 3, 1), 0.4), torch.zeros(1, 0, 3, 1))
    torch.manual_seed(1)
    found = planner(LINEAR_QUADRATIC, STATES[:1], start)
    torch.manual_seed(1)
    mean, variance = start.mean[0], torch.full((3, 1), 0.75 * noise**2)
    around = truncated_normal(mean[None], torch.full((1, 3, 1), noise), 15)
    candidates = torch.cat([torch.zeros(1, 5, 3, 1), around], 1)
    for again in range(4):
        if again:
            drawn = truncated_normal(mean[None], variance.sqrt()[None], 15 if kept else plans)
            candidates = torch.cat([torch.zeros(1, 5, 3, 1), drawn], 1) if kept else drawn
        scores = negative_cost(STATES[:1], candidates)[0].double()
        weights = [math.exp((float(score) - float(scores.max())) / 0.01) for score in scores]
        weights = [weight / sum(weights) for weight in weights]
        pairs = list(zip(weights, candidates[0], strict=True))
        mean = sum((w * plan for w, plan in pairs), torch.zeros(3, 1))
        new = sum((w * (plan - mean) ** 2 for w, plan in pairs), torch.zeros(3, 1))
        variance = 0.1 * variance + 0.9 * new
    torch.testing.assert_close(found.action[0], mean, rtol=1e-4, atol=1e-5)
    assert (found.start.mean[0] == torch.cat([found.action[0, 1:], torch.zeros(1, 1)])).all()


def test_arc_has_a_plan_of_the_actor_however_few_candidates() -> None:
    assert ARC(3, candidates=4, actor_share=0.05).actor_plans == 1
    assert ARC(3, candidates=100, actor_share=0.05).actor_plans == 5
    assert ARC(3, candidates=100, actor_share=0.0).actor_plans == 0


def test_the_next_mppi_starts_a_step_later() -> None:
    found = MPPI(4, 50, 1)(LINEAR_QUADRATIC, STATES)
    assert (found.start.mean == torch.cat([found.action[:, 1:], torch.zeros(3, 1, 1)], 1)).all()


@pytest.mark.parametrize("planner", [MPPI(3, 30, 1, 0.3, 0.5), ARC(3, 30, 1, 0.2, 0.5)])
def test_weights_are_exponential_in_the_score(planner: Planner) -> None:
    """One iteration against Eq. 8 of LOOP, written out."""
    seen: list[tuple[Tensor, Tensor]] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        seen.append((plans, negative_cost(state, plans)))
        return seen[-1][1]

    torch.manual_seed(0)
    solution = planner(Problem(score, 1, resting), STATES)
    ((plans, scores),) = seen
    for b in range(3):
        weights = [math.exp(float(s) / 0.5) for s in scores[b]]
        mean = sum(w * p for w, p in zip(weights, plans[b], strict=True)) / sum(weights)
        torch.testing.assert_close(solution.action[b], mean)


def test_icem_keeps_elites_within_a_search_and_for_the_next() -> None:
    populations: list[Tensor] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        populations.append(plans)
        return negative_cost(state, plans)

    torch.manual_seed(0)
    planner = ICEM(horizon=4, candidates=50, elites=10, iterations=3, kept_share=0.3, decay=1.25)
    first = planner(Problem(score, 1), STATES)
    # 50, 40 and 32 are drawn; 3 are kept from each iteration to the next; the mean comes last.
    assert [p.shape[1] for p in populations] == [50, 43, 36]
    assert first.start.kept.shape == (3, 3, 4, 1)
    torch.testing.assert_close(first.start.kept[:, 0, :3], first.action[:, 1:])
    torch.testing.assert_close(first.start.kept[:, 0, 3], first.action[:, 3])  # repeated
    planner(Problem(score, 1), STATES, first.start)
    assert populations[3].shape[1] == 53
    torch.testing.assert_close(populations[3][:, 50:], first.start.kept)
    # The search goes on from the mean, which was the first one's last candidate but for an update.
    torch.testing.assert_close(
        populations[3][:, :50].mean(1), first.start.mean, atol=0.35, rtol=0.0
    )


def test_icem_moves_its_deviation_by_the_momentum() -> None:
    populations: list[Tensor] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        populations.append(plans)
        return -plans.square().sum((-2, -1))

    torch.manual_seed(0)
    planner = ICEM(1, 20_000, 500, 2, momentum=0.5, initial_std=0.2, noise_exponent=0.0, decay=1.0)
    planner(Problem(score, 1), STATES[:1])
    elites = sorted(populations[0].flatten().tolist(), key=abs)[:500]
    expected = 0.5 * 0.2 + 0.5 * torch.tensor(elites).std()  # 0.10, where of variances it were 0.14
    drawn = populations[1].flatten()[:20_000]
    torch.testing.assert_close(drawn.std(), expected, rtol=0.03, atol=0.0)


def test_coloured_noise_has_unit_variance_and_its_colour() -> None:
    torch.manual_seed(0)
    frequency = torch.fft.rfftfreq(32)[1:-1]
    for exponent in (0.0, 1.0, 2.0):
        noise = coloured_noise(torch.zeros(2, 32, 3), 4000, exponent)
        assert noise.shape == (2, 4000, 32, 3)
        torch.testing.assert_close(noise.std((0, 1)), torch.ones(32, 3), atol=0.03, rtol=0)
        power = torch.fft.rfft(noise, dim=2).abs().square().mean((0, 1, 3))[1:-1]
        slope = power.log().diff().sum() / frequency.log().diff().sum()
        assert float(slope) == pytest.approx(-exponent, abs=0.03)
    for horizon in (1, 2, 3):
        noise = coloured_noise(torch.zeros(1, horizon, 1), 20_000, 2.0)
        torch.testing.assert_close(noise.std(1), torch.ones(1, horizon, 1), atol=0.03, rtol=0)


def test_a_truncated_normal_is_cut_off_at_two_deviations_and_the_bounds() -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[[0.0]], [[0.9]], [[1.0]]])
    plans = truncated_normal(mean, torch.full((3, 1, 1), 0.3), 50_000)
    assert float(plans[0].abs().max()) == pytest.approx(0.6, abs=0.001)
    # A standard normal that is cut off at two deviations has a deviation of 0.880.
    assert float(plans[0].std()) == pytest.approx(0.880 * 0.3, rel=0.01)
    assert float(plans[1].min()) >= 0.8 and float(plans[1].max()) <= 1
    assert (plans[2] == 1).all()


def test_a_mean_of_candidates_on_a_bound_is_on_it() -> None:
    """Weights sum to 1 but for rounding."""
    mean, _ = moments(torch.ones(1, 3, 2, 1), torch.full((1, 3), (1 + 1e-6) / 3))
    assert (mean == 1).all()


def test_arc_with_a_peaked_prior_returns_the_actors_plan() -> None:
    """beta = 1 and a deterministic actor: no score can move it."""
    actors = torch.rand(3, 1, 4, 1) * 2 - 1
    problem = Problem(negative_cost, 1, lambda s, n, h: actors.expand(-1, n, -1, -1))
    solution = ARC(horizon=4, actor_share=1.0, temperature=0.01)(problem, STATES)
    torch.testing.assert_close(solution.action, actors.squeeze(1))
    torch.testing.assert_close(solution.sample, actors.squeeze(1))


@pytest.mark.parametrize("kept", [False, True])
def test_arc_with_an_infinite_temperature_returns_the_priors_mean(kept: bool) -> None:
    """beta of the actor's plans, and the rest of the last step's; five times over if kept."""
    torch.manual_seed(0)
    actors, last = torch.full((3, 1, 4, 1), 0.5), torch.full((3, 4, 1), -0.2)
    problem = Problem(negative_cost, 1, lambda s, n, h: actors.expand(-1, n, -1, -1))
    start = Start(last, last[:, None][:, :0])
    arguments: dict[str, Any] = {"actor_share": 0.3, "temperature": 1e9, "prior_std": 0.2}
    planner = ARC(4, 20_000, iterations=5, keep_actor_plans=kept, **arguments)
    solution = planner(problem, STATES, start)
    of_the_last = 0.7**5 if kept else 0.7
    prior = (1 - of_the_last) * 0.5 + of_the_last * -0.2
    torch.testing.assert_close(solution.action, torch.full((3, 4, 1), prior), atol=0.01, rtol=0)


@pytest.mark.parametrize(("share", "plans"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.95, 3), (1.0, 4)])
def test_arc_mixes_its_prior_wherever_the_share_is_a_part(share: float, plans: int) -> None:
    """Of four candidates at least one is the actor's and one is not."""
    asked = []

    def propose(state: Tensor, plans: int, horizon: int) -> Tensor:
        asked.append(plans)
        return state.new_zeros(len(state), plans, horizon, 1)

    ARC(horizon=2, candidates=4, actor_share=share)(Problem(negative_cost, 1, propose), STATES)
    assert asked == [plans] * (plans > 0)


def test_arc_without_an_actor_keeps_nothing_of_it() -> None:
    found = []
    for kept in (False, True):
        torch.manual_seed(0)
        planner = ARC(horizon=3, actor_share=0.0, keep_actor_plans=kept)
        found.append(planner(Problem(negative_cost, 1), STATES).action)
    assert torch.equal(*found)


@pytest.mark.parametrize("planner", [CEM(3, 100, 20), MPPI(3, 100), ARC(3, 100, actor_share=0.0)])
def test_plans_leave_the_bounds_where_nothing_holds_them(planner: Planner) -> None:
    """A Gaussian that is narrow near a bound would stay there for as long as scores are equal."""
    torch.manual_seed(0)
    problem = Problem(lambda state, plans: plans.new_zeros(plans.shape[:2]), 2)
    start = Start(torch.full((3, 3, 2), 0.999), torch.zeros(3, 0, 3, 2))
    for _ in range(4):
        solution = planner(problem, STATES, start)
        start = solution.start
    assert solution.action[:, 0].abs().max() < 0.5


def test_plans_are_shifted_by_a_step() -> None:
    plans = torch.arange(6.0).view(2, 3, 1)
    assert shifted(plans).squeeze(-1).tolist() == [[1, 2, 0], [4, 5, 0]]
    assert shifted(plans, repeat=True).squeeze(-1).tolist() == [[1, 2, 2], [4, 5, 5]]
    assert shifted(plans.unsqueeze(0))[0, 1].squeeze(-1).tolist() == [4, 5, 0]


@pytest.mark.parametrize("returns", ["mean", "best"])
def test_the_next_cem_starts_from_the_mean_whatever_is_returned(returns: Any) -> None:
    candidates: list[Tensor] = []

    def score(state: Tensor, plans: Tensor) -> Tensor:
        candidates.append(plans)
        return negative_cost(state, plans)

    torch.manual_seed(0)
    planner = CEM(4, candidates=50, elites=10, iterations=1, momentum=0.0, returns=returns)
    found = planner(Problem(score, 1), STATES)
    best = negative_cost(STATES, candidates[0]).topk(10, -1).indices
    for b, indices in enumerate(best):
        mean = candidates[0][b][indices].mean(0)
        torch.testing.assert_close(found.start.mean[b, :3], mean[1:])
        assert found.start.mean[b, 3] == 0
