"""Known failure modes of a training: of this project's run, or of any training log.

    python -m pipeline diagnose                                  the run in this project's files
    python -m pipeline diagnose log.txt --dimensions 3072        text: `Epoch 25, Loss: 0.66`
    python -m pipeline diagnose log.csv --map total=L,kl=latent  a table with other column names

It prints each finding with its evidence, an explanation and suggested changes of params.yaml, then
what is ruled out, and how many failure modes could not be assessed. The units of a log are
unknown, since a term may be a sum or a mean, unless --nats states nats per image.
"""

import argparse
import textwrap
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.commands import training_logs
from pipeline.commands.log_columns import HISTORY_COLUMNS, parse_column_map
from pipeline.commands.training_logs import TrainingLog
from pipeline.runtime import paths
from pipeline.scoring.diagnosis_inputs import finished_run_inputs
from vae.evaluation.diagnosis.engine import Diagnosis, Finding, apply_rules, finding_text
from vae.evaluation.diagnosis.inputs import DiagnosisInputs

WIDTH = 99


def inputs_from_log(log: TrainingLog, options: argparse.Namespace) -> DiagnosisInputs:
    """The inputs that a log and the command line give."""
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
    """Whether this project's training wrote it: its terms are sums in nats."""
    return "valid_final_objective" in log.columns and log.columns.keys() <= HISTORY_COLUMNS


def format_diagnosis(
    title: str, remarks: list[str], diagnosis: Diagnosis, verbose: bool = False
) -> str:
    """One run's diagnosis as text; `verbose` lists what was not assessed."""
    lines = [title, *_wrap(remarks, "  ")]
    if not {finding.severity for finding in diagnosis.findings} & {"fault", "warning"}:
        lines.append("  no fault and no warning")
    for finding in diagnosis.findings:
        lines += _format_finding(finding)
    if diagnosis.ruled_out:
        lines += _wrap([f"ruled out: {', '.join(map(_spaced, diagnosis.ruled_out))}"], "  ")
    return "\n".join([*lines, *_wrap(_format_not_assessed(diagnosis, verbose), "  ")])


def _format_finding(finding: Finding) -> list[str]:
    text = finding_text(asdict(finding))
    changes = [f"try {c.key}={c.value}  # {c.reason}" for c in text.suggested_changes]
    lines = [text.explanation, f"evidence: {text.evidence}", *changes]
    return [f"  {text.severity.upper()}: {text.title}", *_wrap(lines, "    ")]


def _format_not_assessed(diagnosis: Diagnosis, verbose: bool) -> list[str]:
    """One line with the count; `verbose`: the names by the missing input."""
    by_input: dict[str, list[str]] = {}
    for name, missing_input in diagnosis.not_assessed.items():
        by_input.setdefault(missing_input, []).append(_spaced(name))
    if not by_input:
        return []
    if not verbose:
        return [f"not assessed, for lack of input: {len(diagnosis.not_assessed)} (see --verbose)"]
    return [
        f"not assessed (missing: {missing_input}): {', '.join(names)}"
        for missing_input, names in by_input.items()
    ]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _wrap(texts: list[str], indent: str) -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH, indent, f"{indent}  ")
    return [line for text in texts for line in wrapper.wrap(text)]


def diagnose_file(path: Path, options: argparse.Namespace) -> str:
    """The diagnosis of every run in the file."""
    runs = training_logs.read_logs(path, parse_column_map(options.map))
    return "\n\n".join(
        format_diagnosis(
            f"{path.name}, {log.name}",
            _describe_log(log),
            _diagnose_log(path, log, options),
            options.verbose,
        )
        for log in runs
    )


def _diagnose_log(path: Path, log: TrainingLog, options: argparse.Namespace) -> Diagnosis:
    """Its evidence is the log; there are no figures of it."""
    diagnosis = apply_rules(inputs_from_log(log, options))
    findings = [replace(finding, evidence=path.name) for finding in diagnosis.findings]
    return replace(diagnosis, findings=tuple(findings))


def _describe_log(log: TrainingLog) -> list[str]:
    names = [
        f"{column} = `{file_name}`"
        for column, file_name in log.columns.items()
        if column != file_name
    ]
    texts = [", ".join([f"{len(log.rows)} epochs, to {log.rows[-1]['epoch']}", *names])]
    if missing := training_logs.list_missing_epochs(log):
        texts.append(
            f"epochs {missing} are not in the log: changes from one epoch to the next are "
            "assessed only where epochs are consecutive"
        )
    return texts


def diagnose_run(verbose: bool) -> str:
    """The run in this project's files."""
    run = paths.read_run()
    title = f"{run['data_set']} {run['params']['model']['network']['name']} {run['key'][:8]}"
    return format_diagnosis(title, [], apply_rules(finished_run_inputs()), verbose)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, help="a log; default: this project's run")
    parser.add_argument(
        "--map", default="", metavar="COLUMN=NAME,...", help="column names in the file"
    )
    parser.add_argument("--nats", action="store_true", help="its losses are nats per image")
    parser.add_argument("--dimensions", type=int, help="values per image: 3072 for 3x32x32")
    parser.add_argument("--latent", type=int, help="latent dimensions")
    parser.add_argument("--batch-size", type=int, help="images per step")
    parser.add_argument("--beta", type=float, help="final weight of the KL")
    parser.add_argument("--warm-up", type=float, help="epochs until the final weight; 0 = none")
    parser.add_argument("--clip-norm", type=float, help="maximum gradient norm")
    parser.add_argument(
        "--constant-cost",
        type=float,
        help="loss of the best constant image, in the unit of the log",
    )
    parser.add_argument("--verbose", action="store_true", help="list what was not assessed")
    options = parser.parse_args()
    print(
        diagnose_run(options.verbose)
        if options.file is None
        else diagnose_file(options.file, options)
    )
