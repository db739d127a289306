"""The base of every fact, order and plan: frozen, and closed to unknown fields."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value: it never changes after it was built, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
