"""What the tested relations (hypotheses.py) say in words: claims of others judged, one paragraph.

Published systems of this kind say where their errors concentrate, from looking at pictures: on
contrasting details and lines such as stripes, cut-outs, lettering or helmets. Each claim names
attributes; it

    is mixed                     where one of them rises with an error and another one falls
    holds                        for the error that contrast cannot inflate
    holds before contrast is divided out     for the distortion alone
    is contradicted              where a confirmed relation has the other sign
    is not confirmed             otherwise
    is not testable              without a relation: the attribute is unknown or does not vary

in this order, and negligible relations support nothing and oppose nothing. An attribute that goes
one way with the one error and the other way with the other is no mixture: dividing by contrast can
do that. What speaks against a claim is quoted beside what speaks for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vae.evaluation.failures.correlations import ERRORS, SLIGHT, Regression, Relation

CLAIMS = (
    ("errors concentrate on contrasting details", ("contrast", "edge_density")),
    ("errors concentrate on lines and stripes", ("periodicity",)),
    ("errors concentrate on lettering and other fine detail", ("high_frequency",)),
    ("rare classes are reconstructed worse", ("class_rarity",)),
)
NAMES = {"distortion": "the distortion", "mse_over_variance": "the MSE over the image's variance"}
STRENGTHS = ((0.5, "strong"), (0.3, "moderate"), (SLIGHT, "weak"), (0.0, "negligible"))


@dataclass(frozen=True)
class Claim:
    """What is claimed, the attributes that would show it, and what the test split says."""

    claim: str
    attributes: tuple[str, ...]
    verdict: str


def words(name: str) -> str:
    """An attribute's name to read."""
    return name.replace("_", " ")


def strength(rho: float) -> str:
    """Cohen's word for a correlation."""
    return next(word for least, word in STRENGTHS if abs(rho) >= least)


def judge_claims(relations: Sequence[Relation]) -> list[Claim]:
    """The claims of `CLAIMS`."""
    return [Claim(text, names, _judged(relations, names)) for text, names in CLAIMS]


def _judged(relations: Sequence[Relation], names: Sequence[str]) -> str:
    known = [relation for relation in relations if relation.attribute in names]
    if not known:
        return "not testable: no such attribute varies here"
    telling = [relation for relation in known if relation.telling]
    rising, falling = ([r for r in telling if r.direction == sign] for sign in "+-")
    against = f"; against it: {_listed(falling, with_error=True)}" if falling else ""
    if _opposed(rising, falling):
        return f"mixed: {_listed(rising, with_error=True)}{against}"
    plain, divided = ([r for r in rising if r.error == error] for error in ERRORS)
    for verdict, shown in (
        ("holds", divided),
        ("holds before contrast is divided out", plain),
    ):
        if shown:
            return f"{verdict}: {_listed(shown, with_error=True)}{against}"
    if falling:
        return f"contradicted: {_listed(falling, with_error=True)}"
    return f"not confirmed: {_listed(known, with_error=True)}"


def _opposed(rising: Sequence[Relation], falling: Sequence[Relation]) -> bool:
    """Whether two different attributes go opposite ways, with whichever error."""
    return any(one.attribute != other.attribute for one in rising for other in falling)


def _listed(relations: Sequence[Relation], with_error: bool = False) -> str:
    return ", ".join(
        f"{words(r.attribute)} {r.rho:+.2f}" + (f" with {NAMES[r.error]}" if with_error else "")
        for r in sorted(relations, key=lambda r: -abs(r.rho))
    )


# The paragraph


def paragraph(relations: Sequence[Relation], regressions: Sequence[Regression]) -> str:
    """What is confirmed, reversed and not, and how much all attributes explain together."""
    if not relations:
        return (
            "Nothing was tested: too few images, or no attribute that varies. Why the worst cases"
            " are worst is not known."
        )
    telling = [relation for relation in relations if relation.telling]
    n = regressions[0].n if regressions else 0
    head = (
        f"Directions were formed on validation and tested on {n:,} test images (Spearman's rho,"
        f" one-sided, Holm over {len(relations)} relations at 5 %)."
    )
    parts = [_of_error(relations, error) for error in ERRORS] if telling else [_nothing(relations)]
    return " ".join([head, *parts, _rest(relations), _together(regressions)]).replace("  ", " ")


def _nothing(relations: Sequence[Relation]) -> str:
    negligible = [r for r in relations if r.verdict == "confirmed"]
    if negligible:
        return f"All that is confirmed is negligible: {_listed(negligible, with_error=True)}."
    return (
        "Nothing is confirmed: no measured attribute goes with the error, and why the worst cases"
        " are worst is not known."
    )


def _of_error(relations: Sequence[Relation], error: str) -> str:
    mine = [relation for relation in relations if relation.error == error and relation.telling]
    if not mine:
        return f"Nothing goes with {NAMES[error]} beyond a negligible rho."
    more, less = ([r for r in mine if r.direction == sign] for sign in "+-")
    sides = [
        f"{verb} with {_listed(side)}" for verb, side in (("rises", more), ("falls", less)) if side
    ]
    strongest = max(mine, key=lambda relation: abs(relation.rho))
    return (
        f"T{NAMES[error][1:]} {' and '.join(sides)}; the strongest,"
        f" {words(strongest.attribute)}, is {strength(strongest.rho)} (95 % interval"
        f" {strongest.low:+.2f} to {strongest.high:+.2f})."
    )


def _rest(relations: Sequence[Relation]) -> str:
    """Null results, and what turned round."""
    kinds = (("Not confirmed", "not confirmed"), ("Reversed on test", "reversed"))
    texts = []
    for title, verdict in kinds:
        for error in ERRORS:
            names = [r.attribute for r in relations if (r.verdict, r.error) == (verdict, error)]
            if names:
                texts.append(f"{title} for {NAMES[error]}: {', '.join(map(words, names))}.")
    return " ".join(texts)


def _together(regressions: Sequence[Regression]) -> str:
    return " ".join(
        f"All attributes together explain {max(found.r_squared, 0):.0%} of the ranks of"
        f" {NAMES[found.error]} (R^2 {found.r_squared:.3f} on test, fitted on validation;"
        f" {found.r_squared_shuffled:.3f} with shuffled errors)."
        for found in regressions
    )
