"""The languages that there are: each `.po` file of this folder is one, and English needs none."""

from dataclasses import dataclass
from functools import cache
from gettext import NullTranslations
from pathlib import Path

from shared.languages.po_file import Message, compile_messages, parse_po

FOLDER = Path(__file__).parent
ENGLISH = "en"


@dataclass(frozen=True)
class Language:
    """A language that the farm speaks. `name` is its own name for itself."""

    code: str
    #: Language tag for HTML (BCP 47).
    tag: str
    name: str
    texts: NullTranslations


def list_codes() -> list[str]:
    """English first."""
    return [ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.po"))]


def mark(text: str) -> str:
    """Marks a text for translation, which happens where it is shown."""
    return text


@cache
def load_languages() -> dict[str, Language]:
    """Code -> language, English first."""
    english = Language(ENGLISH, ENGLISH, "English", NullTranslations())
    others = [build_language(path.stem, parse_po(path.read_text("utf-8"))) for path in sorted(FOLDER.glob("*.po"))]
    return {language.code: language for language in (english, *others)}


def build_language(code: str, messages: list[Message]) -> Language:
    """The header, which is the translation of '', says what the language is called."""
    texts = compile_messages(messages)
    header = texts.info()
    return Language(code, header["language"], header["x-language-name"], texts)
