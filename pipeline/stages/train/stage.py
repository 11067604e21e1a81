"""The train stage: lock, resume, train, and write the results.

A training has a key (`pipeline.factory.run_key`). Its state is in `artifacts/resume/<key>`, which
DVC does not track and which one training at a time may use. A killed training continues after its
last complete epoch. MLflow receives an epoch only after its checkpoint is safe.

Under torchrun the processes share every batch (`vae.training.distributed`). Rank 0 alone writes
files, prints and reports to MLflow; the other ranks end before it writes the outputs.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import render
from pipeline.config.schema import Params
from pipeline.factory.build import build_machine
from pipeline.factory.run_key import TRAINING_SECTIONS, describe_run
from pipeline.factory.training import Training, constant_image_distortion, set_up_training
from pipeline.runtime import distributed, paths, run_log
from pipeline.runtime.console import Terminated, info, show_bar
from pipeline.scoring import training_sheets
from pipeline.stages.train.resume import hold_training_lock, prune_runs, restore_latest
from pipeline.stages.train.warnings import TrainingWarnings
from pipeline.tracking import mlflow_sync, records
from vae import device as machines
from vae.data.batches import Images
from vae.errors import RankError, UserError
from vae.figures.charts import training_curves
from vae.figures.png import write_png
from vae.io import tensor_bytes, write_bytes, write_csv, write_json, write_text
from vae.training import checkpoints
from vae.training.distributed import World, process_group, synchronise_statistics
from vae.training.loop import EpochReport, fit
from vae.training.validation import calibrate

OUT_OF_MEMORY = "out of memory"
MEMORY_REMEDY = "lower train.batch_size, model.network.widths, or set train.data_location: disk"


@dataclass
class TrainingSetup(Training):
    """A training in each of its processes; `run` is the content of run.json."""

    run: dict[str, Any]
    world: World

    @property
    def folder(self) -> Path:
        """The folder of its checkpoints."""
        return paths.RESUME / str(self.run["key"])

    def splits(self) -> tuple[Images, Images]:
        """Training and validation images."""
        return self.open_images("train"), self.open_images("valid")


@dataclass
class Session(TrainingSetup):
    """A training in rank 0."""

    train: Images
    valid: Images
    tracker: mlflow_sync.Tracker
    constant_distortion: float | None

    def log(self, event: str, **fields: Any) -> None:
        """Add a line to the run's log."""
        run_log.append_event(paths.run_log_path(self.run["key"]), event, **fields)

    def sync(self, status: str) -> None:
        """Send the history and the sheets to MLflow."""
        experiment, history = self.params.tracking.experiment, self.state.history
        record = records.train_record(self.run, history, status, experiment, self.folder)
        self.tracker.sync(record)

    def end(self, status: str) -> None:
        """Log the end of the run and send it to MLflow."""
        self.log("end", status=status)
        self.sync(status)


def train(params: Params) -> None:
    """Train, resume, or only write the outputs of a finished training."""
    run, rank_info = describe_run(params), distributed.current_rank()
    # Before the folder is created: a refused model leaves nothing there.
    training = set_up_training(params, machine=build_machine(params.train, rank_info))
    world = World(rank_info.rank, rank_info.size)
    synchronise_statistics(training.state.model, world, training.machine.device)
    train_rank = train_rank_zero if world.rank == 0 else train_other_rank
    with process_group(world, training.machine.device), explain_sigterm(world):
        train_rank(TrainingSetup(**vars(training), run=run, world=world))


def train_rank_zero(setup: TrainingSetup) -> None:
    """Rank 0: train, and write all outputs."""
    key = setup.run["key"]
    with ExitStack() as stack:
        stack.enter_context(hold_training_lock(setup.folder, setup.world))
        run_log.append_start(paths.run_log_path(key), "train", setup.machine.as_dict())
        session = open_session(setup)
        stack.enter_context(record_exit(session))
        resume(session)
        run_epochs(session)
        write_outputs(session)
    prune_runs(setup.params.checkpoints.keep_runs, keep=key)


def train_other_rank(setup: TrainingSetup) -> None:
    """Another rank: take part in every step, and write nothing."""
    try:
        restore_latest(setup.folder, setup.state, setup.machine, setup.world)
        for _ in fit(setup.state, setup.plan, *setup.splits(), setup.machine, setup.world):
            pass
    except Exception as error:
        if machines.is_out_of_memory(error):
            raise RankError(OUT_OF_MEMORY, where="train", remedy=MEMORY_REMEDY) from error
        raise


@contextmanager
def explain_sigterm(world: World) -> Iterator[None]:
    """Explain why several processes end at the same time."""
    try:
        yield
    except Terminated:
        if world.size > 1:
            info(
                f"rank {world.rank}: error: train: ended by SIGTERM, as torchrun does to all when "
                "one is gone -> run the same command again: it goes on after the last epoch"
            )
        raise


def open_session(setup: TrainingSetup) -> Session:
    """Open data and tracker, and write run.json, before any step."""
    params, (train_images, valid_images) = setup.params, setup.splits()
    write_json(setup.folder / "run.json", setup.run)
    return Session(
        **vars(setup),
        train=train_images,
        valid=valid_images,
        tracker=mlflow_sync.connect(params.tracking.uri, params.tracking.enabled),
        constant_distortion=constant_image_distortion(setup.state, train_images, setup.plan),
    )


