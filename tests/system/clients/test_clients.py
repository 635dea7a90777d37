"""Real clients work: OpenAI's SDKs for Python and Node, and a program that translates a book."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from simulator.responses import translate
from tests.environment import ROOT
from tests.system.farm import KEY, Farm

HERE = Path(__file__).parent


def find_program(program: str) -> str:
    """The path of a program; a missing one fails the test in CI and skips it elsewhere."""
    path = shutil.which(program)
    if not path:
        message = f"{program} is not installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return str(path)


def run(*command: str, timeout: float = 400, **options) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def test_python_sdk_works_plain_streamed_and_with_200_concurrent_calls(farm: Farm):
    farm.upstream.pace(delay=0.02)
    script = str(HERE / "python_sdk.py")
    assert (
        run(sys.executable, script, f"{farm.url}/v1", KEY, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        == "ok\n"
    )
    assert farm.upstream.counters()["collisions"] == 0


def test_node_sdk_works_plain_streamed_and_with_concurrent_calls(farm: Farm):
    node, npm = find_program("node"), find_program("npm")
    if not (HERE / "node" / "node_modules" / "openai").exists():
        run(npm, "ci", "--no-audit", "--no-fund", "--silent", cwd=HERE / "node")
    assert run(node, "client.mjs", f"{farm.url}/v1", KEY, cwd=HERE / "node") == "ok\n"


@pytest.fixture(scope="session")
def translator() -> Path:
    """bbook-maker in a virtual environment of its own, created once per lock file."""
    lock = HERE / "translator.lock"
    home = ROOT / ".venv-translator"
    stamp = home / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    if not stamp.exists():
        run(sys.executable, "-m", "venv", "--clear", str(home))
        run(
            str(home / "bin" / "pip"),
            "install",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(lock),
        )
        stamp.touch()
    return home / "bin"


MAKE_BOOK = """
import sys
from ebooklib import epub
lines = open(sys.argv[1]).read().splitlines()
book = epub.EpubBook()
book.set_identifier("farm-test"); book.set_title("Book"); book.set_language("en"); book.add_author("Nobody")
chapters = []
for number in range(4):
    chapter = epub.EpubHtml(title=f"Chapter {number}", file_name=f"c{number}.xhtml", lang="en")
    paragraphs = "".join(f"<p>{line}</p>" for line in lines[number * 5 : number * 5 + 5])
    chapter.content = f"<html><body><h1>Chapter {number}</h1>{paragraphs}</body></html>"
    book.add_item(chapter); chapters.append(chapter)
book.toc = tuple(chapters); book.spine = chapters
book.add_item(epub.EpubNcx()); book.add_item(epub.EpubNav())
epub.write_epub(sys.argv[2], book)
"""


def read_texts(book: Path) -> list[str]:
    """Headings and paragraphs of the chapters, in order."""
    texts = []
    with zipfile.ZipFile(book) as pages:
        for name in sorted(n for n in pages.namelist() if re.search(r"c\d\.xhtml$", n)):
            texts += re.findall(r"<(?:h1|p)[^>]*>(.*?)</(?:h1|p)>", pages.read(name).decode(), re.DOTALL)
    return texts


def test_translation_program_translates_a_book(farm: Farm, translator: Path, tmp_path: Path):
    farm.upstream.pace(delay=0.05)
    book = tmp_path / "book.epub"
    run(str(translator / "python"), "-c", MAKE_BOOK, str(HERE / "book.txt"), str(book))
    (tmp_path / "prompt.json").write_text('{"user": "{text}", "system": "Translate into {language}."}')
    run(
        *(str(translator / "bbook_maker"), "--book_name", str(book), "--prompt", "prompt.json"),
        *("--api_base", f"{farm.url}/v1", "--model", "sim-translate", "--language", "fr", "--single_translate"),
        *("--translate-tags", "p,h1", "--no_disclosure", "--parallel-workers", "4", "--quiet"),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BBM_API_KEY": KEY},
    )
    before, after = read_texts(book), read_texts(tmp_path / "book_bilingual.epub")
    assert len(before) == 24
    assert after == [translate(text) for text in before]
    assert farm.upstream.counters()["collisions"] == 0
