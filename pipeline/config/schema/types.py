"""Types of the values in sections."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

as_tuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
FloatPair = Annotated[tuple[FiniteFloat, FiniteFloat], as_tuple]
Widths = Annotated[tuple[PositiveInt, ...], as_tuple, Field(min_length=1)]
DeviceName = Literal["auto", "cpu", "cuda"]


class Section(BaseModel):
    """A mapping in params.yaml: strict types, frozen, no unknown keys; docstrings are comments."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                context = {"key": key, "known": list(cls.model_fields)}
                raise PydanticCustomError("unknown_key", "unknown key {key}", context)
        return values