@contextmanager
def record_exit(session: Session) -> Iterator[None]:
    """Set the run's status in MLflow: FAILED, KILLED, or the one that `write_outputs` has set."""
    try:
        yield
    except Exception as error:
        session.end("FAILED")
        if machines.is_out_of_memory(error):
            raise UserError(OUT_OF_MEMORY, where="train", remedy=MEMORY_REMEDY) from error
        raise
    except (KeyboardInterrupt, Terminated):
        session.end("KILLED")
        raise
    finally:
        session.tracker.close()


def resume(session: Session) -> None:
    """Restore the newest checkpoint, if there is one."""
    if not restore_latest(session.folder, session.state, session.machine, session.world):
        return
    session.sync("RUNNING")
    if session.state.epoch < session.plan.epochs:
        info(f"going on after epoch {session.state.epoch} of {session.plan.epochs}")


def run_epochs(session: Session) -> None:
    """Train the remaining epochs; after each: checkpoint, sheets, a line, MLflow, warnings."""
    steps = session.train.steps(session.plan.batch_size)
    done, total = session.state.epoch * steps, session.plan.epochs * steps
    if done == total:
        return
    watch = TrainingWarnings(session.run, session.constant_distortion)
    splits = session.train, session.valid
    with show_bar(total, "train", initial=done) as advance:
        for report in fit(session.state, session.plan, *splits, session.machine, session.world):
            if isinstance(report, EpochReport):
                save_epoch(session, report)
                info(epoch_line(session, report))
                watch.check(session.state.history)
            else:
                advance()


def save_epoch(session: Session, report: EpochReport) -> None:
    """Write sheets and checkpoint, then inform MLflow."""
    params, epoch = session.params, session.state.epoch
    if epoch % params.train.sheet_every == 0 or epoch == session.plan.epochs:
        training_sheets.write_sheets(
            session.state.ema.model,
            session.valid,
            session.machine,
            seed=session.plan.seed,
            epoch=epoch,
            name=session.run["data_set"],
            folder=session.folder,
        )
    metadata = weights_metadata(session) | {"machine": session.machine.as_dict()}
    checkpoints.save(session.folder, session.state, metadata, params.checkpoints.keep_every)
    session.log("epoch", epoch=epoch, images_per_second=round(report.images_per_second, 1))
    session.sync("RUNNING")


def weights_metadata(session: Session) -> dict[str, Any]:
    """Metadata of a weights file, sufficient to build its model."""
    run = session.run
    facts = {name: run[name] for name in ("image", "levels", "data_set")}
    return {"key": run["key"], "model": run["params"]["model"], **facts}


def epoch_line(session: Session, report: EpochReport) -> str:
    """An epoch in one line."""
    row = report.metrics
    bits = row["valid_bits_per_dim"]
    return (
        f"epoch {row['epoch']:>3}/{session.plan.epochs}  "
        f"objective {row['train_objective']:.2f} / {row['valid_objective']:.2f}  "
        f"distortion {row['valid_distortion']:.2f}  rate {row['valid_rate']:.2f} nats  "
        + (f"{bits:.3f} bits/dim  " if bits is not None else "")
        + f"active {row['valid_active_units']}  "
        + (f"skipped {row['train_skipped_steps']}  " if row["train_skipped_steps"] else "")
        + f"{report.images_per_second:,.0f} images/s"
    )


def write_outputs(session: Session) -> None:
    """Write artifacts/model, reports/train.json and the figures from the finished state."""
    figures, history = paths.FIGURES / "train", session.state.history
    for folder in (paths.MODEL, figures):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    write_best_and_last(session)
    write_json(paths.RUN, session.run)
    write_text(paths.MODEL / "params.yaml", render(session.params, *TRAINING_SECTIONS))
    write_csv(paths.HISTORY, history)
    write_json(paths.report_path("train"), train_report(session))
    for sheet in session.folder.glob("*.png"):
        shutil.copy(sheet, figures)
    write_png(training_curves(history, session.constant_distortion), figures / "curves.png")
    session.end("FINISHED")


def write_best_and_last(session: Session) -> None:
    """Write the weights of the last and of the best epoch; the model then has the best."""
    state = session.state
    write_weights(session, state.epoch, paths.LAST)
    best = checkpoints.find_best(session.folder, state)
    if best.epoch != state.epoch:
        state.ema.model.load_state_dict(checkpoints.read_weights(best)[0])
    write_weights(session, best.epoch, paths.BEST)


def write_weights(session: Session, epoch: int, path: Path) -> None:
    """Write the model's weights, with its sigma calibrated on the whole training split."""
    model, plan = session.state.ema.model, session.plan
    batch_size = max(256, plan.batch_size)
    calibrate(model, session.train, session.machine, seed=plan.seed, batch_size=batch_size)
    metadata = weights_metadata(session) | {"epoch": epoch}
    write_bytes(path, tensor_bytes(model.state_dict(), metadata))


def train_report(session: Session) -> dict[str, Any]:
    """reports/train.json: facts of the run and the best epoch's row."""
    state, model = session.state, session.state.ema.model
    row = state.history[state.best - 1]
    return {
        "key": session.run["key"],
        "data_set": session.run["data_set"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "latent_shape": list(model.latent_shape),
        "beta": session.plan.beta,
        "constant_distortion": session.constant_distortion,
        "sigma": model.likelihood.sigma(),
        "implied_sigma2_at_beta_1": model.likelihood.implied_variance(session.plan.beta),
        "epochs": state.epoch,
        "best_epoch": state.best,
        "best": {name: value for name, value in row.items() if name.startswith("valid_")},
    }
