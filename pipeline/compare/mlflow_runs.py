"""Read trainings from MLflow, with their child runs, as compared runs.

A training's run has params, curves and headline metrics. Its children are the runs of later stages;
of each stage the newest finished one is read. Pictures, rates and the diagnosis are their
artifacts; an artifact that is lost is listed as missing.

The first query imports MLflow, which takes seconds. A store that fails raises UserError.
"""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.compare.candidates import CURVES, PICTURES, ComparedRun
from pipeline.config.metrics import from_mlflow, is_curve, mlflow_name
from pipeline.runtime.paths import ROOT
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking import backend
from pipeline.tracking.mlflow_sync import PARENT_TAG, connection_errors, open_client
from pipeline.tracking.records import DATA_PARAMS_TAG
from pipeline.tracking.run_record import IMAGES_FOLDER as SHEETS
from vae.errors import UserError

Run = Any  # mlflow.entities.Run; only `tracking` imports MLflow
FINISHED = "FINISHED"
NEWEST = "attributes.start_time DESC"
COMMIT = "mlflow.source.git.commit"
PROVENANCE_TAGS = {
    "commit": COMMIT,
    "uncommitted changes": "git.dirty",
    "data": "data",
    "code": "code",
    "device": "machine.device",
    "precision": "machine.precision",
    "threads": "machine.threads",
}


