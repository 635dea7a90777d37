"""Files: those of all keys and what each key stores, and one with the batch that used it."""

from werkzeug.wrappers import Response as BaseResponse

from shared.files.key_storage import SCARCE_SHARE
from web.admin.files import resource
from web.admin.files.schemas import FileQuery, StorageQuery
from web.console.parts.blueprint import blueprint, go_to, render_page
from web.console.parts.lists import read_text

SHOWN, SHOWN_KEYS = 50, 20


@blueprint.get("/files")
def files() -> str:
    query = FileQuery(limit=SHOWN, cursor=read_text("cursor")[:100], key=read_text("key")[:100])
    return render_page(
        "files.html",
        active="files",
        page=resource.list_files(query),
        query=query,
        storage=resource.list_key_storage(StorageQuery(limit=SHOWN_KEYS)),
        scarce_share=SCARCE_SHARE,
    )


@blueprint.get("/files/<file_id>")
def file(file_id: str) -> str:
    return render_page("file.html", active="files", file=resource.get_file(file_id))


@blueprint.post("/files/<file_id>/delete")
def delete_file(file_id: str) -> BaseResponse:
    resource.remove_file(file_id)
    return go_to("files", "file_deleted")
