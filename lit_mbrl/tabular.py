"""Planning policy iteration on a finite MDP, plain and soft (Lin et al., "Model-based Reinforcement
Learning with Multi-step Plan Value Estimation", Section 4.1, Appendices A and B).

A plan is tau = (a_0, ..., a_{k-1}) and takes one index of A^k, its first action most significant.
All tensors are float64. What the paper claims, and the conditions under which it holds:

* Evaluation (Lemmas 1 and 3). `backup` contracts by gamma^k in the sup norm in every MDP, so it has
  one fixed point, `plan_value`. With deterministic transitions that is Eq. 5, the plan's rewards
  and then V^pi. With stochastic ones and k > 1, Eq. 6 does not follow from Eq. 5: pi^k(tau | s) has
  forgotten the states that its actions answered. The fixed point is then the value of imagining a
  plan and carrying it out blindly in a fresh run, again and again; it equals Eq. 5 where pi does
  not tell apart the states that one plan prefix can lead to.
* Improvement (Lemmas 2 and 4). The proof needs one pi_new whose Eq. 9 (Eq. 39) is at least V_old in
  every state; monotonicity then follows in every MDP. The arg max itself need not exist: the action
  best as the first of a plan may not be best as its last, so that states disagree about pi_new.
  `improve` therefore keeps the first action of the best plan. Let T be the optimal (soft) Bellman
  operator of one step. With deterministic transitions the best plan, max_tau Q_old(s, tau) in the
  plain form, brings T^k V_old, and pi_new is greedy in W = T^{k-1} V_old. From T V_old >= V_old
  come W <= T W = T_new W and V_new >= T^k V_old >= V_old. No policy's Eq. 9 exceeds T^k V_old, and
  one that attains it in every state is such a pi_new. (Efroni et al., "Beyond the One-Step Greedy
  Approach in Reinforcement Learning", 2018, call it the h-greedy policy.)
* Iteration (Theorems 1 and 2). With deterministic transitions that bound gives
  |V* - V_i| <= gamma^{k i} |V* - V_0|, V* being value iteration's optimum. Values converge, but
  policies need not where actions tie. With stochastic ones and k > 1 there may be no best policy:
  the best response to a state is not the best action to play blindly, and no plan may reach V*.

The soft form's slips. Eq. 30 gives the plan's own k actions an entropy, which Eq. 31 and 33 do not,
and leaves the entropies that follow undiscounted, so that they diverge; we follow Eq. 31-33.
Eq. 32 does not discount entropy inside a block of k steps, so that the step n after a decision has
entropy weight gamma^{k floor(n / k)} against reward weight gamma^n: the MDP whose state is
(s, n mod k), of temperature alpha gamma^{-(n mod k)}. Its best policy depends on n mod k, and no
policy of s alone need be best everywhere: Theorem 2 fails even with deterministic transitions.
`discount_entropy=True` weights the m-th entropy by gamma^m, which restores the ordinary soft MDP
and both soft results; the default is Eq. 32, which the neural target (Eq. 49) uses. Lastly, Eq. 36
puts the log-probability of the plan where Eq. 32 sums log pi along the path: with stochastic
transitions the former's entropy is the larger; we use the path's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MDP:
    """A finite MDP: `transition` [S, A, S], expected `reward` [S, A] and discount 0 < `gamma` < 1.

    Raises ValueError on shapes that disagree, rows of `transition` that are not distributions, or a
    discount out of range.
    """

    transition: Tensor
    reward: Tensor
    gamma: float

    def __post_init__(self) -> None:
        states, actions = self.reward.shape
        if self.transition.shape != (states, actions, states):
            raise ValueError(
                f"transition is {tuple(self.transition.shape)}, not {(states, actions, states)}"
            )
        total = self.transition.sum(-1)
        if (self.transition < 0).any() or not torch.allclose(total, torch.ones_like(total)):
            raise ValueError("transition[s, a] must be a distribution over next states")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must lie strictly between 0 and 1, got {self.gamma}")

    @property
    def deterministic(self) -> bool:
        """Whether each action has a single possible next state."""
        return bool(((self.transition > 0).sum(-1) == 1).all())


def plan_model(mdp: MDP, k: int) -> tuple[Tensor, Tensor]:
    """What a plan played blindly brings: its expected discounted reward [S, A^k], the first term of
    Eq. 7, and the distribution of s_{t+k} [S, A^k, S]."""
    reach = torch.eye(len(mdp.reward), dtype=mdp.reward.dtype).unsqueeze(1)
    reward = torch.zeros_like(mdp.reward[:, :1])
    for m in range(k):
        reward = (reward.unsqueeze(-1) + mdp.gamma**m * (reach @ mdp.reward)).flatten(1)
        reach = torch.einsum("sni,iaj->snaj", reach, mdp.transition).flatten(1, 2)
    return reward, reach


def plan_probability(mdp: MDP, policy: Tensor, k: int) -> Tensor:
    """pi^k(tau | s) [S, A^k] of `policy` [S, A]: Eq. 4 summed over the state paths of Eq. 3."""
    joint = torch.eye(len(policy), dtype=policy.dtype).unsqueeze(1)  # of the plan and its end
    for _ in range(k):
        joint = torch.einsum("sni,ia,iaj->snaj", joint, policy, mdp.transition).flatten(1, 2)
    return joint.sum(-1)


def temperatures(mdp: MDP, k: int, alpha: float, discount_entropy: bool) -> list[float]:
    """The weight of each of a plan's k entropies: alpha as in Eq. 32, or alpha gamma^m."""
    return [alpha * mdp.gamma**m if discount_entropy else alpha for m in range(k)]


