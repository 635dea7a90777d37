"""Finds the texts to translate, in templates and in calls and tables of Python modules."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from jinja2 import Environment

from shared.batches.hindrances import HINDRANCES as BATCH_HINDRANCES
from shared.credentials.explanation import EXPLANATIONS, HINDRANCES, explain_state
from shared.credentials.records import STATES
from shared.files.store_health import STATES as FILE_STORE_STATES
from shared.languages.po_file import Message
from shared.observability.durability import STATES as DURABILITY_STATES

#: Functions whose arguments are texts to translate -> how many arguments are texts.
MARKERS = {"gettext": 1, "mark": 1, "ngettext": 2}
ROOT = Path(__file__).parent.parent.parent
#: Packages whose modules have texts to translate; templates are in the first one.
PACKAGES = ("web", "shared/alerts", "workers/alerts")


def extract_texts() -> dict[str, str]:
    """Text -> plural, '' without one: all texts of PACKAGES, and those of tables of states."""
    found: dict[str, str] = {}
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    from_files = (*extract_from_templates((ROOT / "web").rglob("*.html")), *extract_from_modules(modules))
    states = (*DURABILITY_STATES.values(), *FILE_STORE_STATES.values(), *BATCH_HINDRANCES.values())
    from_tables = list_explanations() | {text for text in states if text}
    for text, plural in (*from_files, *((text, "") for text in from_tables)):
        found[text] = found.get(text) or plural
    return dict(sorted(found.items()))


def extract_from_templates(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Text and plural ('' without one) of each."""
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["ext.i18n.trimmed"] = True
    for path in sorted(paths):
        for _, _, texts in environment.extract_translations(path.read_text("utf-8")):  # type: ignore[attr-defined]
            values = [text for text in (texts if isinstance(texts, tuple) else (texts,)) if isinstance(text, str)]
            if values:
                yield values[0], values[1] if len(values) > 1 else ""


def extract_from_modules(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in sorted(paths):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (count := MARKERS.get(name_function(node.func), 0)):
                texts = [text for argument in node.args[:count] if (text := read_text(argument))]
                if texts:
                    yield texts[0], texts[1] if len(texts) > 1 else ""


def name_function(node: ast.expr) -> str:
    """`gettext` for a call of `gettext(…)` or of `texts.gettext(…)`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def list_explanations() -> set[str]:
    """What operators are told of the states of credentials, whatever the reason."""
    explained = (explain_state(state, reason) for state in STATES for reason in ("", *EXPLANATIONS))
    return {text for explanation in (*explained, *HINDRANCES.values()) for text in (explanation.rule, explanation.next)}


def read_text(node: ast.expr) -> str:
    """A text that is written out, '' for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def merge(messages: list[Message], texts: dict[str, str]) -> list[Message]:
    """The catalogue for these texts: translations are kept, new texts have none, texts that are gone go."""
    known = {message.text: message for message in messages}
    merged = [known[""]]
    for text, plural in texts.items():
        kept = known.get(text, Message(text))
        merged.append(Message(text, plural, kept.translations if bool(kept.plural) == bool(plural) else {}))
    return merged
