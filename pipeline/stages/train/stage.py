"""The train stage: lock, resume, fit, keep, show, ship.

A training is named by its key (`pipeline.factory.run_key`). Its state lies in
`artifacts/resume/<key>`, which DVC neither knows nor deletes, and which one training at a time
may use. Killed at any moment it goes on from the last whole epoch. Nothing reaches the tracker
before its file is safe.

Started by torchrun, its processes share every batch (`vae.training.distributed`). The first one
leads: it alone writes, shows and tracks. The others follow, and leave before it ships.
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
from pipeline.tracking.run_record import RunRecord
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
    """A training as each of its processes has it; `run` is the content of run.json."""

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
    """A running training, as rank 0 has it."""

    train: Images
    valid: Images
    tracker: mlflow_sync.Tracker
    constant_distortion: float | None


def train(params: Params) -> None:
    """Train, resume, or only write the outputs of a finished training."""
    run, rank_info = describe_run(params), distributed.current_rank()
    # Before the folder is made: a model that is refused leaves nothing behind.
    training = set_up_training(params, machine=build_machine(params.train, rank_info))
    world = World(rank_info.rank, rank_info.size)
    synchronise_statistics(training.state.model, world, training.machine.device)
    train_rank = train_rank_zero if world.rank == 0 else train_other_rank
    with process_group(world, training.machine.device), explain_sigterm(world):
        train_rank(TrainingSetup(**vars(training), run=run, world=world))


def train_rank_zero(setup: TrainingSetup) -> None:
    """The first process: train, and keep, show and ship what comes out."""
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
    """Another process: take part in every step, and leave no trace."""
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
    """Say why several processes end at once."""
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
    """Data and tracker around a state and its plan, before any step."""
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
    """Mark the row by how the work ends: FAILED, KILLED, or as `write_outputs` left it."""
    try:
        yield
    except Exception as error:
        record_status(session, "FAILED")
        if machines.is_out_of_memory(error):
            raise UserError(OUT_OF_MEMORY, where="train", remedy=MEMORY_REMEDY) from error
        raise
    except (KeyboardInterrupt, Terminated):
        record_status(session, "KILLED")
        raise
    finally:
        session.tracker.close()


def record_status(session: Session, status: str) -> None:
    run_log.append_event(paths.run_log_path(session.run["key"]), "end", status=status)
    session.tracker.sync(current_record(session, status))


def resume(session: Session) -> None:
    """Restore the state where the training stood, if it stood anywhere."""
    if not restore_latest(session.folder, session.state, session.machine, session.world):
        return
    session.tracker.sync(current_record(session, "RUNNING"))
    if session.state.epoch < session.plan.epochs:
        info(f"going on after epoch {session.state.epoch} of {session.plan.epochs}")


def run_epochs(session: Session) -> None:
    """Train the epochs that are left; after each: checkpoint, pictures, line, tracker."""
    steps = session.train.steps(session.plan.batch_size)
    done, total = session.state.epoch * steps, session.plan.epochs * steps
    if done == total:
        return
    watch = TrainingWarnings(session.run, session.constant_distortion)
    with show_bar(total, "train", initial=done) as advance:
        splits = session.train, session.valid
        reports = fit(session.state, session.plan, *splits, session.machine, session.world)
        for report in reports:
            if isinstance(report, EpochReport):
                save_epoch(session, report)
                info(epoch_line(session, report))
                watch.check(session.state.history)
            else:
                advance()


def save_epoch(session: Session, report: EpochReport) -> None:
    """Make an epoch safe, then tell the tracker."""
    metadata = weights_metadata(session) | {"machine": session.machine.as_dict()}
    if is_sheet_epoch(session):
        training_sheets.write_sheets(
            session.state.ema.model,
            session.valid,
            session.machine,
            seed=session.plan.seed,
            epoch=session.state.epoch,
            name=session.run["data_set"],
            folder=session.folder,
        )
    checkpoints.save(
        session.folder, session.state, metadata, session.params.checkpoints.keep_every
    )
    run_log.append_event(
        paths.run_log_path(session.run["key"]),
        "epoch",
        epoch=session.state.epoch,
        images_per_second=round(report.images_per_second, 1),
    )
    session.tracker.sync(current_record(session, "RUNNING"))


def weights_metadata(session: Session) -> dict[str, Any]:
    """What a weights file says of itself: enough to build its model anywhere."""
    run = session.run
    return {
        "key": run["key"],
        "model": run["params"]["model"],
        "image": run["image"],
        "levels": run["levels"],
        "data_set": run["data_set"],
    }


def is_sheet_epoch(session: Session) -> bool:
    every, epoch = session.params.train.sheet_every, session.state.epoch
    return epoch % every == 0 or epoch == session.plan.epochs


def current_record(session: Session, status: str) -> RunRecord:
    return records.train_record(
        session.run,
        session.state.history,
        status,
        session.params.tracking.experiment,
        pictures=session.folder,
    )


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
    """Write artifacts/model, reports/train.json and the figures from the finished state.

    The shipped weights' own sigma is calibrated on the whole training split.
    """
    shutil.rmtree(paths.MODEL, ignore_errors=True)
    shutil.rmtree(paths.FIGURES / "train", ignore_errors=True)
    write_best_and_last(session)
    write_json(paths.RUN, session.run)
    write_text(paths.MODEL / "params.yaml", render(session.params, *TRAINING_SECTIONS))
    write_csv(paths.HISTORY, session.state.history)
    report = train_report(session)
    write_json(paths.report_path("train"), report)
    training_sheets.draw_epochs(session.folder, paths.FIGURES / "train")
    curves = training_curves(session.state.history, report["constant_distortion"])
    write_png(curves, paths.FIGURES / "train" / "curves.png")
    record_status(session, "FINISHED")


def write_best_and_last(session: Session) -> None:
    """Write the last and the best epoch's weights, calibrated; the model is then the best."""
    state, model = session.state, session.state.ema.model
    calibrate_on_training_split(session)
    write_weights(session, state.epoch, paths.LAST)
    best = checkpoints.find_best(session.folder, state)
    if best.epoch != state.epoch:
        tensors, _ = checkpoints.read_weights(best)
        model.load_state_dict(tensors)
        calibrate_on_training_split(session)
    write_weights(session, best.epoch, paths.BEST)


def calibrate_on_training_split(session: Session) -> None:
    model, seed = session.state.ema.model, session.plan.seed
    batch_size = max(256, session.plan.batch_size)
    calibrate(model, session.train, session.machine, seed=seed, batch_size=batch_size)


def write_weights(session: Session, epoch: int, path: Path) -> None:
    metadata = weights_metadata(session) | {"epoch": epoch}
    write_bytes(path, tensor_bytes(session.state.ema.model.state_dict(), metadata))


def train_report(session: Session) -> dict[str, Any]:
    """reports/train.json: the best epoch's row and what the run amounts to."""
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
