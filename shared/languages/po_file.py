"""Reads and writes gettext catalogues as text (PO files), and compiles them in memory. No I/O."""

import ast
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from gettext import GNUTranslations

#: First four bytes of a compiled catalogue (MO file).
MO_MAGIC = 0x950412DE
#: Between a singular and its plural, and between plural forms, in a compiled catalogue.
MO_SEPARATOR = "\0"
#: Directives, the longer ones first.
DIRECTIVES = ("msgid_plural", "msgid", "msgstr")


@dataclass
class Message:
    """One text, and its translations: one, or one for each plural form."""

    text: str = ""
    plural: str = ""
    translations: dict[int, str] = field(default_factory=dict)
    is_fuzzy: bool = False

    @property
    def is_translated(self) -> bool:
        return bool(self.translations) and all(self.translations.values())


def parse_po(content: str) -> list[Message]:
    """The messages of a catalogue, its header first. Raises ValueError for a line that is none."""
    messages, is_fuzzy, directive, form = list[Message](), False, "", 0
    for line in (line.strip() for line in content.splitlines()):
        if not line or line.startswith("#"):
            is_fuzzy = is_fuzzy or (line.startswith("#,") and "fuzzy" in line)
            continue
        if line.startswith('"'):
            text = str(ast.literal_eval(line))
        else:
            directive, form, text = split_directive(line)
        if directive == "msgid" and not line.startswith('"'):
            messages.append(Message(is_fuzzy=is_fuzzy))
            is_fuzzy = False
        if not messages:
            raise ValueError(f"text before the first msgid: {line}")
        append_text(messages[-1], directive, form, text)
    return messages


def split_directive(line: str) -> tuple[str, int, str]:
    """`msgstr[1] "text"` as directive, plural form and text. Raises ValueError."""
    head, _, quoted = line.partition(" ")
    name, _, form = head.partition("[")
    if name not in DIRECTIVES or not quoted.startswith('"'):
        raise ValueError(f"no line of a catalogue: {line}")
    return name, int(form.rstrip("]") or 0), str(ast.literal_eval(quoted))


def append_text(message: Message, directive: str, form: int, text: str) -> None:
    if directive == "msgid":
        message.text += text
    elif directive == "msgid_plural":
        message.plural += text
    else:
        message.translations[form] = message.translations.get(form, "") + text


def format_po(messages: Iterable[Message]) -> str:
    return "\n".join("\n".join(format_message(message)) + "\n" for message in messages)


def format_message(message: Message) -> Iterator[str]:
    if message.is_fuzzy:
        yield "#, fuzzy"
    yield f"msgid {quote(message.text)}"
    if not message.plural:
        yield f"msgstr {quote(message.translations.get(0, ''))}"
        return
    yield f"msgid_plural {quote(message.plural)}"
    for form, text in sorted((message.translations or {0: ""}).items()):
        yield f"msgstr[{form}] {quote(text)}"


def quote(text: str) -> str:
    """As a string of a PO file; one of several lines is split behind each."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    parts = [part for part in escaped.replace("\\n", "\\n\x00").split("\x00") if part]
    return f'"{escaped}"' if len(parts) < 2 else '""\n' + "\n".join(f'"{part}"' for part in parts)


def compile_messages(messages: Iterable[Message]) -> GNUTranslations:
    """What gettext looks texts up in; without those that are fuzzy or not translated."""
    usable = [message for message in messages if message.is_translated and not message.is_fuzzy]
    pairs = sorted((encode_source(message), encode_translations(message)) for message in usable)
    sources, texts = [source for source, _ in pairs], [text for _, text in pairs]
    header_size, table_size = 28, 8 * len(pairs)
    position = header_size + 2 * table_size
    tables = b""
    for part in (*sources, *texts):
        tables += struct.pack("<II", len(part), position)
        position += len(part) + 1
    header = struct.pack("<7I", MO_MAGIC, 0, len(pairs), header_size, header_size + table_size, 0, 0)
    return GNUTranslations(io.BytesIO(header + tables + b"".join(part + b"\0" for part in (*sources, *texts))))


def encode_source(message: Message) -> bytes:
    return MO_SEPARATOR.join([message.text, *([message.plural] if message.plural else ())]).encode()


def encode_translations(message: Message) -> bytes:
    return MO_SEPARATOR.join(text for _, text in sorted(message.translations.items())).encode()
