"""Finds the text of a chat's reply, or its error, in the events of a stream or in JSON. No I/O."""

import json
from typing import Any, NamedTuple

from shared.protocol.sse import parse_events


class ReadReply(NamedTuple):
    """What a part of a reply says."""

    text: str = ""
    #: Message of an error in OpenAI's shape, '' for none.
    error: str = ""


def read_events(events: bytes) -> ReadReply:
    """What complete events of a stream say."""
    read = [read_reply(event.data) for event in parse_events(events) if event.data]
    return ReadReply("".join(part.text for part in read), next((part.error for part in read if part.error), ""))


def read_reply(data: bytes) -> ReadReply:
    """What JSON says; nothing if it is no chat's reply."""
    try:
        reply: Any = json.loads(data)
    except (ValueError, RecursionError):
        return ReadReply()
    if not isinstance(reply, dict):
        return ReadReply()
    choices, error = reply.get("choices"), reply.get("error")
    text = "".join(map(read_choice_text, choices)) if isinstance(choices, list) else ""
    return ReadReply(text, str(error.get("message", "")) if isinstance(error, dict) else "")


def read_choice_text(choice: Any) -> str:
    if not isinstance(choice, dict):
        return ""
    message = choice.get("delta") or choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""
