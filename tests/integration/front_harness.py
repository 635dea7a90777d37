"""A front's app in this process, called without HTTP."""

import json
from typing import Any

from redis import Redis
from werkzeug.test import EnvironBuilder

from shared.api_keys.store import ApiKeys
from shared.settings.schema import Settings
from tests import internals
from web.app import create_app
from web.services import EXTENSION, WebServices


class FrontHarness:
    """An app whose hub listens for replies, and an API key."""

    def __init__(self, redis: Redis, redis_url: str, **settings: Any) -> None:
        self.redis = redis
        self.app = create_app(Settings(redis_url=redis_url, **settings))
        self.services: WebServices = self.app.extensions[EXTENSION]
        self._listener = internals.start_listening(self.services.hub)
        self.secret, _ = ApiKeys(redis).create("test")

    def build_environ(self, **fields: Any) -> dict[str, Any]:
        """The WSGI environment of a chat request with these fields."""
        body = {"model": "m", "messages": [{"role": "user", "content": "Hello " * 40}], **fields}
        return EnvironBuilder(
            "/v1/chat/completions",
            method="POST",
            data=json.dumps(body),
            content_type="application/json",
            headers={"authorization": f"Bearer {self.secret}"},
        ).get_environ()

    def call(self, environ: dict[str, Any]) -> bytes:
        """The body of the app's response, read to its end."""
        response = self.app.wsgi_app(environ, lambda *_: lambda *_: None)
        try:
            return b"".join(response)
        finally:
            response.close()  # type: ignore[attr-defined]

    def close(self) -> None:
        internals.kill_fetches(self.services.model_lists)
        self._listener.kill()
