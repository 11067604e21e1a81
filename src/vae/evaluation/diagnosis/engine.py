"""A run convicts itself: a table of failure modes, each with the rule that proves it.

    evidence (plain numbers) -> rule -> proof -> finding

A finding has a name, a severity, the numbers and the columns or figure that prove it, what they
mean, and changes of params.yaml. A `fault` makes the model useless or its numbers untrue, a
`warning` costs quality, a `note` is to be known and harms nothing.

`diagnose` applies every rule, `diagnose_running` those that hold on what is known so far: each
has a number of epochs below which a training may still be finding its way. `judge` also says
which modes are ruled out, and which could not be judged for lack of what: silence is no verdict.

What is *not* an entry: a KL that rises while the distortion falls, early in training or after
annealing. There the model buys detail with rate, as it should.

Thresholds are constants of the rules, each with its reason; none was fitted to a test.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vae.evaluation.diagnosis.inputs import Evidence, Missing, Remedy, Rule, Severity
from vae.evaluation.diagnosis.rules import beta_and_sigma, collapse, generalisation, optimisation

CURVES = "reports/figures/train/curves.png"
RATES = "reports/figures/evaluate/rates.png"
SAMPLES = "sheet of samples"


@dataclass(frozen=True)
class Entry:
    """A failure mode. `running`: epochs from which a training may be warned of it; None: never."""

    rule: Rule
    title: str
    severity: Severity
    shown_by: str
    running: int | None = None

    @property
    def name(self) -> str:
        return self.rule.__name__


@dataclass(frozen=True)
class Finding:
    """A proven entry."""

    name: str
    title: str
    severity: Severity
    numbers: Mapping[str, float]
    shown_by: str
    hypothesis: str
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True)
class Diagnosis:
    """Findings, the worst first; names ruled out; names that lack evidence, and which."""

    findings: tuple[Finding, ...]
    cleared: tuple[str, ...]
    unjudged: Mapping[str, str]


def judge(evidence: Evidence) -> Diagnosis:
    """Every entry: found, ruled out, or not to be judged."""
    return _judge(evidence, ENTRIES)


def diagnose(evidence: Evidence) -> list[Finding]:
    """The findings of all entries, each at most once, the worst first."""
    return list(judge(evidence).findings)


def explain(evidence: Evidence) -> Mapping[str, str]:
    """Entries that could not be judged, with what is missing."""
    return judge(evidence).unjudged


def diagnose_running(evidence: Evidence, known: Collection[str] = ()) -> list[Finding]:
    """Findings of a training under way, without the `known` ones, so that none is told twice."""
    epochs = len(evidence.history)
    due = [
        entry
        for entry in ENTRIES
        if entry.running is not None and epochs >= entry.running and entry.name not in known
    ]
    return list(_judge(evidence, due).findings)


def _judge(evidence: Evidence, entries: Iterable[Entry]) -> Diagnosis:
    findings, cleared, unjudged = [], [], {}
    for entry in entries:
        try:
            proof = entry.rule(evidence)
        except Missing as missing:
            unjudged[entry.name] = str(missing)
            continue
        if proof is None:
            cleared.append(entry.name)
            continue
        findings.append(
            Finding(
                name=entry.name,
                title=entry.title,
                severity=proof.severity or entry.severity,
                numbers=proof.numbers,
                shown_by=entry.shown_by,
                hypothesis=proof.hypothesis,
                remedies=tuple(proof.remedies),
            )
        )
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(tuple(findings), tuple(cleared), unjudged)


SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "note")
ENTRIES = (
    Entry(
        optimisation.not_a_number,
        "NaN or infinity",
        "fault",
        f"{CURVES}: where the curves end",
        running=0,
    ),
    Entry(
        collapse.posterior_collapse,
        "posterior collapse",
        "fault",
        f"{CURVES}: rate, active units; mu_mean and log_var_mean at 0",
        running=3,
    ),
    Entry(
        collapse.partial_collapse,
        "posterior collapse of some units",
        "fault",
        f"{RATES}: rate of each dimension against the spectrum",
    ),
    Entry(
        collapse.constant_reconstruction,
        "reconstructions no better than the best constant image",
        "fault",
        f"{CURVES}: distortion against the line of the constant",
        running=5,
    ),
    Entry(
        collapse.worse_than_constant,
        "worse than the best constant image with no rate",
        "fault",
        f"{CURVES}: objective against the line of the constant",
    ),
    Entry(
        collapse.decoder_ignores_z,
        "decoder ignores z",
        "fault",
        "psnr against shuffled_psnr; reconstructions beside their originals",
    ),
    Entry(
        beta_and_sigma.effective_beta,
        "effective beta in the hundreds: a mean against a sum",
        "fault",
        f"{CURVES}: rate near 0; reports/train.json: implied_sigma2_at_beta_1",
        running=1,
    ),
    Entry(
        beta_and_sigma.over_regularised,
        "over-regularised: blur",
        "fault",
        f"{RATES}: total rate against the spectrum's; ELBO against pPCA's",
    ),
    Entry(
        generalisation.under_regularised,
        "under-regularised: good reconstructions, bad samples",
        "fault",
        f"{SAMPLES} beside that of reconstructions; their distances",
    ),
    Entry(
        optimisation.kl_instability,
        "KL blow-up or spikes",
        "warning",
        f"{CURVES}: rate and objective",
        running=3,
    ),
    Entry(
        optimisation.learning_rate_too_high,
        "learning rate too high",
        "fault",
        f"{CURVES}: training objective rises again",
        running=6,
    ),
    Entry(
        optimisation.learning_rate_too_low,
        "learning rate too low",
        "warning",
        f"{CURVES}: training objective is a straight line",
    ),
    Entry(
        optimisation.under_trained,
        "under-trained: still falling",
        "warning",
        f"{CURVES}: objective in the last quarter",
    ),
    Entry(
        optimisation.fluctuation,
        "loss fluctuates beyond chance",
        "warning",
        f"{CURVES}: objective from epoch to epoch",
        running=12,
    ),
    Entry(
        optimisation.clipping_saturated,
        "nearly every step is clipped",
        "note",
        "history.csv: train_clipped_share, train_grad_norm",
    ),
    Entry(
        optimisation.clipping_inert,
        "clipping never acts",
        "note",
        "history.csv: train_clipped_share, train_grad_norm",
    ),
    Entry(
        optimisation.updates_skipped,
        "updates are left out in numbers",
        "warning",
        "history.csv: train_skipped, train_grad_norm",
        running=1,
    ),
    Entry(
        generalisation.false_minimum,
        "best epoch chosen while beta was rising",
        "fault",
        f"{CURVES}: valid_objective against valid_final_objective",
    ),
    Entry(
        generalisation.overfitting,
        "overfitting",
        "warning",
        f"{CURVES}: validation rises while training falls",
        running=5,
    ),
    Entry(
        beta_and_sigma.saturated_log_variance,
        "log-variance at an end of its range",
        "warning",
        "history.csv: valid_log_var_mean",
        running=3,
    ),
    Entry(
        generalisation.samples_alike,
        "samples are all alike",
        "fault",
        f"{SAMPLES}; sample_diversity, precision, coverage",
    ),
    Entry(
        generalisation.class_imbalance,
        "classes of samples out of balance",
        "warning",
        "class histogram of samples against the data",
    ),
    Entry(
        generalisation.memorisation,
        "samples are training images",
        "fault",
        f"{SAMPLES} beside their nearest training images",
    ),
    Entry(
        beta_and_sigma.unused_latents,
        "latent space larger than used",
        "note",
        f"{RATES}: dimensions at 0",
    ),
    Entry(
        beta_and_sigma.wide_sigma,
        "sigma far above the error",
        "note",
        "reports/train.json: sigma; reports/evaluate.json: mse",
    ),
    Entry(
        generalisation.totals_do_not_add_up,
        "total is not reconstruction + beta KL",
        "note",
        "the log's own columns",
    ),
)
