"""Types of fields that the parts of a spec share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _refuse_lookalikes(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("input should be a number")
    return value


Number = BeforeValidator(_refuse_lookalikes)
Positive = Annotated[float, Number, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Number, Field(gt=0)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
