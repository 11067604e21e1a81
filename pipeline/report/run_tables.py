"""Tables of archived runs, as Markdown: results, report, model card, diagnosis."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipeline.report import study_tables
from pipeline.report.results import HEADLINES, Result, list_results, list_seeds, read_results
from pipeline.report.tables import (
    lines_to_markdown,
    metrics_table,
    records_table,
    seeds_table,
    to_markdown,
)

HEADLINE_METRICS = (
    "latent",
    "parameters",
    "test_bits_per_dim",
    "test_psnr",
    "test_sample_fd",
    "test_reconstruction_fd",
    "test_coverage",
    "feature_extractor",
)
LIKELIHOOD_METRICS = (
    "test_bits_per_dim",
    "test_elbo",
    "test_iwae",
    "test_rate",
    "test_active_units",
    "test_mse",
    "test_psnr",
    "test_ssim",
)
SAMPLE_METRICS = (
    "feature_extractor",
    "test_sample_images",
    "test_sample_fd",
    "test_reconstruction_fd",
    "test_floor_fd",
    "test_prior_gap",
    "test_sample_kd",
    "test_reconstruction_kd",
    "test_floor_kd",
    "test_precision",
    "test_recall",
    "test_density",
    "test_coverage",
    "test_memorisation_ratio",
    "test_marginal_kl_bound",
)
REPORT_METRICS = (*LIKELIHOOD_METRICS[:-1], *SAMPLE_METRICS[:6], "test_coverage")
SEED_METRICS = (
    "test_bits_per_dim",
    "test_psnr",
    "test_reconstruction_fd",
    "test_sample_fd",
    "test_sample_kd",
    "test_coverage",
)
COLLAPSE_METRICS = (
    "test_rate",
    "test_active_units",
    "test_mse",
    "test_psnr",
    "test_sample_fd",
    "test_coverage",
)


# Tables of runs


def headline_runs() -> list[Result]:
    return [run for run in list_results() if run.folder.name in HEADLINES]


def rows_of(runs: Sequence[Result]) -> list[dict[str, Any]]:
    """The rows of `read_results`; metrics that a run lacks are absent."""
    records = read_results(runs).to_dict("records") if runs else []
    return [
        {name: row[name] for name in row if name in _facts(run)}
        for run, row in zip(runs, records, strict=True)
    ]


def _facts(run: Result) -> set[str]:
    return {*run.metrics, "preset", "seed", "latent", "training_seconds", "machine", "commit"}


def compare_runs(select: Callable[[], list[Result]], names: Sequence[str]) -> str:
    """Metrics down, presets across."""
    return to_markdown(metrics_table(rows_of(select()), names), index=True)


def headline() -> str:
    return to_markdown(
        metrics_table(rows_of(headline_runs()), HEADLINE_METRICS, transpose=False), index=True
    )


def scored_runs() -> list[Result]:
    return [run for run in list_results() if "feature_extractor" in run.metrics]


def seeds() -> str:
    groups = [rows_of(list_seeds(run)) for run in list_results()]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return "Not measured."
    return to_markdown(seeds_table(groups, SEED_METRICS), index=True)


def trainings() -> str:
    """Length, cost and origin of every run."""
    columns = {
        "preset": ("preset", "`{}`"),
        "latent": ("latent", "{}"),
        "parameters": ("parameters", "{:,}"),
        "epochs": ("epochs", "{}"),
        "training, s": ("training_seconds", "{:,}"),
        "images/s": ("images_per_second", "{:,.0f}"),
        "machine": ("machine", "{}"),
        "date": ("date", "{:.10}"),
        "commit": ("commit", "{:.12}"),
    }
    runs = list_results()
    rows = [{**run.provenance, **row} for run, row in zip(runs, rows_of(runs), strict=True)]
    return to_markdown(records_table(rows, columns))


def prior_comparison() -> str:
    """The Fréchet distance of samples of each fitted prior; the chosen one in bold."""
    rows = []
    for run in scored_runs():
        chosen, scores = run.metrics["selected_prior"], run.sample_scores()
        cells = {name: f"{score['fd']:,.2f}" for name, score in scores.items()}
        cells |= {chosen: f"**{cells[chosen]}**"} if chosen in cells else {}
        rows.append(
            {"preset": f"`{run.preset}`", "extractor": run.metrics["feature_extractor"], **cells}
        )
    return lines_to_markdown(rows)


def findings() -> str:
    """Faults and warnings of the diagnosis, one line per run."""
    lines = []
    for run in list_results():
        reported = run.reports["diagnosis"].get("findings")
        if reported is not None:
            titles = [item["title"] for item in reported if item["severity"] != "note"]
            lines.append({"preset": f"`{run.preset}`", "findings": ", ".join(titles) or "none"})
    return lines_to_markdown(lines)


def sweep_levels() -> str:
    studies = study_tables.read_studies("search")
    return study_tables.levels_table(next(iter(studies.values()))) if studies else "Not measured."


def collapse_runs() -> list[Result]:
    names = {"cifar10.latent_study.128", "cifar10.latent_study.128_repaired"}
    return [run for run in list_results() if run.folder.name in names]


TABLES: dict[str, Callable[[], str]] = {
    "headline": headline,
    "results_trainings": trainings,
    "results_likelihood": partial(compare_runs, list_results, LIKELIHOOD_METRICS),
    "results_samples": partial(compare_runs, scored_runs, SAMPLE_METRICS),
    "results_seeds": seeds,
    "results_findings": findings,
    "results_searches": study_tables.searches,
    "prior_comparison": prior_comparison,
    "report_results": partial(compare_runs, headline_runs, REPORT_METRICS),
    "model_card_results": partial(
        compare_runs, headline_runs, (*LIKELIHOOD_METRICS, *SAMPLE_METRICS)
    ),
    "reference_collapse": partial(compare_runs, collapse_runs, COLLAPSE_METRICS),
    "reference_families": study_tables.families,
    "reference_claims": study_tables.claims,
    "sweep_levels": sweep_levels,
}
