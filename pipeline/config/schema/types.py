"""Types of the values in sections."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

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
