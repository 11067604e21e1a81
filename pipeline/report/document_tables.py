"""Tables of the report, the model card and the page on the diagnosis, as Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.report.results import Result, list_results
from pipeline.report.run_tables import headline_runs, rows_of
from pipeline.report.tables import format_value, lines_to_markdown, records_table, to_markdown
from pipeline.runtime import paths
from vae.io import read_json

# Issue, run that has it, run without it, metrics that show the difference.
ISSUES = (
    (
        "posterior collapse",
        "cifar10/latent_study/128",
        "cifar10/latent_study/128_repaired",
        ("test_rate", "test_active_units", "test_mse"),
    ),
    (
        "blur from a large sigma",
        "fashion_mnist/textbook",
        "fashion_mnist",
        ("test_bits_per_dim", "test_mse", "test_sample_fd"),
    ),
    (
        "blur from a large sigma",
        "celeba/textbook",
        "celeba",
        ("test_sample_kd", "test_coverage", "test_sample_diversity"),
    ),
)


def report_data() -> str:
    columns: dict[str, dict[str, str]] = {}
    for run in headline_runs():
        counts, spec = run.reports["data"]["counts"], run.reports["spec"]
        preparation = spec.get("preprocessing") or {}
        columns[f"`{run.preset}`"] = {
            "training, validation, test": ", ".join(
                f"{counts[split]:,}" for split in ("train", "valid", "test")
            ),
            "shape": " x ".join(map(str, run.provenance["data"]["image"])),
            "preparation": "; ".join(
                f"{name} {value}" for name, value in preparation.items() if value
            ),
            "licence": run.data_text("licence"),
        }
    return _columns_table(columns)


def report_architecture() -> str:
    columns: dict[str, dict[str, str]] = {}
    for run in headline_runs():
        model, train = run.provenance["params"]["model"], run.provenance["params"]["train"]
        network, components = model["network"], run.reports["train"]["parameters_by_component"]
        columns[f"`{run.preset}`"] = {
            "network": f"{network['name']}, widths {', '.join(map(str, network['widths']))}",
            "latent": f"{model['latent']['kind']}, {rows_of([run])[0]['latent']}",
            "likelihood": _describe(model["likelihood"]),
            "parameters": "; ".join(
                f"{name} {count:,}" for name, count in components.items() if count
            ),
            "optimiser": f"{train['optimiser']['name']}, lr {train['optimiser']['lr']:g}",
            "training": f"{train['epochs']} epochs, batch {train['batch_size']}, "
            f"{run.provenance['training_seconds'] / 60:.0f} min, {run.machine}",
            "prior": str(run.metrics.get("selected_prior", "none")),
        }
    return _columns_table(columns)


def _describe(section: Mapping[str, Any]) -> str:
    options = (f"{name} {value}" for name, value in section.items() if name != "name")
    return ", ".join([section["name"], *options])


def _columns_table(columns: Mapping[str, Mapping[str, str]]) -> str:
    from pandas import DataFrame

    return to_markdown(DataFrame(columns), index=True)


def report_rate_distortion() -> str:
    """What the curve over beta spans."""
    path = paths.RESULTS / "rate_distortion" / "points.json"
    if not path.is_file():
        return "Not measured."
    curve = read_json(path)
    columns = {
        "beta": ("beta", "{:g}"),
        "rate, nats": ("rate", "{:.1f}"),
        "distortion, nats": ("distortion", "{:.1f}"),
        "MSE": ("mse", "{:.4f}"),
        "bits/dim": ("bits_per_dim", "{:.3f}"),
    }
    table = to_markdown(records_table(curve["points"], columns))
    return f"`{curve['preset']}`, {curve['epochs']} epochs per point, validation:\n\n{table}"


def report_issues() -> str:
    """Each issue with the numbers of a run that has it and of one without it."""
    rows = {row["preset"]: row for row in rows_of(list_results())}
    lines = [
        {"issue": issue, "before": _numbers(rows[one], names), "after": _numbers(rows[two], names)}
        for issue, one, two, names in ISSUES
        if one in rows and two in rows
    ]
    lines += [line for run in headline_runs() if (line := _prior_issue(run))]
    return lines_to_markdown(lines)


def _numbers(row: Mapping[str, Any], names: Sequence[str]) -> str:
    values = (
        f"{name.removeprefix('test_').replace('_', ' ')} {format_value(row, name, error=False)}"
        for name in names
    )
    return f"`{row['preset']}`: {', '.join(values)}"


def _prior_issue(run: Result) -> dict[str, str] | None:
    scores, chosen = run.sample_scores(), run.metrics.get("selected_prior")
    if chosen in (None, "standard") or not {"standard", chosen} <= scores.keys():
        return None
    return {
        "issue": "holes of N(0, I)",
        "before": f"`{run.preset}`, samples of N(0, I): sample fd {scores['standard']['fd']:.2f}",
        "after": f"`{run.preset}`, prior `{chosen}`: sample fd {scores[chosen]['fd']:.2f}",
    }


def model_card_data() -> str:
    return "\n".join(
        f"- `{run.preset}`: {run.data_text('title')}; {run.data_text('citation')}."
        for run in headline_runs()
    )


def model_card_failures() -> str:
    lines = [
        f"- Worst images of `{run.preset}`: {run.reports['failures']['text']}"
        for run in headline_runs()
        if run.reports["failures"]
    ]
    return "\n".join(lines) or "Not measured."


def model_card_weights() -> str:
    names = [run.folder.name for run in list_results()]
    links = [
        f'[`vae.load("{name}")`](src/vae/pretrained/{name})'
        for name in names
        if (paths.PRETRAINED / name).is_dir()
    ]
    return f"Weights: {', '.join(links)}." if links else "`dvc repro` makes the weights."


def diagnosis_rates() -> str:
    proof = read_json(paths.report_path("prove"))["diagnosis"]
    rows = [
        {"trainings": "failures detected", "correct": proof["sensitivity"]["found"]}
        | proof["sensitivity"],
        {
            "trainings": "healthy, without fault or warning",
            "correct": proof["specificity"]["clean"],
        }
        | proof["specificity"],
    ]
    columns = {
        "trainings": ("trainings", "{}"),
        "correct": ("correct", "{}"),
        "of": ("of", "{}"),
        "95 % from": ("low", "{:.0%}"),
        "to": ("high", "{:.0%}"),
    }
    return to_markdown(records_table(rows, columns))


def diagnosis_cases() -> str:
    failures = read_json(paths.report_path("prove"))["diagnosis"]["failures"]
    lines = [
        {
            "failure": name,
            "must fire": _rules(case["expected"]),
            "fired": _rules(case["found"]),
            "healthy twin": _rules(case["control_found"]) or "none",
        }
        for name, case in failures.items()
    ]
    return lines_to_markdown(lines)


def _rules(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


TABLES: dict[str, Callable[[], str]] = {
    "report_data": report_data,
    "report_architecture": report_architecture,
    "report_rate_distortion": report_rate_distortion,
    "report_issues": report_issues,
    "model_card_data": model_card_data,
    "model_card_failures": model_card_failures,
    "model_card_weights": model_card_weights,
    "diagnosis_rates": diagnosis_rates,
    "diagnosis_cases": diagnosis_cases,
}
