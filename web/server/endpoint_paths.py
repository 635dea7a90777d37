"""Finds the endpoint that a caller's path means, however its base URL ends.

Programs append `/v1` themselves or don't, so a base URL too short or too long makes `/v1/v1/…`; a base URL that is a
whole endpoint makes `/v1/chat/completions/chat/completions`. Azure's clients put the model into the path:
`/openai/deployments/{model}/chat/completions`.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: Segments that make up a base URL.
PREFIXES = ("v1", "openai")
#: Prefixes, or endpoints in their place, that a path may have before its endpoint.
MAX_PREFIXES = 5


class EndpointPath(NamedTuple):
    """What a path means."""

    #: The path in the farm's own spelling.
    path: str
    #: The model that the path names, '' for none.
    model: str = ""


class EndpointPaths:
    """The known endpoints, and the paths that mean them."""

    def __init__(self, endpoints: Sequence[str], collections: Iterable[str] = ()) -> None:
        """`endpoints` and `collections` are paths below /v1; `models` may be followed by a model's name, and a
        collection by what is in it.
        """
        names = "|".join(map(re.escape, (*endpoints, "models")))
        base = f"(?:(?:{'|'.join(PREFIXES)}|{names})/){{0,{MAX_PREFIXES}}}"
        self._endpoint = re.compile(f"/{base}(?:(?:deployments|engines)/(?P<model>.+?)/)?{base}(?P<endpoint>{names})")
        self._model = re.compile(f"/{base}models/(?P<name>.+)", re.DOTALL)
        prefix = "|".join(PREFIXES)
        endpoint, collection = "|".join(map(re.escape, endpoints)), "|".join(map(re.escape, collections)) or "(?!)"
        base = f"(?:(?:{prefix}|{endpoint})/){{0,{MAX_PREFIXES}}}"
        self._collection = re.compile(f"/{base}(?P<path>(?:{collection})(?:/.*)?)", re.DOTALL)
        self._other = re.compile(f"/(?:{prefix})(?:/(?:{prefix})){{0,{MAX_PREFIXES}}}(?P<rest>/.*)?", re.DOTALL)

    def resolve(self, path: str) -> EndpointPath:
        """Returns the path in the farm's own spelling; one that means no endpoint loses its extra prefixes only."""
        trimmed = path.rstrip("/")
        if match := self._endpoint.fullmatch(trimmed):
            return EndpointPath(f"/v1/{match['endpoint']}", match["model"] or "")
        if match := self._model.fullmatch(trimmed):
            return EndpointPath(f"/v1/models/{match['name']}")
        if match := self._collection.fullmatch(trimmed):
            return EndpointPath(f"/v1/{match['path']}")
        if match := self._other.fullmatch(trimmed):
            return EndpointPath(f"/v1{match['rest'] or ''}")
        return EndpointPath(path)
