"""What is wrong with a training: of this project's own run, or of anyone's log.

    python -m pipeline diagnose                                  the run that the files hold
    python -m pipeline diagnose log.txt --dimensions 3072        text: `Epoch 25, Loss: 0.66`
    python -m pipeline diagnose log.csv --map total=L,kl=latent  a table with names of its own

It prints each finding with its numbers, what they mean and what to change in params.yaml, then
what is ruled out, and what could not be judged for lack of which evidence. The units of a log are
unknown: a term may be a sum or a mean, unless --nats says that they are sums, nats an image.
"""

import argparse
import textwrap
from collections.abc import Mapping
from pathlib import Path

from pipeline.commands import training_logs
from pipeline.commands.log_columns import HISTORY_COLUMNS, parse_column_map
from pipeline.commands.training_logs import TrainingLog
from pipeline.runtime import paths
from pipeline.scoring.diagnosis_inputs import shipped_run_inputs
from vae.evaluation.diagnosis.engine import Diagnosis, Finding, apply_rules
from vae.evaluation.diagnosis.inputs import DiagnosisInputs

WIDTH = 99


def inputs_from_log(log: TrainingLog, options: argparse.Namespace) -> DiagnosisInputs:
    """What a log and the command line say."""
    latent = options.latent or log.latent
    return DiagnosisInputs(
        history=log.rows,
        nats=options.nats or _is_own_log(log),
        rate_resolution=log.rate_resolution,
        beta=options.beta,
        beta_end_epoch=options.warm_up,
        latent_shape=None if latent is None else (latent,),
        dimensions=options.dimensions,
        batch_size=options.batch_size,
        clip_norm=options.clip_norm,
        constant_distortion=options.constant_cost,
    )


def _is_own_log(log: TrainingLog) -> bool:
    """Written by this project's training: sums in nats."""
    return "valid_final_objective" in log.columns and log.columns.keys() <= HISTORY_COLUMNS


def format_diagnosis(
    title: str, remarks: list[str], diagnosis: Diagnosis, with_figures: bool
) -> str:
    """One run's diagnosis as text; with `with_figures`, where to look."""
    lines = [title, *_wrap(remarks, "  ")]
    if not {finding.severity for finding in diagnosis.findings} & {"fault", "warning"}:
        lines.append("  nothing wrong is proven")
    for finding in diagnosis.findings:
        lines += _format_finding(finding, with_figures)
    if diagnosis.ruled_out:
        lines += _wrap([f"ruled out: {', '.join(map(_spaced, diagnosis.ruled_out))}"], "  ")
    lines += _wrap(_format_undetermined(diagnosis.not_assessed), "  ")
    return "\n".join(lines)


def _format_finding(finding: Finding, with_figures: bool) -> list[str]:
    numbers = ", ".join(f"{_spaced(name)} {value:.6g}" for name, value in finding.numbers.items())
    texts = [finding.explanation]
    texts += [f"evidence: {numbers}"] if numbers else []
    texts += [f"seen in {finding.evidence}"] if with_figures else []
    texts += [
        f"try {change.key}={change.value}  # {change.reason}"
        for change in finding.suggested_changes
    ]
    return [f"  {finding.severity.upper()}: {finding.title}", *_wrap(texts, "    ")]


def _format_undetermined(undetermined: Mapping[str, str]) -> list[str]:
    """By what is missing, so that one more fact shows what it would decide."""
    by_missing: dict[str, list[str]] = {}
    for name, missing in undetermined.items():
        by_missing.setdefault(missing, []).append(_spaced(name))
    return [
        f"not judged (missing: {what}): {', '.join(names)}" for what, names in by_missing.items()
    ]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _wrap(texts: list[str], indent: str) -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH, indent, f"{indent}  ")
    return [line for text in texts for line in wrapper.wrap(text)]


def diagnose_file(path: Path, options: argparse.Namespace) -> str:
    """Every run in the file."""
    runs = training_logs.read_logs(path, parse_column_map(options.map))
    return "\n\n".join(
        format_diagnosis(
            f"{path.name}, {log.name}",
            _describe_log(log),
            apply_rules(inputs_from_log(log, options)),
            with_figures=False,
        )
        for log in runs
    )


def _describe_log(log: TrainingLog) -> list[str]:
    names = [
        f"{column} = `{file_name}`"
        for column, file_name in log.columns.items()
        if column != file_name
    ]
    texts = [", ".join([f"{len(log.rows)} epochs, to {log.rows[-1]['epoch']}", *names])]
    if missing := training_logs.list_missing_epochs(log):
        texts.append(
            f"epochs {missing} are not in the log: what happens from one epoch to the "
            "next is judged where epochs are consecutive"
        )
    return texts


def diagnose_run() -> str:
    """This project's run."""
    run = paths.read_run()
    title = f"{run['data_set']} {run['params']['model']['network']['name']} {run['key'][:8]}"
    return format_diagnosis(title, [], apply_rules(shipped_run_inputs()), with_figures=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, help="a log; without it, this project's run")
    parser.add_argument("--map", default="", metavar="COLUMN=NAME,...", help="names in the file")
    parser.add_argument("--nats", action="store_true", help="its losses are sums, nats an image")
    parser.add_argument("--dimensions", type=int, help="sub-pixels of an image: 3072 for 3x32x32")
    parser.add_argument("--latent", type=int, help="latent dimensions")
    parser.add_argument("--batch-size", type=int, help="images a step")
    parser.add_argument("--beta", type=float, help="weight of the KL in the end")
    parser.add_argument("--warm-up", type=float, help="epochs until then; 0 = none")
    parser.add_argument("--clip-norm", type=float, help="longest gradient allowed")
    parser.add_argument(
        "--constant-cost", type=float, help="loss of the best constant image, in the log's unit"
    )
    options = parser.parse_args()
    print(diagnose_run() if options.file is None else diagnose_file(options.file, options))
