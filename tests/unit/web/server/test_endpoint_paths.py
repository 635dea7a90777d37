"""A path means the endpoint at its end, whatever base URL a program has put it behind."""

import time

import pytest

from web.routes.relay import ENDPOINTS
from web.server.endpoint_paths import EndpointPaths

PATHS = EndpointPaths(ENDPOINTS)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "/v1",
        "/v1/v1",
        "/openai",
        "/openai/v1",
        "/v1/openai",
        "/v1/chat/completions",
        "/chat/completions/v1",
        "/v1/models",
    ],
)
@pytest.mark.parametrize("endpoint", ["chat/completions", "completions", "audio/speech", "models"])
def test_endpoint_is_found_behind_any_base_url(base: str, endpoint: str):
    for end in ("", "/"):
        assert PATHS.resolve(f"{base}/{endpoint}{end}") == (f"/v1/{endpoint}", "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/openai/deployments/m/chat/completions", ("/v1/chat/completions", "m")),
        ("/openai/deployments/org/m:1/audio/speech", ("/v1/audio/speech", "org/m:1")),
        ("/v1/openai/deployments/m/v1/completions", ("/v1/completions", "m")),
        ("/v1/engines/m/completions", ("/v1/completions", "m")),
        ("/deployments/m/embeddings", ("/v1/embeddings", "m")),
        ("/v1/models/org/m", ("/v1/models/org/m", "")),
        ("/openai/v1/models/m", ("/v1/models/m", "")),
        ("/models/completions-m", ("/v1/models/completions-m", "")),
        ("/v1/v1/responses/resp_1", ("/v1/responses/resp_1", "")),
        ("/openai/v1/dashboard/billing/usage", ("/v1/dashboard/billing/usage", "")),
        ("/v1/v1", ("/v1", "")),
        ("/openai/", ("/v1", "")),
        ("/", ("/", "")),
        ("/v1", ("/v1", "")),
        ("/v2/chat/completions", ("/v2/chat/completions", "")),
        ("/v1/chat/completionsx", ("/v1/chat/completionsx", "")),
        ("/v1/nope/chat/completions", ("/v1/nope/chat/completions", "")),
        ("/healthz", ("/healthz", "")),
    ],
)
def test_models_and_other_paths(path: str, expected: tuple[str, str]):
    assert PATHS.resolve(path) == expected


@pytest.mark.parametrize("part", ["v1/", "models/", "chat/completions/", "openai/deployments/a/", "deployments/", "x/"])
def test_time_is_linear_in_the_length_of_the_path(part: str):
    started_at = time.process_time()
    for _ in range(20):
        PATHS.resolve("/" + part * (8000 // len(part)) + "nope")
    assert time.process_time() - started_at < 5
