"""Planning policy iteration against independent evaluations, and where the paper's claims stop."""

from collections.abc import Iterator
from itertools import pairwise, product
from math import log, prod

import pytest
import torch
from torch import Tensor

from lit_mbrl.tabular import (
    MDP,
    backup,
    improve,
    path_entropy,
    plan_model,
    plan_probability,
    plan_value,
    planning_policy_iteration,
    state_value,
)

STATES, ACTIONS, GAMMA, ALPHA = 4, 2, 0.9, 0.3
SEEDS, LENGTHS = (0, 1, 2), (1, 2, 3)
# Every form of the entropy term: none, discounted inside the block or not (Eq. 32).
FORMS = [(0.0, False), (ALPHA, False), (ALPHA, True)]

seeds = pytest.mark.parametrize("seed", SEEDS)
lengths = pytest.mark.parametrize("k", LENGTHS)
forms = pytest.mark.parametrize(("alpha", "discounted"), FORMS)
transitions = pytest.mark.parametrize("deterministic", [True, False])
temperatures = pytest.mark.parametrize("alpha", [0.0, ALPHA])


def random_mdp(seed: int, deterministic: bool) -> MDP:
    rng = torch.Generator().manual_seed(seed)
    if deterministic:
        following = torch.randint(STATES, (STATES, ACTIONS), generator=rng)
        transition = torch.nn.functional.one_hot(following, STATES).double()
    else:
        logits = torch.randn(STATES, ACTIONS, STATES, generator=rng, dtype=torch.float64)
        transition = torch.softmax(2 * logits, -1)
    reward = torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64)
    return MDP(transition, reward, GAMMA)


