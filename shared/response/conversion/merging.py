"""Adds up the deltas of a stream: texts grow, lists are merged by index, the rest is replaced. No I/O."""

import copy
from typing import Any

#: Texts that are sent once, or again as they were, and never in pieces.
WHOLE_TEXTS = frozenset({"role", "id", "type", "format", "signature"})


class TextParts:
    """A text that grows: adding each piece to a string would copy the string each time."""

    def __init__(self, first: str = "") -> None:
        self.parts = [first]

    def join(self) -> str:
        self.parts = ["".join(self.parts)]
        return self.parts[0]


def join_texts(value: Any) -> Any:
    """What has been merged, with plain strings."""
    if isinstance(value, TextParts):
        return value.join()
    if isinstance(value, dict):
        return {name: join_texts(member) for name, member in value.items()}
    return [join_texts(element) for element in value] if isinstance(value, list) else value


def merge(target: dict[str, Any], delta: dict[str, Any]) -> None:
    """Adds a delta to what has come so far."""
    for name, value in delta.items():
        target[name] = merge_value(target.get(name), value, name)


def merge_value(current: Any, value: Any, name: str) -> Any:
    if value is None:
        return current
    if isinstance(value, list):
        merged = current if isinstance(current, list) else []
        merge_list(merged, value)
        return merged
    if isinstance(value, dict):
        merged_object = current if isinstance(current, dict) else {}
        merge(merged_object, value)
        return merged_object
    if isinstance(value, str) and isinstance(current, str | TextParts):
        return merge_text(current, value, name)
    return value


def merge_text(current: str | TextParts, value: str, name: str) -> str | TextParts:
    """Some upstreams repeat a tool's name in each chunk, others send it in pieces."""
    if isinstance(current, str):
        if name in WHOLE_TEXTS:
            return current or value
        current = TextParts(current)
    if name != "name" or value not in ("", current.join()):
        current.parts.append(value)
    return current


def merge_list(target: list[Any], elements: list[Any]) -> None:
    """Elements with an index are parts of the element with that index; without one, an id begins another element."""
    for element in elements:
        earlier = find_earlier(target, element) if isinstance(element, dict) else None
        if earlier is None:
            target.append(copy.deepcopy(element))
        else:
            merge(earlier, element)


def find_earlier(target: list[Any], element: dict[str, Any]) -> dict[str, Any] | None:
    """The element that this one continues, None for a new one."""
    objects = [candidate for candidate in target if isinstance(candidate, dict)]
    if type(element.get("index")) is int:
        return next((candidate for candidate in objects if candidate.get("index") == element["index"]), None)
    is_tool_call = "function" in element
    if not is_tool_call or not objects or element.get("id") not in (None, "", objects[-1].get("id")):
        return None
    return objects[-1]


def merge_logprobs(target: dict[str, Any], logprobs: dict[str, Any]) -> None:
    """Each chunk has the log probabilities of its own tokens."""
    for name, value in logprobs.items():
        if isinstance(value, list):
            target[name] = target.get(name) or []
            target[name] += value
        else:
            target.setdefault(name, value)
