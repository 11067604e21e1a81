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
from pipeline.factory.build import build_machine, build_plan, build_state, options, warn_if_slow
from pipeline.factory.run_key import SECTIONS, describe
from pipeline.runtime import distributed, paths, run_log
from pipeline.runtime.console import Terminated, bar, say
from pipeline.scoring import training_sheets
from pipeline.stages.train.resume import only_one, prune_runs, restore_newest
from pipeline.stages.train.warnings import Watch
from pipeline.tracking import mlflow_sync, records
from pipeline.tracking.run_record import Row
from vae import device as machines
from vae.data.batches import Images
from vae.errors import RankError, UserError
from vae.evaluation.metrics.constant_image import best_constant, constant_distortion
from vae.figures.charts import training_curves
from vae.figures.png import write_png
from vae.io import tensor_bytes, write_bytes, write_csv, write_json, write_text
from vae.training import checkpoints
from vae.training.distributed import World, joined, share_statistics
from vae.training.loop import EpochReport, Plan, State, fit
from vae.training.validation import calibrate

OUT_OF_MEMORY = "out of memory"
LESS_MEMORY = "lower train.batch_size, model.network.widths, or set train.data_on: disk"


@dataclass
class Work:
    """A training as each of its processes has it: what it is, and its objects."""

    params: Params
    run: dict[str, Any]
    machine: machines.Machine
    world: World
    state: State
    plan: Plan

    @property
    def folder(self) -> Path:
        """Where its state is kept."""
        return paths.RESUME / str(self.run["key"])

    def images(self) -> tuple[Images, Images]:
        """Those to train on and those to validate on."""
        place, device = self.params.train.data_on, self.machine.device
        train = Images.open(paths.DATA / "train.npy", device, place)
        return train, Images.open(paths.DATA / "valid.npy", device, place)


@dataclass
class Session(Work):
    """A training at work, as the first process has it."""

    train: Images
    valid: Images
    tracker: mlflow_sync.Tracker
    constant: float | None


def train(params: Params) -> None:
    """Train (or go on, or only ship what is finished) and write the stage's outputs."""
    run, place = describe(params), distributed.place()
    machine, world = build_machine(params.train, place), World(place.rank, place.size)
    if world.rank == 0:
        warn_if_slow(params.train, machine)
    # Before the folder is made: a model that is refused leaves nothing behind.
    state = build_state(params.model, params.train, tuple(run["image"]), run["levels"], machine)
    dynamic = paths.read_spec()["binarize"] == "dynamic"
    latent = state.model.latent
    plan = build_plan(params.objective, params.train, latent, machine, binarize=dynamic)
    share_statistics(state.model, world, machine.device)
    part = lead if world.rank == 0 else follow
    with joined(world, machine.device), ended_by_torchrun(world):
        part(Work(params, run, machine, world, state, plan))


def lead(work: Work) -> None:
    """The first process: train, and keep, show and ship what comes out."""
    key = work.run["key"]
    with ExitStack() as stack:
        stack.enter_context(only_one(work.folder, work.world))
        run_log.start(paths.log_of(key), "train", work.machine.as_dict())
        session = open_session(work)
        stack.enter_context(closing(session))
        go_on(session)
        run_epochs(session)
        ship(session)
    prune_runs(work.params.checkpoints.keep_runs, keep=key)


def follow(work: Work) -> None:
    """Another process: take part in every step, and leave no trace."""
    try:
        restore_newest(work.folder, work.state, work.machine, work.world)
        for _ in fit(work.state, work.plan, *work.images(), work.machine, work.world):
            pass
    except Exception as error:
        if machines.out_of_memory(error):
            raise RankError(OUT_OF_MEMORY, where="train", remedy=LESS_MEMORY) from error
        raise


@contextmanager
def ended_by_torchrun(world: World) -> Iterator[None]:
    """Say why several processes end at once."""
    try:
        yield
    except Terminated:
        if world.size > 1:
            say(
                f"rank {world.rank}: error: train: ended by SIGTERM, as torchrun does to all when "
                "one is gone -> run the same command again: it goes on after the last epoch"
            )
        raise


def open_session(work: Work) -> Session:
    """Data and tracker around a state and its plan, before any step."""
    params, (train_images, valid_images) = work.params, work.images()
    write_json(work.folder / "run.json", work.run)
    return Session(
        **vars(work),
        train=train_images,
        valid=valid_images,
        tracker=mlflow_sync.connect(params.tracking.uri, params.tracking.enabled),
        constant=cost_of_constant(params, train_images, work.plan),
    )


def cost_of_constant(params: Params, images: Images, plan: Plan) -> float | None:
    """Distortion of the best constant image, where the likelihood has a formula for it."""
    likelihood = params.model.likelihood
    constant = best_constant(images.mapped, plan.augmentation)
    return constant_distortion(constant, likelihood.name, **options(likelihood))


@contextmanager
def closing(session: Session) -> Iterator[None]:
    """Mark the row by how the work ends: FAILED, KILLED, or as `ship` left it."""
    try:
        yield
    except Exception as error:
        mark(session, "FAILED")
        if machines.out_of_memory(error):
            raise UserError(OUT_OF_MEMORY, where="train", remedy=LESS_MEMORY) from error
        raise
    except (KeyboardInterrupt, Terminated):
        mark(session, "KILLED")
        raise
    finally:
        session.tracker.close()


def mark(session: Session, status: str) -> None:
    run_log.append(paths.log_of(session.run["key"]), "end", status=status)
    session.tracker.sync(row_of(session, status))


