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

from vae.evaluation.failures.correlations import ERRORS, NEGLIGIBLE_RHO, Correlation, Regression

CLAIMS = (
    ("errors concentrate on contrasting details", ("contrast", "edge_density")),
    ("errors concentrate on lines and stripes", ("periodicity",)),
    ("errors concentrate on lettering and other fine detail", ("high_frequency",)),
    ("rare classes are reconstructed worse", ("class_rarity",)),
)
ERROR_NAMES = {
    "distortion": "the distortion",
    "mse_over_variance": "the MSE over the image's variance",
}
EFFECT_SIZES = ((0.5, "strong"), (0.3, "moderate"), (NEGLIGIBLE_RHO, "weak"), (0.0, "negligible"))


@dataclass(frozen=True)
class Claim:
    """What is claimed, the attributes that would show it, and what the test split says."""

    claim: str
    attributes: tuple[str, ...]
    outcome: str


def readable_name(name: str) -> str:
    """An attribute's name to read."""
    return name.replace("_", " ")


def effect_size(rho: float) -> str:
    """Cohen's word for a correlation."""
    return next(word for minimum, word in EFFECT_SIZES if abs(rho) >= minimum)


def assess_claims(correlations: Sequence[Correlation]) -> list[Claim]:
    """The claims of `CLAIMS`."""
    return [Claim(text, names, _assess(correlations, names)) for text, names in CLAIMS]


def _assess(correlations: Sequence[Correlation], names: Sequence[str]) -> str:
    matching = [correlation for correlation in correlations if correlation.attribute in names]
    if not matching:
        return "not testable: no such attribute varies here"
    substantial = [correlation for correlation in matching if correlation.substantial]
    rising, falling = ([r for r in substantial if r.direction == sign] for sign in "+-")
    against = f"; against it: {_format_correlations(falling, with_error=True)}" if falling else ""
    if _has_opposite_attributes(rising, falling):
        return f"mixed: {_format_correlations(rising, with_error=True)}{against}"
    by_distortion, by_variance = ([r for r in rising if r.error == error] for error in ERRORS)
    for outcome, support in (
        ("holds", by_variance),
        ("holds before contrast is divided out", by_distortion),
    ):
        if support:
            return f"{outcome}: {_format_correlations(support, with_error=True)}{against}"
    if falling:
        return f"contradicted: {_format_correlations(falling, with_error=True)}"
    return f"not confirmed: {_format_correlations(matching, with_error=True)}"


def _has_opposite_attributes(
    rising: Sequence[Correlation], falling: Sequence[Correlation]
) -> bool:
    """Whether two different attributes go opposite ways, with whichever error."""
    return any(one.attribute != other.attribute for one in rising for other in falling)


def _format_correlations(correlations: Sequence[Correlation], with_error: bool = False) -> str:
    return ", ".join(
        f"{readable_name(r.attribute)} {r.rho:+.2f}"
        + (f" with {ERROR_NAMES[r.error]}" if with_error else "")
        for r in sorted(correlations, key=lambda r: -abs(r.rho))
    )


# The paragraph


def paragraph(correlations: Sequence[Correlation], regressions: Sequence[Regression]) -> str:
    """What is confirmed, reversed and not, and how much all attributes explain together."""
    if not correlations:
        return (
            "Nothing was tested: too few images, or no attribute that varies. Why the worst cases"
            " are worst is not known."
        )
    substantial = [correlation for correlation in correlations if correlation.substantial]
    n = regressions[0].n if regressions else 0
    head = (
        f"Directions were formed on validation and tested on {n:,} test images (Spearman's rho,"
        f" one-sided, Holm over {len(correlations)} relations at 5 %)."
    )
    sentences = (
        [_error_sentence(correlations, error) for error in ERRORS]
        if substantial
        else [_null_result(correlations)]
    )
    return " ".join(
        [head, *sentences, _other_outcomes(correlations), _regression_sentences(regressions)]
    ).replace("  ", " ")


def _null_result(correlations: Sequence[Correlation]) -> str:
    negligible = [r for r in correlations if r.outcome == "confirmed"]
    if negligible:
        return f"All that is confirmed is negligible: {_format_correlations(negligible, with_error=True)}."
    return (
        "Nothing is confirmed: no measured attribute goes with the error, and why the worst cases"
        " are worst is not known."
    )


def _error_sentence(correlations: Sequence[Correlation], error: str) -> str:
    substantial = [
        correlation
        for correlation in correlations
        if correlation.error == error and correlation.substantial
    ]
    if not substantial:
        return f"Nothing goes with {ERROR_NAMES[error]} beyond a negligible rho."
    more, less = ([r for r in substantial if r.direction == sign] for sign in "+-")
    sides = [
        f"{verb} with {_format_correlations(side)}"
        for verb, side in (("rises", more), ("falls", less))
        if side
    ]
    strongest = max(substantial, key=lambda correlation: abs(correlation.rho))
    return (
        f"T{ERROR_NAMES[error][1:]} {' and '.join(sides)}; the strongest,"
        f" {readable_name(strongest.attribute)}, is {effect_size(strongest.rho)} (95 % interval"
        f" {strongest.low:+.2f} to {strongest.high:+.2f})."
    )


def _other_outcomes(correlations: Sequence[Correlation]) -> str:
    """Null results, and what turned round."""
    outcomes = (("Not confirmed", "not confirmed"), ("Reversed on test", "reversed"))
    texts = []
    for title, outcome in outcomes:
        for error in ERRORS:
            names = [r.attribute for r in correlations if (r.outcome, r.error) == (outcome, error)]
            if names:
                texts.append(
                    f"{title} for {ERROR_NAMES[error]}: {', '.join(map(readable_name, names))}."
                )
    return " ".join(texts)


def _regression_sentences(regressions: Sequence[Regression]) -> str:
    return " ".join(
        f"All attributes together explain {max(regression.r_squared, 0):.0%} of the ranks of"
        f" {ERROR_NAMES[regression.error]} (R^2 {regression.r_squared:.3f} on test, fitted on validation;"
        f" {regression.r_squared_shuffled:.3f} with shuffled errors)."
        for regression in regressions
    )
