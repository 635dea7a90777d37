"""Every text of the console and of alerts has a translation in every language, with the same placeholders."""

import re

import pytest

from shared.languages.catalogues import FOLDER, load_languages
from shared.languages.po_file import Message, parse_po
from web.languages.choice import choose_language
from web.languages.extraction import extract_texts, merge

CATALOGUES = sorted(FOLDER.glob("*.po"))
PLACEHOLDER = re.compile(r"%\(\w+\)s")
#: Texts of which a Chinese translation has no Chinese character.
SAME_IN_CHINESE = {"Id", "Tokens"}


def read(path) -> dict[str, Message]:
    return {message.text: message for message in parse_po(path.read_text("utf-8"))}


def test_there_is_chinese():
    assert [path.stem for path in CATALOGUES] == ["zh"]
    assert {code: language.name for code, language in load_languages().items()} == {"en": "English", "zh": "简体中文"}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_catalogue_has_exactly_the_texts_of_the_sources(path):
    """`python -m web.languages` adds and removes them."""
    texts, messages = extract_texts(), read(path)
    assert set(messages) - {""} == set(texts)
    assert {text: messages[text].plural for text in texts} == texts


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.stem)
def test_every_text_is_translated_with_its_placeholders(path):
    for message in parse_po(path.read_text("utf-8"))[1:]:
        assert message.is_translated, message.text
        assert not message.is_fuzzy, message.text
        for translation in message.translations.values():
            wanted = PLACEHOLDER.findall(message.plural or message.text)
            assert sorted(PLACEHOLDER.findall(translation)) == sorted(wanted), message.text


def test_chinese_texts_are_chinese():
    for text, message in read(FOLDER / "zh.po").items():
        if text and text not in SAME_IN_CHINESE:
            assert re.search(r"[\u4e00-\u9fff]", message.translations[0]), text


@pytest.mark.parametrize(
    ("accepted", "code"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9", "zh"),
        ("zh-Hans-CN", "zh"),
        ("zh-TW", "zh"),
        ("zh-HK,en;q=0.5", "zh"),
        ("ZH-cn", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("de,fr;q=0.9", "en"),
        ("de, zh;q=0.3", "zh"),
        ("en;q=0.2, zh;q=0.8", "zh"),
        ("zh;q=0.2, en;q=0.8", "en"),
        ("zh;q=0, en", "en"),
        ("zh;q=0", "en"),
        ("*", "en"),
        ("zh;q=nonsense, en", "en"),
        ("zh;level=1, en", "en"),
        ("zh;q=2", "en"),
        (" zh ; q=0.9 , en ;q=0.8", "zh"),
        (",,;q=1,zh", "zh"),
        ("x" * 10_000, "en"),
    ],
)
def test_language_is_the_best_that_the_browser_accepts(accepted: str, code: str):
    assert choose_language(("en", "zh"), "", accepted) == code


def test_choice_of_the_reader_goes_before_the_browsers():
    assert choose_language(("en", "zh"), "zh", "en") == "zh"
    assert choose_language(("en", "zh"), "nonsense", "zh") == "zh"


def test_merge_keeps_translations_and_drops_what_is_gone():
    header = Message("", "", {0: "Language: xx\n"})
    merged = merge([header, Message("kept", "", {0: "K"}), Message("gone", "", {0: "G"})], {"kept": "", "new": "news"})
    assert merged == [header, Message("kept", "", {0: "K"}), Message("new", "news", {})]