def go_on(session: Session) -> None:
    """Restore the state where the training stood, if it stood anywhere."""
    if not restore_newest(session.folder, session.state, session.machine, session.world):
        return
    session.tracker.sync(row_of(session, "RUNNING"))
    if session.state.epoch < session.plan.epochs:
        say(f"going on after epoch {session.state.epoch} of {session.plan.epochs}")


def run_epochs(session: Session) -> None:
    """Train the epochs that are left; after each: checkpoint, pictures, line, tracker."""
    steps = session.train.steps(session.plan.batch_size)
    done, total = session.state.epoch * steps, session.plan.epochs * steps
    if done == total:
        return
    watch = Watch(session.run, session.constant)
    with bar(total, "train", initial=done) as advance:
        splits = session.train, session.valid
        reports = fit(session.state, session.plan, *splits, session.machine, session.world)
        for report in reports:
            if isinstance(report, EpochReport):
                keep(session, report)
                say(line(session, report))
                watch.look(session.state.history)
            else:
                advance()


def keep(session: Session, report: EpochReport) -> None:
    """Make an epoch safe, then tell the tracker."""
    about = about_weights(session) | {"machine": session.machine.as_dict()}
    if is_sheet_epoch(session):
        training_sheets.take(
            session.state.average.model,
            session.valid,
            session.machine,
            seed=session.plan.seed,
            epoch=session.state.epoch,
            name=session.run["data_set"],
            folder=session.folder,
        )
    checkpoints.save(session.folder, session.state, about, session.params.checkpoints.keep_every)
    run_log.append(
        paths.log_of(session.run["key"]),
        "epoch",
        epoch=session.state.epoch,
        images_per_second=round(report.images_per_second, 1),
    )
    session.tracker.sync(row_of(session, "RUNNING"))


def about_weights(session: Session) -> dict[str, Any]:
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


def row_of(session: Session, status: str) -> Row:
    return records.train_row(
        session.run,
        session.state.history,
        status,
        session.params.tracking.experiment,
        pictures=session.folder,
    )


def line(session: Session, report: EpochReport) -> str:
    """An epoch in one line."""
    row = report.row
    bits = row["valid_bits_per_dim"]
    return (
        f"epoch {row['epoch']:>3}/{session.plan.epochs}  "
        f"objective {row['train_objective']:.2f} / {row['valid_objective']:.2f}  "
        f"distortion {row['valid_distortion']:.2f}  rate {row['valid_rate']:.2f} nats  "
        + (f"{bits:.3f} bits/dim  " if bits is not None else "")
        + f"active {row['valid_active_units']}  "
        + (f"skipped {row['train_skipped']}  " if row["train_skipped"] else "")
        + f"{report.images_per_second:,.0f} images/s"
    )


def ship(session: Session) -> None:
    """Write artifacts/model, reports/train.json and the figures from the finished state.

    The shipped weights' own sigma is calibrated on the whole training split.
    """
    shutil.rmtree(paths.MODEL, ignore_errors=True)
    shutil.rmtree(paths.FIGURES / "train", ignore_errors=True)
    ship_weights(session)
    write_json(paths.RUN, session.run)
    write_text(paths.MODEL / "params.yaml", render(session.params, *SECTIONS))
    write_csv(paths.HISTORY, session.state.history)
    report = summary(session)
    write_json(paths.report("train"), report)
    training_sheets.draw_all(session.folder, paths.FIGURES / "train")
    curves = training_curves(session.state.history, report["constant_distortion"])
    write_png(curves, paths.FIGURES / "train" / "curves.png")
    mark(session, "FINISHED")


def ship_weights(session: Session) -> None:
    """Write the last and the best epoch's weights, calibrated; the model is then the best."""
    state, model = session.state, session.state.average.model
    calibrate_whole(session)
    write_weights(session, state.epoch, paths.LAST)
    best = checkpoints.best(session.folder, state)
    if best.epoch != state.epoch:
        tensors, _ = checkpoints.shipped(best)
        model.load_state_dict(tensors)
        calibrate_whole(session)
    write_weights(session, best.epoch, paths.BEST)


def calibrate_whole(session: Session) -> None:
    model, seed = session.state.average.model, session.plan.seed
    batch_size = max(256, session.plan.batch_size)
    calibrate(model, session.train, session.machine, seed=seed, batch_size=batch_size)


def write_weights(session: Session, epoch: int, path: Path) -> None:
    about = about_weights(session) | {"epoch": epoch}
    write_bytes(path, tensor_bytes(session.state.average.model.state_dict(), about))


def summary(session: Session) -> dict[str, Any]:
    """reports/train.json: the best epoch's row and what the run amounts to."""
    state, model = session.state, session.state.average.model
    row = state.history[state.best - 1]
    sigma, likelihood = model.likelihood.sigma(), session.params.model.likelihood
    implied = session.plan.beta * sigma**2 if sigma and likelihood.name == "gaussian" else None
    return {
        "key": session.run["key"],
        "data_set": session.run["data_set"],
        "parameters": sum(p.numel() for p in model.parameters()),
        "latent_shape": list(model.latent),
        "beta": session.plan.beta,
        "constant_distortion": session.constant,
        "sigma": sigma,
        "implied_sigma2_at_beta_1": implied,
        "epochs": state.epoch,
        "best_epoch": state.best,
        "best": {name: value for name, value in row.items() if name.startswith("valid_")},
    }
