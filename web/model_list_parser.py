"""Reads an upstream's model list, whatever its shape. No I/O.

OpenAI's is `{"object": "list", "data": [{"id": …}]}`. Others send a bare array, names instead of objects, a member
`models`, objects with a `name`, or a table with the names as keys.
"""

from typing import Any

from shared.parsing import parse_json

#: Members that hold the list, or another object that holds it.
LIST_MEMBERS = ("data", "models", "result", "results", "items")
#: Members of an entry that may name its model; the first that is text counts.
NAME_MEMBERS = ("id", "name", "model", "model_id", "model_name", "slug")
#: How deep the list may be.
MAX_DEPTH = 3


def parse_models(body: bytes) -> list[dict[str, Any]] | None:
    """Returns the models in OpenAI's shape, None if there is no list. Entries that have an `id` stay as they are."""
    entries = find_entries(parse_json(body), MAX_DEPTH)
    if entries is None:
        return None
    return [model for model in map(read_model, entries) if model is not None]


def find_entries(value: Any, depth: int) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not depth:
        return None
    for member in LIST_MEMBERS:
        if (entries := find_entries(value.get(member), depth - 1)) is not None:
            return entries
    is_table = depth < MAX_DEPTH and all(isinstance(entry, dict) for entry in value.values())
    return [{"id": name, **entry} for name, entry in value.items()] if is_table else None


def read_model(entry: Any) -> dict[str, Any] | None:
    """Returns one model, None if the entry names none."""
    members: dict[str, Any] = entry if isinstance(entry, dict) else {"id": entry}
    name = next((members[member] for member in NAME_MEMBERS if is_name(members.get(member))), None)
    if name is None:
        return None
    if isinstance(entry, dict) and entry.get("id") == name:
        return dict(entry)
    return {"object": "model", "created": 0, "owned_by": "upstream", **members, "id": name}


def is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
