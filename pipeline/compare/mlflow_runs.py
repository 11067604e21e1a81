"""The tracker's store, read back: its trainings, with what hangs under them, as candidates.

A training's row has params, curves and headline numbers; below it hang the rows of later stages,
of which the newest finished one of each stage counts. Pictures, rates and the diagnosis are
their artifacts. What an artifact's folder has lost is missing in the candidate, by name.

MLflow is imported by the first question (seconds). A store that fails is a UserError.
"""

import csv
import io
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import ROOT
from pipeline.compare.candidates import CURVES, PICTURES, Candidate
from pipeline.runtime.run_log import UNKNOWN
from pipeline.tracking import backend
from pipeline.tracking.mlflow_sync import PARENT, open_client, outages
from pipeline.tracking.records import ASKED_DATA
from pipeline.tracking.run_record import PICTURES as SHEETS
from vae.errors import UserError

Run = Any  # mlflow.entities.Run; MLflow's names are known to `tracking` alone
FINISHED = "FINISHED"
COMMIT = "mlflow.source.git.commit"
OF_AN_EPOCH = re.compile(r"(train|valid)_(?!prior_)|(step|beta|lr|sigma|images_per_second)$")
FACTS = {
    "commit": COMMIT,
    "uncommitted changes": "git.dirty",
    "data": "data",
    "code": "code",
    "device": "machine.device",
    "precision": "machine.precision",
    "threads": "machine.threads",
}


class Archive:
    """The trainings of a store; it is opened by the first question."""

    def __init__(self, uri: str | None, root: Path = ROOT) -> None:
        self._place = backend.resolve(uri, root)
        self._folders: dict[tuple[str, str], list[str]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is no store yet; looking makes none."""
        return self._place.database is not None and not self._place.database.exists()

    @cached_property
    def _client(self) -> Any:
        backend.mend(self._place)
        with self._answering():
            return open_client(self._place)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """What a store that fails raises, as a UserError."""
        backend.calm()
        try:
            yield
        except outages() as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(
                f"the tracker fails ({reason})",
                where=self._place.shown,
                remedy="see that it runs, or compare kept evidence (kept:NAME) or revisions",
            ) from error

    def experiments(self) -> dict[str, str]:
        """Ids of the experiments by name."""
        if self.is_empty:
            return {}
        client = self._client
        with self._answering():
            return {found.name: found.experiment_id for found in client.search_experiments()}

    def trainings(self, experiments: Iterable[str] | None = None) -> list[Run]:
        """Rows of trainings, the newest first; of all experiments, or of those named."""
        known = self.experiments()
        places = [known[name] for name in (known if experiments is None else experiments)]
        return self._search(places, "tags.stage = 'train'")

    def of_key(self, key: str) -> Run | None:
        """The newest finished training of this key."""
        places = list(self.experiments().values())
        found = self._search(places, f"tags.stage = 'train' and tags.`key` = '{key}'")
        return next((run for run in found if run.info.status == FINISHED), None)

    def children(self, run: Run) -> dict[str, Run]:
        """The newest finished row of each later stage."""
        where = f"tags.`{PARENT}` = '{run.info.run_id}'"
        found = self._search([run.info.experiment_id], where)
        done = [child for child in reversed(found) if child.info.status == FINISHED]
        return {child.data.tags["stage"]: child for child in done}

    def _search(self, places: Sequence[str], where: str) -> list[Run]:
        if not places:
            return []
        client, newest = self._client, ["attributes.start_time DESC"]
        with self._answering():
            page = client.search_runs(list(places), where, order_by=newest)
            found = list(page)
            while page.token:
                page = client.search_runs(
                    list(places), where, order_by=newest, page_token=page.token
                )
                found += page
        return found

    def params(self, run: Run, below: Mapping[str, Run]) -> dict[str, str]:
        """Flat params of a training, its data and its later stages, as texts."""
        asked = run.data.tags.get(ASKED_DATA, UNKNOWN)
        data = json.loads(asked) if is_known(asked) else {}
        texts = {f"data.{name}": str(value) for name, value in data.items()}
        for row in (run, *below.values()):
            texts |= row.data.params
        return texts

    def candidate(self, run: Run) -> Candidate:
        """A training as it is compared."""
        tags, below = run.data.tags, self.children(run)
        verdict = self._artifact(below.get("evaluate"), "diagnosis.json")
        numbers = run.data.metrics.items()
        return Candidate(
            name=run.info.run_name,
            source="tracker",
            facts={
                "key": tags["key"],
                "status": run.info.status,
                **{fact: tags[tag] for fact, tag in FACTS.items() if is_known(tags.get(tag))},
            },
            params=self.params(run, below),
            metrics={name: value for name, value in numbers if not OF_AN_EPOCH.match(name)},
            history=self.history(run),
            rates=self._rates(below.get("evaluate")),
            verdict=json.loads(verdict) if verdict else None,
            pictures=self._pictures(run, below),
        )

    def history(self, run: Run, names: Sequence[str] = CURVES) -> list[dict[str, Any]]:
        """Curves from the points of metrics, a row an epoch; None where a column has no point."""
        rows: dict[int, dict[str, float | None]] = {}
        with self._answering():
            for name in names:
                for point in self._client.get_metric_history(run.info.run_id, name):
                    rows.setdefault(point.step, dict.fromkeys(names))[name] = point.value
        return [{"epoch": epoch, **rows[epoch]} for epoch in sorted(rows)]

    def _rates(self, evaluated: Run | None) -> list[float]:
        content = self._artifact(evaluated, "rates.csv")
        table = csv.DictReader(io.StringIO(content.decode())) if content else ()
        return [float(row["rate"]) for row in table]

    # Files

    def _pictures(self, run: Run, below: Mapping[str, Run]) -> dict[str, bytes]:
        """The gallery's sheets, and the training's last ones."""
        gallery = below.get("gallery")
        shipped = below["prior"].data.tags.get("prior") if "prior" in below else None
        names = {name: f"{name}.png" for name in PICTURES}
        if shipped:
            names["samples"] = f"samples-{shipped}.png"
        found = {name: self._artifact(gallery, path) for name, path in names.items()}
        sheets = [path for path in self._listed(run, SHEETS) if path.endswith(".png")]
        for kind in ("reconstructions", "samples"):
            of_kind = [path for path in sheets if path.startswith(f"{SHEETS}/{kind}+step+")]
            if of_kind:
                last = max(of_kind, key=lambda path: int(path.split("+")[2]))
                found[f"epoch-{kind}"] = self._artifact(run, last)
        return {name: content for name, content in found.items() if content}

    def _artifact(self, run: Run | None, path: str) -> bytes | None:
        """A file's content; None without the row or without the file."""
        folder = path.rpartition("/")[0]
        if run is None or path not in self._listed(run, folder):
            return None
        with self._answering(), tempfile.TemporaryDirectory() as target:
            return Path(
                self._client.download_artifacts(run.info.run_id, path, target)
            ).read_bytes()

    def _listed(self, run: Run, folder: str) -> list[str]:
        """Files of a row in one folder of its artifacts; asked for once."""
        place = run.info.run_id, folder
        if place not in self._folders:
            with self._answering():
                items = self._client.list_artifacts(run.info.run_id, folder or None)
            self._folders[place] = [item.path for item in items if not item.is_dir]
        return self._folders[place]


def is_known(text: str | None) -> bool:
    """Whether a tag says something."""
    return text not in (None, "", UNKNOWN)