def random_policy(seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(100 + seed)
    return torch.softmax(torch.randn(STATES, ACTIONS, generator=rng, dtype=torch.float64), -1)


def random_q(seed: int, k: int) -> Tensor:
    rng = torch.Generator().manual_seed(200 + seed)
    return torch.randn(STATES, ACTIONS**k, generator=rng, dtype=torch.float64)


def deterministic_policies(states: int, actions: int) -> list[Tensor]:
    choices = product(range(actions), repeat=states)
    return [torch.nn.functional.one_hot(torch.tensor(c), actions).double() for c in choices]


def steps(following: list[list[int]], reward: list[list[float]]) -> MDP:
    """The deterministic MDP in which action a takes s to following[s][a]."""
    transition = torch.nn.functional.one_hot(torch.tensor(following), len(following)).double()
    return MDP(transition, torch.tensor(reward, dtype=torch.float64), GAMMA)


def chain(mdp: MDP, policy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One step of a policy: next-state matrix [S, S], expected reward [S], entropy [S]."""
    following = (policy.unsqueeze(-1) * mdp.transition).sum(1)
    return following, (policy * mdp.reward).sum(-1), -torch.xlogy(policy, policy).sum(-1)


def policy_value(mdp: MDP, policy: Tensor, alpha: float = 0.0) -> Tensor:
    """The ordinary (soft) V^pi [S], the actions answering each state, by a linear solve."""
    following, reward, entropy = chain(mdp, policy)
    identity = torch.eye(len(policy), dtype=torch.float64)
    value: Tensor = torch.linalg.solve(identity - mdp.gamma * following, reward + alpha * entropy)
    return value


def optimal_step(mdp: MDP, value: Tensor, alpha: float) -> Tensor:
    """One sweep of (soft) value iteration, [S] to [S]."""
    q = mdp.reward + mdp.gamma * (mdp.transition @ value)
    return alpha * torch.logsumexp(q / alpha, -1) if alpha else q.amax(-1)


def optimum(mdp: MDP, alpha: float = 0.0) -> Tensor:
    value = torch.zeros(len(mdp.reward), dtype=torch.float64)
    for _ in range(400):
        value = optimal_step(mdp, value, alpha)
    return value


def naive_backup(
    mdp: MDP, policy: Tensor, k: int, q: Tensor, alpha: float, discounted: bool
) -> Tensor:
    """Eq. 7, 8, 31 and 32 with a loop over every state path and every plan."""
    plans = list(product(range(ACTIONS), repeat=k))
    weights = [GAMMA**m if discounted else 1.0 for m in range(k)]
    transition, reward, probability = mdp.transition.tolist(), mdp.reward.tolist(), policy.tolist()

    def paths(s: int, plan: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], float]]:
        for tail in product(range(STATES), repeat=k):
            path = (s, *tail)
            yield path, prod(transition[path[m]][plan[m]][path[m + 1]] for m in range(k))

    value = [0.0] * STATES
    for s in range(STATES):
        for n, plan in enumerate(plans):
            for path, chance in paths(s, plan):
                pi = [probability[path[m]][plan[m]] for m in range(k)]
                surprise = sum(w * log(p) for w, p in zip(weights, pi, strict=True))
                value[s] += chance * prod(pi) * (float(q[s, n]) - alpha * surprise)
    result = torch.zeros_like(q)
    for s in range(STATES):
        for n, plan in enumerate(plans):
            for path, chance in paths(s, plan):
                gain = sum(GAMMA**m * reward[path[m]][plan[m]] for m in range(k))
                result[s, n] += chance * (gain + GAMMA**k * value[path[-1]])
    return result


@transitions
@forms
@lengths
def test_backup_is_the_sum_over_paths(
    deterministic: bool, alpha: float, discounted: bool, k: int
) -> None:
    mdp, policy, q = random_mdp(0, deterministic), random_policy(0), random_q(0, k)
    naive = naive_backup(mdp, policy, k, q, alpha, discounted)
    torch.testing.assert_close(backup(mdp, policy, k, q, alpha, discounted), naive)


@seeds
@transitions
@lengths
def test_plans_are_distributions(seed: int, deterministic: bool, k: int) -> None:
    mdp = random_mdp(seed, deterministic)
    probability = plan_probability(mdp, random_policy(seed), k)
    _, reach = plan_model(mdp, k)
    torch.testing.assert_close(probability.sum(-1), torch.ones_like(probability[:, 0]))
    torch.testing.assert_close(reach.sum(-1), torch.ones_like(probability))


@seeds
@transitions
@forms
@lengths
def test_backup_contracts_by_gamma_to_the_k(
    seed: int, deterministic: bool, alpha: float, discounted: bool, k: int
) -> None:
    mdp, policy = random_mdp(seed, deterministic), random_policy(seed)
    one, other = random_q(seed, k), random_q(seed + 10, k)

    def gap(a: Tensor, b: Tensor) -> float:
        moved = backup(mdp, policy, k, a, alpha, discounted)
        return float((moved - backup(mdp, policy, k, b, alpha, discounted)).abs().max())

    assert gap(one, other) <= GAMMA**k * float((one - other).abs().max()) + 1e-12
    assert gap(one, one + 1) == pytest.approx(GAMMA**k)  # no smaller factor would do


@seeds
@transitions
@forms
@lengths
def test_repeated_backups_approach_the_plan_value(
    seed: int, deterministic: bool, alpha: float, discounted: bool, k: int
) -> None:
    mdp, policy = random_mdp(seed, deterministic), random_policy(seed)
    limit = plan_value(mdp, policy, k, alpha, discounted)
    torch.testing.assert_close(backup(mdp, policy, k, limit, alpha, discounted), limit)
    q = random_q(seed, k)
    start = float((q - limit).abs().max())
    for i in range(1, 6):
        q = backup(mdp, policy, k, q, alpha, discounted)
        assert float((q - limit).abs().max()) <= GAMMA ** (k * i) * start + 1e-12


@seeds
@temperatures
@lengths
def test_plan_value_is_the_plan_then_the_policy(seed: int, alpha: float, k: int) -> None:
    """Eq. 5, which needs deterministic transitions or actions that do not answer the state."""
    policy, blind = random_policy(seed), random_policy(seed)[:1].expand(STATES, ACTIONS)
    for deterministic, actor in ((True, policy), (True, blind), (False, blind)):
        mdp = random_mdp(seed, deterministic)
        reward, reach = plan_model(mdp, k)
        expected = reward + GAMMA**k * (reach @ policy_value(mdp, actor, alpha))
        torch.testing.assert_close(plan_value(mdp, actor, k, alpha, True), expected)


@seeds
@lengths
def test_undiscounted_entropy_is_a_temperature_that_grows_along_the_block(
    seed: int, k: int
) -> None:
    """Eq. 32 evaluates pi in the MDP of states (s, n mod k), temperature alpha gamma^-(n mod k)."""
    mdp, policy = random_mdp(seed, True), random_policy(seed)
    following, reward, entropy = chain(mdp, policy)
    gain = torch.cat([reward + ALPHA * GAMMA**-m * entropy for m in range(k)])
    phase = torch.eye(k, dtype=torch.float64).roll(1, 1)  # m -> m + 1 mod k
    system = torch.eye(k * STATES, dtype=torch.float64) - GAMMA * torch.kron(phase, following)
    expected = torch.linalg.solve(system, gain)[:STATES]
    value = state_value(mdp, policy, k, plan_value(mdp, policy, k, ALPHA), ALPHA)
    torch.testing.assert_close(value, expected)


@seeds
@temperatures
@lengths
def test_improvement_is_monotone_and_beats_the_best_plan(seed: int, alpha: float, k: int) -> None:
    """V_new >= T^k V_old >= V_old, from any policy; plans' values rise with it (Lemmas 2 and 4)."""
    mdp, old = random_mdp(seed, True), random_policy(seed)
    q_old = plan_value(mdp, old, k, alpha, True)
    new = improve(mdp, k, q_old, alpha, True)
    q_new = plan_value(mdp, new, k, alpha, True)
    value = bound = policy_value(mdp, old, alpha)
    for _ in range(k):
        bound = optimal_step(mdp, bound, alpha)
    assert (bound >= value - 1e-9).all()
    assert (policy_value(mdp, new, alpha) >= bound - 1e-9).all()
    assert (q_new >= q_old - 1e-9).all()
    assert (q_new > q_old + 1e-3).any()
    if alpha == 0:  # T^k V_old is what the best of all plans brings
        torch.testing.assert_close(bound, q_old.amax(-1))


@seeds
@temperatures
@lengths
def test_iteration_reaches_the_optimum_of_value_iteration(seed: int, alpha: float, k: int) -> None:
    mdp = random_mdp(seed, True)
    trace = planning_policy_iteration(mdp, random_policy(seed), k, alpha)
    best = optimum(mdp, alpha)
    errors = [float((best - policy_value(mdp, pi, alpha)).abs().max()) for pi, _ in trace]
    assert errors[0] > 0.1
    assert errors[-1] < 1e-8
    for (_, before), (_, after) in pairwise(trace):
        assert (after >= before - 1e-9).all()
    for error, next_error in pairwise(errors):
        assert next_error <= GAMMA**k * error + 1e-9  # what a longer plan buys
    reward, reach = plan_model(mdp, k)
    expected = reward + GAMMA**k * (reach @ best)
    torch.testing.assert_close(trace[-1][1], expected, rtol=0, atol=1e-8)


@seeds
@transitions
@temperatures
def test_plans_of_one_step_are_ordinary_policy_iteration(
    seed: int, deterministic: bool, alpha: float
) -> None:
    mdp, policy = random_mdp(seed, deterministic), random_policy(seed)
    for found, q in planning_policy_iteration(mdp, policy, 1, alpha):
        torch.testing.assert_close(found, policy, rtol=0, atol=1e-7)
        expected = mdp.reward + GAMMA * (mdp.transition @ policy_value(mdp, policy, alpha))
        torch.testing.assert_close(q, expected, rtol=0, atol=1e-7)
        policy = torch.softmax(expected / (alpha or 1e-6), -1)  # as good as the arg max
    best = policy_value(mdp, found, alpha)
    torch.testing.assert_close(best, optimum(mdp, alpha), rtol=0, atol=1e-7)


def test_plan_entropy_exceeds_path_entropy_when_states_are_hidden() -> None:
    """Eq. 36 reads log pi^k(tau | s) for the path's log pi: the same where the plan fixes it."""
    policy = random_policy(0)
    for deterministic in (True, False):
        mdp = random_mdp(0, deterministic)
        plans = torch.special.entr(plan_probability(mdp, policy, 3)).sum(-1)
        excess = plans - path_entropy(mdp, policy, 3, 1.0)
        assert excess.abs().max() < 1e-12 if deterministic else (excess > 1e-3).all()


def test_no_policy_need_attain_the_argmax_of_equation_9_in_every_state() -> None:
    """From state 0 a two-step plan ends in state 1, where Q_old has it take the sure reward; from
    state 1 it has time for the larger reward in state 2 that the old policy refuses. Both
    objectives are linear in each pi(. | s), so deterministic policies suffice."""
    mdp = steps(
        following=[[1, 1], [2, 3], [3, 3], [3, 3]],
        reward=[[0.0, 0.0], [0.0, 1.0], [0.0, 10.0], [0.0, 0.0]],
    )
    sure, refuse = [0.0, 1.0], [1.0, 0.0]
    old = torch.tensor([refuse, sure, refuse, refuse], dtype=torch.float64)
    q = plan_value(mdp, old, 2)
    candidates = deterministic_policies(4, 2)
    attained = torch.stack([(plan_probability(mdp, pi, 2) * q).sum(-1) for pi in candidates])
    best = attained.amax(0)
    torch.testing.assert_close(best, q.amax(-1))  # each state's best plan is some policy's
    assert not (attained >= best - 1e-9).all(-1).any()  # but no policy's in every state
    torch.testing.assert_close(policy_value(mdp, improve(mdp, 2, q)), optimum(mdp))


def test_undiscounted_entropy_can_leave_no_best_policy() -> None:
    """Theorem 2 as printed, deterministic transitions: state 1 as the second of two steps weighs
    its reward by gamma against a full entropy, and as the first of two steps by one."""
    mdp = steps(following=[[1, 1], [2, 2], [2, 2]], reward=[[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    uniform = torch.full((3, 2), 0.5, dtype=torch.float64)

    def value(scale: float) -> tuple[Tensor, Tensor]:
        policy = uniform.clone()
        policy[1] = torch.softmax(scale * mdp.reward[1] / ALPHA, -1)
        return policy, state_value(mdp, policy, 2, plan_value(mdp, policy, 2, ALPHA), ALPHA)

    (second, for_second), (_, for_first) = value(GAMMA), value(1.0)
    assert for_second[0] > for_first[0] + 1e-4
    assert for_second[1] < for_first[1] - 1e-4
    for scale in torch.linspace(0, 2, 41).tolist():
        assert value(scale)[1][0] <= for_second[0] + 1e-12
        assert value(scale)[1][1] <= for_first[1] + 1e-12
    # Hence nothing raises state 1 from here without lowering state 0, and `improve` does just that.
    q = plan_value(mdp, second, 2, ALPHA)
    moved = improve(mdp, 2, q, ALPHA)
    assert state_value(mdp, moved, 2, plan_value(mdp, moved, 2, ALPHA), ALPHA)[0] < for_second[0]


def test_stochastic_transitions_break_the_claims() -> None:
    """State 0 falls by a coin to state 1 or 2, which both return. Action 0 is safe in both; in
    state 2 action 1 is a little better, in state 1 it is ruinous. A plan made in state 0 must
    name its second action before the coin falls."""
    half = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    back = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    transition = torch.stack([half, back, back]).unsqueeze(1).expand(3, 2, 3)
    reward = torch.tensor([[0.0, 0.0], [1.0, -3.0], [0.9, 1.0]], dtype=torch.float64)
    mdp = MDP(transition, reward, GAMMA)

    def value(policy: Tensor) -> Tensor:
        return state_value(mdp, policy, 2, plan_value(mdp, policy, 2))

    safe = torch.tensor([[1, 0]] * 3, dtype=torch.float64)
    responsive = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(value(safe), policy_value(mdp, safe))
    torch.testing.assert_close(policy_value(mdp, responsive), optimum(mdp))

    # Lemma 1: the fixed point is not V^pi. A responsive plan, replayed blindly, meets each state
    # with the other's action half of the time.
    replayed = 0.5 * 0.5 * GAMMA * reward[1:].sum() / (1 - GAMMA**2)
    assert value(responsive)[0] == pytest.approx(float(replayed))
    assert value(responsive)[0] < policy_value(mdp, responsive)[0] - 1

    # Lemma 2: the first action of the best plan is the responsive policy, and state 0 loses by it.
    improved = improve(mdp, 2, plan_value(mdp, safe, 2))
    torch.testing.assert_close(improved[1:], responsive[1:])
    assert value(improved)[0] < value(safe)[0] - 1

    # Theorem 1: no policy is best in every state (V is linear in pi(. | 1) and in pi(. | 2), so
    # deterministic policies suffice), and no plan made in state 0 attains the optimum there.
    values = torch.stack([value(policy) for policy in deterministic_policies(3, 2)])
    assert not (values >= values.amax(0) - 1e-9).all(-1).any()
    assert values.amax(0)[0] < optimum(mdp)[0] - 0.1
    with pytest.raises(ValueError, match="deterministic"):
        planning_policy_iteration(mdp, safe, 2)


def test_iteration_cut_short_says_so() -> None:
    with pytest.raises(RuntimeError, match="still move"):
        planning_policy_iteration(random_mdp(0, True), random_policy(0), 2, max_iterations=1)


def test_malformed_mdps_are_refused() -> None:
    mdp = random_mdp(0, False)
    with pytest.raises(ValueError, match="transition is"):
        MDP(mdp.transition[:, :1], mdp.reward, GAMMA)
    with pytest.raises(ValueError, match="distribution"):
        MDP(2 * mdp.transition, mdp.reward, GAMMA)
    with pytest.raises(ValueError, match="gamma"):
        MDP(mdp.transition, mdp.reward, 1.0)