def path_entropy(
    mdp: MDP, policy: Tensor, k: int, alpha: float, discount_entropy: bool = False
) -> Tensor:
    """E[-sum_m alpha_m log pi(a_{t+m} | s_{t+m})] [S] along k steps of `policy` (Eq. 32)."""
    chain = torch.einsum("sa,sat->st", policy, mdp.transition)
    entropy = torch.special.entr(policy).sum(-1)
    total = torch.zeros_like(entropy)
    for weight in temperatures(mdp, k, alpha, discount_entropy):
        total = total + weight * entropy
        entropy = chain @ entropy
    return total


def state_value(
    mdp: MDP,
    policy: Tensor,
    k: int,
    q: Tensor,
    alpha: float = 0.0,
    discount_entropy: bool = False,
) -> Tensor:
    """V(s) [S] of the plan values `q` [S, A^k]: Eq. 8, or Eq. 32 where `alpha` > 0."""
    expected = (plan_probability(mdp, policy, k) * q).sum(-1)
    return expected + path_entropy(mdp, policy, k, alpha, discount_entropy)


def backup(
    mdp: MDP,
    policy: Tensor,
    k: int,
    q: Tensor,
    alpha: float = 0.0,
    discount_entropy: bool = False,
) -> Tensor:
    """T^pi q [S, A^k]: the Bellman operator of Eq. 7, or of Eq. 31 where `alpha` > 0."""
    reward, reach = plan_model(mdp, k)
    value = state_value(mdp, policy, k, q, alpha, discount_entropy)
    return reward + mdp.gamma**k * (reach @ value)


def plan_value(
    mdp: MDP, policy: Tensor, k: int, alpha: float = 0.0, discount_entropy: bool = False
) -> Tensor:
    """The fixed point of `backup` [S, A^k], which Lemmas 1 and 3 approach, by a linear solve."""
    reward, reach = plan_model(mdp, k)
    block = torch.einsum("sn,snt->st", plan_probability(mdp, policy, k), reach)
    gain = state_value(mdp, policy, k, reward, alpha, discount_entropy)
    identity = torch.eye(len(policy), dtype=policy.dtype)
    value: Tensor = torch.linalg.solve(identity - mdp.gamma**k * block, gain)
    return reward + mdp.gamma**k * (reach @ value)


def improve(
    mdp: MDP, k: int, q: Tensor, alpha: float = 0.0, discount_entropy: bool = False
) -> Tensor:
    """The improved policy [S, A]: the first action of the best plan under `q` [S, A^k].

    Stands for the arg max of Eq. 9 and, where `alpha` > 0, for the arg min of Eq. 35: the first
    action's marginal of the best distribution of plans. That is exp(q / alpha) / Z as in Eq. 35, or
    a softmax nested from the last action to the first where entropies are discounted.
    """
    states, actions = mdp.reward.shape
    first, *later = temperatures(mdp, k, alpha, discount_entropy)
    for weight in reversed(later):  # fold the last action of every plan into the best response
        q = q.reshape(states, -1, actions)
        q = weight * torch.logsumexp(q / weight, -1) if weight > 0 else q.amax(-1)
    if first > 0:
        return torch.softmax(q / first, -1)
    return torch.nn.functional.one_hot(q.argmax(-1), actions).to(q.dtype)


def planning_policy_iteration(
    mdp: MDP,
    policy: Tensor,
    k: int,
    alpha: float = 0.0,
    tolerance: float = 1e-10,
    max_iterations: int = 1000,
) -> list[tuple[Tensor, Tensor]]:
    """Alternates `plan_value` and `improve` from `policy` [S, A] (Theorem 1; Theorem 2 with
    discounted entropies where `alpha` > 0) until no plan value moves by more than `tolerance`.

    Returns each policy in turn [S, A] with its plan value [S, A^k], the last one optimal. Raises
    ValueError where no theorem holds, that is with stochastic transitions and k > 1, and
    RuntimeError where `max_iterations` do not reach the tolerance (as when it is below rounding).
    """
    if k > 1 and not mdp.deterministic:
        raise ValueError("planning policy iteration needs deterministic transitions when k > 1")
    q = plan_value(mdp, policy, k, alpha, discount_entropy=True)
    trace = [(policy, q)]
    for _ in range(max_iterations):
        old, policy = q, improve(mdp, k, q, alpha, discount_entropy=True)
        q = plan_value(mdp, policy, k, alpha, discount_entropy=True)
        trace.append((policy, q))
        if (q - old).abs().max() <= tolerance:
            return trace
    raise RuntimeError(f"plan values still move by more than {tolerance}")
