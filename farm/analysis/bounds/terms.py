"""What limits are made of, and how several of them become one."""

from collections.abc import Callable

from farm.analysis.limits import Circumstances, Limit, NoLimit, Term, count_of

Rule = Callable[[Circumstances], Limit]

S, MS, US = 1.0, 1e3, 1e6  # in a second
KIB, MIB = 1 << 10, 1 << 20


def passed(mib: float, what: str, speed: Term, unit: float) -> Limit:
    """The time that so much takes at this speed."""
    return Limit(mib / speed.value * unit, "lower", f"{mib:.3g} MiB{what} ÷ {speed.told}")


def fastest(speed: Term) -> Limit:
    return Limit(speed.value, "higher", speed.told)


def no_less(value: float, why: str) -> Limit:
    return Limit(value, "lower", why)


def tightest(*rules: Rule) -> Rule:
    """The tightest of several bounds on one figure, of those whose terms are known."""

    def rule(known: Circumstances) -> Limit:
        found, reasons = [], []
        for one in rules:
            try:
                found.append(one(known))
            except NoLimit as reason:
                reasons.append(reason)
        if not found:
            raise reasons[0]
        is_floor = found[0].better == "lower"
        return max(found, key=lambda limit: limit.value) if is_floor else min(found, key=lambda limit: limit.value)

    return rule


def lowest(*terms: Term) -> Term:
    return min(terms, key=lambda term: term.value)


def known_of(*terms: Callable[[], Term]) -> Term:
    """The lowest of the terms that are known; raises NoLimit where none is."""
    found, reasons = [], []
    for term in terms:
        try:
            found.append(term())
        except NoLimit as reason:
            reasons.append(reason)
    if not found:
        raise reasons[0]
    return lowest(*found)


def into(known: Circumstances, source: str, target: str) -> Term:
    """How fast bytes come from one host into another's memory, where each is written once: a copy reads it as well."""

    def memory() -> Term:
        copied = known.probed("memory copy", target)
        return Term(2 * copied.value, f"2 × {copied.told}")

    return known_of(lambda: known.probed("network", source, target), memory)


def capped(known: Circumstances, speed: Term) -> Term:
    """With the cap of the scenario's parameter, where there is one: it is set at the sender's link."""
    cap = count_of(known.params.get("bandwidth_mib_s"))
    return lowest(speed, Term(float(cap), f"a cap of {cap} MiB/s")) if cap else speed


def round_trip(unit: float, known: Circumstances, one: str, other: str) -> Limit:
    """The quicker of both ways, since neither end begins it."""
    term = known_of(lambda: known.probed("round trip", one, other), lambda: known.probed("round trip", other, one))
    return no_less(term.value / US * unit, f"one {term.told}")


def base_mib(known: Circumstances) -> float:
    if known.base_mib is None or known.base_mib <= 1:
        raise NoLimit("the base image's size is not told")
    return known.base_mib
