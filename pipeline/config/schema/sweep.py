"""The section `sweep`: a search over params with Optuna, its trials and goals."""

from typing import Annotated, Generic, Literal, Self, TypeVar

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

PRUNERS = "none | median of the trials so far | hyperband"
Number = TypeVar("Number", int, float)
ChoiceValue = float | int | bool | str | None


class _Interval(Section, Generic[Number]):
    low: Number
    """minimum"""
    high: Number
    """maximum"""

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if not self.low < self.high:
            bounds = f"{self.low} and {self.high}"
            raise ValueError(f"`sweep.space`: low must be below high, not {bounds}")
        return self


class Uniform(_Interval[FiniteFloat]):
    name: Literal["uniform"] = Field(description="uniform in [low, high]")


class LogUniform(_Interval[PositiveFloat]):
    name: Literal["log_uniform"] = Field(description="log-uniform in [low, high]")


class Integers(_Interval[int]):
    name: Literal["integers"] = Field(description="integers from low to high, both included")


class Choice(Section):
    name: Literal["choice"] = Field(description="one of the values; a text is read as YAML")
    values: Annotated[tuple[ChoiceValue, ...], as_tuple, Field(min_length=1)]
    """the values to choose from"""


Distribution = Annotated[
    Uniform | LogUniform | Integers | Choice,
    Field(discriminator="name"),
]


class Goal(Section):
    metric: str
    """metric of a trial, on the validation split"""
    direction: Literal["minimize", "maximize"]
    """minimize | maximize"""

    @field_validator("metric")
    @classmethod
    def _is_goal(cls, name: str) -> str:
        if name not in (names := goals()):
            raise ValueError(f"`sweep.goals`: no metric `{name}`; choose one of {', '.join(names)}")
        return name


class NoPruner(Section):
    name: Literal["none"] = Field(description=PRUNERS)


class MedianPruner(Section):
    name: Literal["median"] = Field(description=PRUNERS)
    startup_trials: NonNegativeInt
    """trials that are never pruned"""
    every: PositiveInt
    """epochs between two evaluations of the metric"""


class HyperbandPruner(Section):
    name: Literal["hyperband"] = Field(description=PRUNERS)
    every: PositiveInt
    """epochs between two evaluations of the metric"""
    reduction: Annotated[int, Field(ge=2)]
    """one of this many trials goes on to the next rung"""


class Sweep(Section):
    seed: NonNegativeInt
    """seed of the sampler"""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """dotted params and their distributions: uniform | log_uniform | integers | choice"""
    goals: Annotated[tuple[Goal, ...], as_tuple, Field(min_length=1)]
    """validation metrics to optimise; several give a Pareto front and no pruning"""
    trials: PositiveInt
    """total number of trials; the first uses the values of this file"""
    max_minutes: PositiveFloat | None
    """no trial starts after this many minutes; null = no limit"""
    trial_epochs: PositiveInt | None
    """epochs per trial, schedules scaled to match; null = train.epochs"""
    trial_seconds: PositiveFloat | None
    """training time per trial, converted to epochs before it starts; null = use trial_epochs"""
    sampler: Literal["tpe", "random"]
    """tpe = tree-structured Parzen estimator | random"""
    pruner: Annotated[NoPruner | MedianPruner | HyperbandPruner, Field(discriminator="name")]
    """which trials are stopped early, by the metric alone"""
    gmm_components: PositiveInt
    """components of the Gaussian mixture that is fitted in each trial"""
    samples: Annotated[int, Field(ge=20)]
    """samples per trial, and maximum number of validation images that they are compared with"""
    min_active_units: NonNegativeInt
    """minimum number of active units; a trial with fewer is infeasible"""
    min_rate: NonNegativeFloat
    """minimum rate in nats per image; a trial with less is infeasible"""
    storage: str | None
    """database (postgresql+psycopg://...); null = a journal file; VAE_SWEEP_STORAGE overrides it"""
    heartbeat_seconds: PositiveInt
    """seconds between two heartbeats of a worker; after five missed ones it counts as dead"""

    @field_validator("goals")
    @classmethod
    def _unique_metrics(cls, goals: tuple[Goal, ...]) -> tuple[Goal, ...]:
        names = [goal.metric for goal in goals]
        if len(set(names)) < len(names):
            raise ValueError(f"`sweep.goals` names one twice: {', '.join(names)}")
        return goals

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.trial_epochs is not None and self.trial_seconds is not None:
            keys = "`sweep.trial_epochs` and `sweep.trial_seconds`"
            raise ValueError(f"{keys} both set the length of a trial; make one null")
        return self
