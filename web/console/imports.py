"""Imports accounts from pasted text or a file, with a preview of what would become of each line."""

from flask import request
from werkzeug.wrappers import Response as BaseResponse

from shared.errors import ApiError
from web.admin import credentials
from web.admin.schemas.credentials import MAX_IMPORT_CHARACTERS, ImportResult, NewCredentialText
from web.console.parts.blueprint import blueprint, render_page
from web.languages.translation import gettext

#: Lines of the report that are shown, those that are not new first; the counts are of all.
SHOWN_LINES = 200


@blueprint.get("/accounts/import")
def import_accounts() -> str:
    return show_import()


@blueprint.post("/accounts/import")
def submit_import() -> BaseResponse | str:
    """Previews or carries out an import. The text, which holds tokens, is never sent back."""
    text = read_import_text()
    if not text.strip():
        return show_import(problem=gettext("There is no text to import: paste tokens or choose a file."))
    pool, label = request.form.get("pool", ""), request.form.get("label", "")[:200]
    is_preview = request.form.get("action") != "import"
    body = NewCredentialText(pool=pool, label=label, text=text, dry_run=is_preview)
    return show_import(report=credentials.import_credentials(body), is_preview=is_preview, pool=pool)


def read_import_text() -> str:
    """The file, or what was pasted. Raises ApiError 413."""
    file = request.files.get("file")
    text = file.read().decode("utf-8", "replace") if file and file.filename else request.form.get("text", "")
    if len(text) > MAX_IMPORT_CHARACTERS:
        raise ApiError(413, "request_too_large", f"an import takes at most {MAX_IMPORT_CHARACTERS} characters")
    return text


def show_import(
    report: ImportResult | None = None, *, is_preview: bool = False, problem: str = "", pool: str = ""
) -> str:
    lines = sorted(report.lines, key=lambda line: line.outcome == "added") if report else []
    return render_page(
        "import.html",
        active="accounts",
        report=report,
        lines=lines[:SHOWN_LINES],
        is_preview=is_preview,
        problem=problem,
        pool=pool,
        pools=credentials.list_configured_pools(),
    )
