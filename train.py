"""Train the model of params.yaml: `python train.py`, or the stage `train` of `dvc repro`.

A killed training goes on from its last whole epoch when the same command runs again.
"""

from pipeline.config import params
from pipeline.runtime.console import run_command


def main() -> None:
    parser = params.argument_parser(__doc__)
    parser.add_argument(
        "--describe", action="store_true", help="print the layers, shapes and parameter counts"
    )
    arguments = parser.parse_args()
    settings = params.load(arguments.params, arguments.set)
    if arguments.describe:
        from pipeline.factory.model_summary import summarise_model

        print(summarise_model(settings))
        return
    from pipeline.stages.train.stage import train

    train(settings)


if __name__ == "__main__":
    run_command(main)
