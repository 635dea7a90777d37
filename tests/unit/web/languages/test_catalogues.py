"""Every text of the console has a translation in every language, with the same placeholders."""

import re

import pytest

from web.languages.catalogues import FOLDER, load_languages
from web.languages.choice import choose_language
from web.languages.extraction import extract_texts, merge
from web.languages.po_file import Message, compile_messages, format_po, parse_po

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


def test_catalogue_survives_being_written_and_read():
    messages = [
        Message("", "", {0: "Language: xx\nX-Language-Name: X\n"}),
        Message('say "hello"\n', "", {0: 'sag \\ "hallo"\n'}),
        Message("one", "%(count)s", {0: "eins", 1: "%(count)s viele"}),
        Message("unsure", "", {0: "unsicher"}, is_fuzzy=True),
    ]
    assert parse_po(format_po(messages)) == messages


def test_compiled_catalogue_leaves_out_what_is_unsure_or_missing():
    header = Message("", "", {0: "Plural-Forms: nplurals=2; plural=n != 1;\n"})
    texts = compile_messages(
        [
            header,
            Message("a", "", {0: "A"}),
            Message("b", "", {0: "B"}, is_fuzzy=True),
            Message("c", "", {0: ""}),
            Message("one", "many", {0: "eins", 1: "viele"}),
        ]
    )
    assert [texts.gettext(text) for text in "abc"] == ["A", "b", "c"]
    assert [texts.ngettext("one", "many", count) for count in (1, 2)] == ["eins", "viele"]


@pytest.mark.parametrize("line", ['"text"', "msgid text", "nonsense", 'msgctxt "x"'])
def test_line_that_is_none_of_a_catalogue_is_refused(line: str):
    with pytest.raises(ValueError, match=r"text before|no line"):
        parse_po(line)


def test_merge_keeps_translations_and_drops_what_is_gone():
    header = Message("", "", {0: "Language: xx\n"})
    merged = merge([header, Message("kept", "", {0: "K"}), Message("gone", "", {0: "G"})], {"kept": "", "new": "news"})
    assert merged == [header, Message("kept", "", {0: "K"}), Message("new", "news", {})]