class MlflowRuns:
    """The trainings of a store, which the first query opens."""

    def __init__(self, uri: str | None, root: Path = ROOT) -> None:
        self._backend = backend.resolve_backend(uri, root)
        self._listings: dict[tuple[str, str], list[str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no store yet; the query does not create one."""
        return self._backend.database is not None and not self._backend.database.exists()

    @cached_property
    def _client(self) -> Any:
        backend.repair_artifact_paths(self._backend)
        with self._reporting_outages():
            return open_client(self._backend)

    @contextmanager
    def _reporting_outages(self) -> Iterator[None]:
        """Turn the exceptions of a store that fails into UserError."""
        backend.configure_mlflow()
        try:
            yield
        except connection_errors() as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"MLflow fails ({reason})",
                where=self._backend.display_uri,
                remedy="start it, or compare results (results:NAME) or revisions",
            ) from error

    def experiment_ids(self) -> dict[str, str]:
        """Ids of the experiments by name."""
        if self.is_empty:
            return {}
        client = self._client
        with self._reporting_outages():
            return {each.name: each.experiment_id for each in client.search_experiments()}

    def training_runs(self, names: Iterable[str] | None = None) -> list[Run]:
        """Runs of trainings, the newest first; of all experiments or of the given ones."""
        experiment_ids = self.experiment_ids()
        selected = [experiment_ids[name] for name in (experiment_ids if names is None else names)]
        return self._search(selected, "tags.stage = 'train'")

    def find_by_key(self, key: str) -> Run | None:
        """The newest finished training of this key."""
        experiment_ids = list(self.experiment_ids().values())
        runs = self._search(experiment_ids, f"tags.stage = 'train' and tags.`key` = '{key}'")
        return next((run for run in runs if run.info.status == FINISHED), None)

    def latest_stage_runs(self, run: Run) -> dict[str, Run]:
        """The newest finished run of each later stage."""
        query = f"tags.`{PARENT_TAG}` = '{run.info.run_id}'"
        runs = self._search([run.info.experiment_id], query)
        finished = [child for child in reversed(runs) if child.info.status == FINISHED]
        return {child.data.tags["stage"]: child for child in finished}

    def _search(self, experiment_ids: list[str], query: str) -> list[Run]:
        if not experiment_ids:
            return []
        runs: list[Run] = []
        client, token = self._client, None
        with self._reporting_outages():
            while True:
                page = client.search_runs(
                    experiment_ids, query, order_by=[NEWEST], page_token=token
                )
                runs += page
                token = page.token
                if not token:
                    return runs

    def read_params(self, run: Run, stage_runs: Mapping[str, Run]) -> dict[str, str]:
        """Flat params of a training, its data and its later stages, as texts."""
        data_text = run.data.tags.get(DATA_PARAMS_TAG, UNKNOWN)
        data = json.loads(data_text) if is_known(data_text) else {}
        texts = {f"data.{name}": str(value) for name, value in data.items()}
        for stage_run in (run, *stage_runs.values()):
            texts |= stage_run.data.params
        return texts

    def load_run(self, run: Run) -> ComparedRun:
        """A training as it is compared."""
        tags, stage_runs = run.data.tags, self.latest_stage_runs(run)
        diagnosis_json = self._read_artifact(stage_runs.get("evaluate"), "diagnosis.json")
        facts = {fact: tags.get(tag) for fact, tag in PROVENANCE_TAGS.items()}
        facts = {"key": tags["key"], "status": run.info.status, **facts}
        numbers = [(from_mlflow(name), value) for name, value in run.data.metrics.items()]
        return ComparedRun(
            name=run.info.run_name,
            source="tracker",
            provenance={fact: text for fact, text in facts.items() if is_known(text)},
            params=self.read_params(run, stage_runs),
            metrics={name: value for name, value in numbers if not is_curve(name)},
            history=self.read_history(run),
            rates=self._read_rates(stage_runs.get("evaluate")),
            diagnosis=json.loads(diagnosis_json) if diagnosis_json else None,
            pictures=self._read_pictures(run, stage_runs),
        )

    def read_history(self, run: Run, names: Sequence[str] = CURVES) -> list[dict[str, Any]]:
        """Curves, one mapping per epoch; None where a curve has no point."""
        rows: dict[int, dict[str, float | None]] = {}
        with self._reporting_outages():
            for name in names:
                for point in self._client.get_metric_history(run.info.run_id, mlflow_name(name)):
                    rows.setdefault(point.step, dict.fromkeys(names))[name] = point.value
        return [{"epoch": epoch, **rows[epoch]} for epoch in sorted(rows)]

    def _read_rates(self, evaluate_run: Run | None) -> list[float]:
        content = self._read_artifact(evaluate_run, "rates.csv")
        table = csv.DictReader(io.StringIO(content.decode())) if content else ()
        return [float(row["rate"]) for row in table]

    # Files

    def _read_pictures(self, run: Run, stage_runs: Mapping[str, Run]) -> dict[str, bytes]:
        """The gallery's sheets, and the training's last ones."""
        gallery = stage_runs.get("gallery")
        prior_tags = stage_runs["prior"].data.tags if "prior" in stage_runs else {}
        default_prior = prior_tags.get("selected_prior")
        names = {name: f"{name}.png" for name in PICTURES}
        if default_prior:
            names["samples"] = f"samples-{default_prior}.png"
        pictures = {name: self._read_artifact(gallery, path) for name, path in names.items()}
        sheets = [path for path in self._list_files(run, SHEETS) if path.endswith(".png")]
        for kind in ("reconstructions", "samples"):
            of_kind = [path for path in sheets if path.startswith(f"{SHEETS}/{kind}+step+")]
            if of_kind:
                last = max(of_kind, key=lambda path: int(path.split("+")[2]))
                pictures[f"epoch-{kind}"] = self._read_artifact(run, last)
        return {name: content for name, content in pictures.items() if content}

    def _read_artifact(self, run: Run | None, path: str) -> bytes | None:
        """The content of an artifact; None without the run or the file."""
        folder = path.rpartition("/")[0]
        if run is None or path not in self._list_files(run, folder):
            return None
        with self._reporting_outages(), tempfile.TemporaryDirectory() as target:
            return Path(self._client.download_artifacts(run.info.run_id, path, target)).read_bytes()

    def _list_files(self, run: Run, folder: str) -> list[str]:
        """Files in one folder of a run's artifacts; cached."""
        listing_key = run.info.run_id, folder
        if listing_key not in self._listings:
            with self._reporting_outages():
                items = self._client.list_artifacts(run.info.run_id, folder or None)
            self._listings[listing_key] = [item.path for item in items if not item.is_dir]
        return self._listings[listing_key]


def is_known(text: str | None) -> bool:
    """Whether a tag has a value."""
    return text not in (None, "", UNKNOWN)
