"""Catalogues are read, written and compiled."""

import pytest

from shared.languages.po_file import Message, compile_messages, format_po, parse_po


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
