"""The section `sweep`: a search over params (Optuna), its trials, and what they are judged by."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.metrics import goals
from pipeline.config.schema.types import (
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    as_tuple,
)

ChoiceValue = float | int | bool | str | None


class _Interval(Section):
    @model_validator(mode="after")
    def _check_bounds(self) -> "_Interval":
        if not self.low < self.high:  # type: ignore[attr-defined]
            low, high = self.low, self.high  # type: ignore[attr-defined]
            raise ValueError(f"`sweep.space`: low must be below high, not {low} and {high}")
        return self


class Uniform(_Interval):
    name: Literal["uniform"] = Field(description="any number between")
    low: FiniteFloat
    """the lowest"""
    high: FiniteFloat
    """the highest"""


class LogUniform(_Interval):
    name: Literal["log_uniform"] = Field(description="any number between, evenly in its logarithm")
    low: PositiveFloat
    """the lowest"""
    high: PositiveFloat
    """the highest"""


class Integers(_Interval):
    name: Literal["integers"] = Field(description="any whole number between, both ends included")
    low: int
    """the lowest"""
    high: int
    """the highest"""


class Choice(Section):
    name: Literal["choice"] = Field(description="one of these; a text is read as YAML")
    values: Annotated[tuple[ChoiceValue, ...], as_tuple, Field(min_length=1)]
    """what can be chosen"""


Distribution = Annotated[
    Uniform | LogUniform | Integers | Choice,
    Field(discriminator="name"),
]


class Goal(Section):
    metric: str
    """a metric of a trial, on the validation split"""
    direction: Literal["minimize", "maximize"]
    """which way is better"""

    @field_validator("metric")
    @classmethod
    def _is_goal(cls, name: str) -> str:
        if name not in goals():
            raise ValueError(
                f"`sweep.goals`: no metric `{name}`; choose one of {', '.join(goals())}"
            )
        return name


class NoPruner(Section):
    name: Literal["none"] = Field(description="none | median of the trials so far | hyperband")


class MedianPruner(Section):
    name: Literal["median"] = Field(description="none | median of the trials so far | hyperband")
    startup_trials: NonNegativeInt
    """trials that are never cut short"""
    every: PositiveInt
    """epochs between two looks at the metric"""


class HyperbandPruner(Section):
    name: Literal["hyperband"] = Field(
        description="none | median of the trials so far | hyperband"
    )
    every: PositiveInt
    """epochs between two looks at the metric"""
    reduction: Annotated[int, Field(ge=2)]
    """one of so many trials goes on to the next rung"""


class Sweep(Section):
    seed: NonNegativeInt
    """of the sampler"""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """dotted params, and what each may be: uniform | log_uniform | integers | choice"""
    goals: Annotated[tuple[Goal, ...], as_tuple, Field(min_length=1)]
    """what is judged, on the validation split; several make a front, and nothing is pruned"""
    trials: PositiveInt
    """trials in all; the first is this file"""
    max_minutes: PositiveFloat | None
    """no trial begins after so many; null = no limit"""
    trial_epochs: PositiveInt | None
    """of a trial, schedules shortened alike; null = train.epochs"""
    trial_seconds: PositiveFloat | None
    """of a trial's training, made into epochs before it starts; null = `trial_epochs` says it"""
    sampler: Literal["tpe", "random"]
    """tpe = tree-structured Parzen estimator | random"""
    pruner: Annotated[NoPruner | MedianPruner | HyperbandPruner, Field(discriminator="name")]
    """which trials are cut short; by the metric alone"""
    gmm_components: PositiveInt
    """of the Gaussian mixture that draws a trial's samples"""
    samples: Annotated[int, Field(ge=20)]
    """images drawn of a trial, and validation images that they are compared with at most"""
    min_active_units: NonNegativeInt
    """latent dimensions in use; a trial with fewer is no solution"""
    min_rate: NonNegativeFloat
    """nats an image; a trial with less is no solution"""
    storage: str | None
    """database (postgresql+psycopg://...); null = a journal file; VAE_SWEEP_STORAGE overrides"""
    heartbeat_seconds: PositiveInt
    """seconds between a worker's signs of life in a database; silent five times, it is dead"""

    @field_validator("goals")
    @classmethod
    def _unique_metrics(cls, goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
        names = [goal.metric for goal in goals]
        if len(set(names)) < len(names):
            raise ValueError(f"`sweep.goals` names one twice: {', '.join(names)}")
        return goals

    @model_validator(mode="after")
    def _check_length(self) -> "Sweep":
        if self.trial_epochs is not None and self.trial_seconds is not None:
            raise ValueError(
                "`sweep.trial_epochs` and `sweep.trial_seconds` both say how long a trial is"
            )
        return self
