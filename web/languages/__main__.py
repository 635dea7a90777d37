"""`python -m web.languages`: brings the catalogues up to date with the sources; new texts are left to translate."""

from shared.languages.catalogues import FOLDER
from shared.languages.po_file import format_po, parse_po
from web.languages.extraction import extract_texts, merge


def main() -> None:
    texts = extract_texts()
    for path in sorted(FOLDER.glob("*.po")):
        messages = merge(parse_po(path.read_text("utf-8")), texts)
        path.write_text(format_po(messages), "utf-8")
        missing = sum(not message.is_translated for message in messages)
        print(f"{path.name}: {len(messages)} texts, {missing} to translate")


if __name__ == "__main__":
    main()
