"""How far the networks of an ensemble are apart."""

from torch import Tensor


def one_vs_rest(mean: Tensor, log_var: Tensor) -> Tensor:
    """u(s, a) = sum_i KL(p_i || p_-i): each network against all others (paper 001, Eq. 8).

    p_-i, the mean of the other networks' predictions, is a mixture of Gaussians, to which the
    divergence has no closed form. In its place stands the Gaussian with the mixture's mean and
    variance (moment form): u is then exact, and smooth in the predictions.

    Args:
        mean: Of each network's diagonal Gaussian [E, ..., D].
        log_var: Its log-variance [E, ..., D].

    Returns:
        u [...] in nats, summed over networks and dimensions; 0 if all predict the same.
    """
    others = len(mean) - 1
    # About the common mean, since the spread may be far smaller than what is predicted.
    mean, variance = mean - mean.mean(0), log_var.exp()
    rest_mean = (mean.sum(0) - mean) / others
    square = mean.square()
    # Of the others' means; where one network is far off it is the difference of large numbers.
    spread = ((square.sum(0) - square) / others - rest_mean.square()).clamp(min=0)
    rest_variance = (variance.sum(0) - variance) / others + spread
    ratio = (variance + (mean - rest_mean).square()) / rest_variance
    return 0.5 * (ratio - 1 + rest_variance.log() - log_var).sum((0, -1))
