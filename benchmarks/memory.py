"""Memory of a training as the data grow: `python -m benchmarks.memory`.

A separate process per measurement trains some steps of a preset on random bytes in a file, held in
memory (`train.data_location: device`) or memory-mapped (`disk`), with one size and ten times that:

    peak        maximum resident memory, with mapped pages of the file
    own         resident memory of the process alone at the end, without pages of mapped files

Writes `memory.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import windows
from pipeline.config.preset import load_preset
from pipeline.runtime.console import info, run_command
from pipeline.runtime.paths import ROOT
from vae.errors import UserError
from vae.io import write_json
from vae.rng import numpy_generator

PRESET, SHAPE = "fashion_mnist", (1, 28, 28)
COUNTS = (55_000, 550_000)
STEPS = 40
MIB = 2**20
MODULE = "benchmarks.memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=windows.result_path("memory"))
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train_and_measure(Path(arguments.train[0]), arguments.train[1])))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        for count in COUNTS:
            path = Path(folder, f"{count}.npy")
            pixels = numpy_generator(0, "benchmark").integers(0, 256, (count, *SHAPE), np.uint8)
            np.save(path, pixels)
            for data_location in ("device", "disk"):
                row: dict[str, Any] = {
                    "images": count,
                    "data_location": data_location,
                    "data_mib": pixels.nbytes / MIB,
                }
                rows.append(row | measure_in_process(path, data_location))
                info(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
    write_json(
        arguments.out, {"machine": windows.describe_machine(), "preset": PRESET, "rows": rows}
    )
    info(f"written: {arguments.out}")


def measure_in_process(path: Path, data_location: str) -> dict[str, float]:
    """MiB of a training in a new process."""
    command_line = [sys.executable, "-m", MODULE, "--train", str(path), data_location]
    process = subprocess.run(
        command_line, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if process.returncode:
        raise UserError("a training failed; it said why above", where=data_location)
    sizes: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return sizes


def train_and_measure(path: Path, data_location: Any) -> dict[str, float]:
    """Train some steps; MiB of this process."""
    from pipeline.factory.training import ImageSpec, set_up_training
    from vae.data.batches import Images
    from vae.training.loop import fit

    params = load_preset(PRESET)
    training = set_up_training(params, ImageSpec(SHAPE))
    machine = training.machine
    images = Images.open(path, machine.device, data_location)
    small = Images(np.asarray(images.array[:256]), machine.device)
    for number, _ in enumerate(fit(training.state, training.plan, images, small, machine), 1):
        if number == STEPS:
            break
    status = Path("/proc/self/status").read_text().splitlines()
    memory_by_name = {
        line.split(":")[0]: int(line.split()[1]) / 1024 for line in status if " kB" in line
    }
    return {
        "peak_mib": round(memory_by_name["VmHWM"], 1),
        "own_mib": round(memory_by_name["RssAnon"], 1),
    }


if __name__ == "__main__":
    run_command(main)
