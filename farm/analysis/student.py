"""Student's t, straight from the special functions: a campaign asks for thousands of them."""

from scipy.special import stdtr, stdtrit


def t_quantile(probability: float, freedom: float) -> float:
    """The quantile of Student's t with `freedom` degrees of freedom."""
    return float(stdtrit(freedom, probability))


def two_sided_p(effect: float, se: float, freedom: float) -> float:
    """P(|t| at least |effect| ÷ se) if there is no effect. Without any scatter an effect is certain."""
    if se == 0.0:
        return 1.0 if effect == 0.0 else 0.0
    return float(2.0 * stdtr(freedom, -abs(effect) / se))
