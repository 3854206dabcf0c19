"""Base class of all wire models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _as_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=4096)]


class WireModel(BaseModel):
    """Unknown keys of requests are refused by name, so that a misspelt one is never ignored.

    Whoever reads an answer validates with `extra="ignore"`: a newer coordinator may say more than
    its client knows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)


Item = TypeVar("Item")


class Page(WireModel, Generic[Item]):
    """Items in order, newest first."""

    items: list[Item]
    next_cursor: str | None = None
    """Give it as `cursor` to get the next page; null on the last one."""
