"""Lets the apps of one test process share what Werkzeug and Jinja compile for each: most of the time of their tests."""

from collections.abc import Hashable
from types import CodeType

import pytest
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from tests import internals


class CompiledTemplates(BytecodeCache):
    """Jinja's cache of compiled templates, in memory."""

    def __init__(self) -> None:
        self._codes: dict[Hashable, CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code
        self._codes[bucket.key, bucket.checksum] = bucket.code


def share_compilation(patch: pytest.MonkeyPatch) -> None:
    """Holds for all apps that are built until the patch is undone."""
    internals.share_url_builders(patch)
    patch.setattr(Flask, "jinja_options", {"bytecode_cache": CompiledTemplates()})
