"""Score the trained model on the test split: `python evaluate.py`, or the stage of `dvc repro`.

With --checkpoint it scores any other one, prints the numbers and changes no file.
"""

from pipeline.config import params
from pipeline.runtime.console import run_command


def main() -> None:
    parser = params.argument_parser(__doc__)
    parser.add_argument("--checkpoint", metavar="best|last|epoch:N|PATH")
    arguments = parser.parse_args()
    settings = params.load(arguments.params, arguments.set)
    from pipeline.stages.evaluate.stage import evaluate, evaluate_checkpoint

    if arguments.checkpoint is None:
        evaluate(settings)
    else:
        print(evaluate_checkpoint(settings, arguments.checkpoint))


if __name__ == "__main__":
    run_command(main)
