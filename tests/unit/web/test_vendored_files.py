"""The console's scripts from other projects are the ones that npm has, byte for byte."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path("web/static/vendor")
FILES: list[dict[str, Any]] = tomllib.loads((FOLDER / "vendor.toml").read_text())["files"]


def test_folder_holds_the_listed_files_and_their_licences_only():
    listed = {"vendor.toml", *(file["name"] for file in FILES), *(file["license"] for file in FILES)}
    assert {path.name for path in FOLDER.iterdir()} == listed


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["name"])
def test_file_has_its_hash(file: dict[str, Any]):
    assert hashlib.sha256((FOLDER / file["name"]).read_bytes()).hexdigest() == file["sha256"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file["name"])
def test_file_is_that_of_the_package(file: dict[str, Any], tmp_path: Path):
    if not shutil.which("npm"):
        pytest.fail("npm is not installed") if os.environ.get("CI") else pytest.skip("npm is not installed")
    command = ["npm", "pack", "--json", "--pack-destination", str(tmp_path), file["package"]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode and not os.environ.get("CI"):
        pytest.skip("the npm registry can't be reached")
    assert result.returncode == 0, result.stderr
    tarball = (tmp_path / json.loads(result.stdout)[0]["filename"]).read_bytes()
    assert f"sha512-{base64.b64encode(hashlib.sha512(tarball).digest()).decode()}" == file["integrity"]
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        packed = archive.extractfile(file["path"])
        assert packed is not None
        assert packed.read() == (FOLDER / file["name"]).read_bytes()
