"""Evidence kept, and the README's numbers made from it.

    python -m pipeline.report keep NAME    keep the run that stands in reports/ (NAME: a preset)
    python -m pipeline.report              write the README's table and picture captions anew

`reports/results/<name>/` holds the metrics files, history and params of a run and a few
pictures, all small, in Git. The README's text between its two markers comes from these files
alone, and a test makes it again and compares.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from pipeline import ROOT, files, findings, runlog
from pipeline.console import command, say
from vae.errors import UserError
from vae.storage import read_json, write_json, write_text

README = ROOT / "README.md"
RESULTS = files.REPORTS / "results"
BEGIN, END = "<!-- results: made by `python -m pipeline.report` -->", "<!-- end of results -->"
HEADLINE = "fashion_mnist"
PICTURES = (
    "reconstructions",
    "samples",
    "temperatures",
    "interpolations_within",
    "interpolations_across",
    "traversals",
    "curves",
)
LARGEST_PICTURE = 300_000


def keep(name: str) -> None:
    """Copy the evidence of the run in reports/ and artifacts/model; a / in the name is a dot."""
    run, folder = files.read_run(), RESULTS / name.replace("/", ".")
    pictures = [
        path for path in (files.GALLERY / f"{name}.png" for name in PICTURES) if path.exists()
    ]
    for path in pictures:
        if path.stat().st_size > LARGEST_PICTURE:
            raise UserError(f"larger than {LARGEST_PICTURE:,} bytes", where=str(path.name))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for stage in ("data", "train", "evaluate"):
        shutil.copy(files.report(stage), folder)
    for path in (files.RUN, files.HISTORY, files.MODEL / "params.yaml"):
        shutil.copy(path, folder)
    for path in pictures:
        shutil.copy(path, folder)
    write_json(folder / "machine.json", circumstances(run["key"]))


def circumstances(key: str) -> dict[str, Any]:
    """Commit, machine and speed of the training, from its log."""
    lines = runlog.read(files.log_of(key))
    starts = [line for line in lines if line["event"] == "start"]
    epochs = [line for line in lines if line["event"] == "epoch"]
    speeds = sorted(line["images_per_second"] for line in epochs)
    return {
        "commit": starts[0]["commit"],
        "platform": starts[0]["platform"],
        "machine": starts[0].get("machine", runlog.UNKNOWN),
        "training_seconds": round(epochs[-1]["time"] - starts[0]["time"]),
        "sessions": len(starts),
        "images_per_second": speeds[len(speeds) // 2],
    }


def section() -> str:
    """The README's text between the markers."""
    names = sorted(path.name for path in RESULTS.iterdir())
    names = [HEADLINE, *[name for name in names if name != HEADLINE]]
    lines = [
        "| preset | latent | parameters | training | bits/dim | ELBO, nats | rate, nats "
        "| MSE | PSNR, dB | SSIM |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *[_row(name) for name in names],
        "",
        _captions(HEADLINE),
    ]
    return "\n\n".join(["\n".join(lines), *findings.chapters(RESULTS)])


def _row(name: str) -> str:
    train, judged, machine = _evidence(name)
    m = judged["metrics"]
    cells = [
        f"`{name.replace('.', '/')}`",
        "x".join(map(str, train["latent_shape"])),
        f"{train['parameters']:,}",
        f"{train['epochs']} epochs, {machine['training_seconds']} s",
        _plus_minus(m, "bits_per_dim", 3),
        _plus_minus(m, "elbo", 1),
        _plus_minus(m, "rate", 2),
        f"{m['mse']:.5f}",
        f"{m['psnr']:.2f}",
        f"{m['ssim']:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _plus_minus(metrics: dict[str, Any], name: str, digits: int) -> str:
    if metrics[name] is None:
        return "none"
    return f"{metrics[name]:.{digits}f} ± {metrics[name + '_se']:.{digits}f}"


def _captions(name: str) -> str:
    train, judged, machine = _evidence(name)
    folder = f"reports/results/{name}"
    resolved = machine["machine"]
    return "\n".join(
        [
            f"All on the test split ({judged['metrics']['images']:,} images), ± one "
            "standard error over images; bits/dim from the exact mass of 8-bit bins and the "
            f"ELBO with beta 1. `{name}` was trained on "
            f"{resolved['threads']} CPU cores in {resolved['precision']}, "
            f"{machine['images_per_second']:,.0f} images/s, beta {train['beta']:g}, sigma "
            f"{train['sigma']:.4f} at the end.",
            "",
            f"![samples]({folder}/samples.png)",
            "",
            f"![reconstructions]({folder}/reconstructions.png)",
            "",
            f"![interpolations]({folder}/interpolations_across.png)",
        ]
    )


def _evidence(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    folder: Path = RESULTS / name
    train, judged, machine = (
        read_json(folder / f"{part}.json") for part in ("train", "evaluate", "machine")
    )
    return train, judged, machine


def rendered(readme: str) -> str:
    """The README with its section made anew; UserError without the two markers."""
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise UserError("the markers of the results are missing", where="README.md")
    return f"{head}{BEGIN}\n{section()}\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.report", description=__doc__)
    parser.add_argument("action", nargs="?", choices=["keep"])
    parser.add_argument("name", nargs="?")
    arguments = parser.parse_args()
    if arguments.action == "keep" and not arguments.name:
        parser.error("name the results")
    if arguments.action == "keep":
        keep(arguments.name)
        say(f"kept the evidence of {arguments.name} in {RESULTS.relative_to(ROOT)}")
    write_text(README, rendered(README.read_text()))


if __name__ == "__main__":
    command(main)
