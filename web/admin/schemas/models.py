"""Models of the admin API about the models that pools serve."""

from typing import Annotated

from pydantic import BaseModel, Field

from web.admin.schemas.fields import StrictModel

#: So short that two that are a little longer still fit into a URL.
PatternText = Annotated[str, Field(max_length=150, description="patterns as those of a key, separated by commas")]


class ModelQuery(StrictModel):
    """Patterns to try."""

    models: PatternText = ""
    pools: PatternText = ""


class ServedModel(BaseModel):
    """A model that a pool serves."""

    model: str
    pool: str
    matches: Annotated[bool, Field(description="whether the patterns allow it in this pool")]


class ModelList(BaseModel):
    """The models of all pools; `total` and `matching` count different names."""

    data: list[ServedModel]
    total: int
    matching: int
