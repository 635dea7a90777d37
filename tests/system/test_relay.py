"""A healthy farm relays every route unchanged."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from simulator import responses as simulated
from tests.system.farm import KEY, Farm, chat_body, events, streamed_text


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_chat_completion_is_relayed(farm: Farm, prefix: str):
    response = farm.post(f"{prefix}/chat/completions", chat_body("Hello, Wörld"))
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "Uryyb, Jöeyq"
    assert response.json()["usage"]["total_tokens"] == 4


def test_reply_headers_tell_attempts_and_times(farm: Farm):
    headers = farm.chat().headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-farm-attempts"] == "1"
    assert int(headers["x-queue-wait-ms"]) < 5000
    assert int(headers["openai-processing-ms"]) < 5000
    assert headers["content-type"] == "application/json"


def test_stream_arrives_in_pieces_and_complete(farm: Farm):
    farm.upstream.pace(chunks=30, chunk_delay=0.01)
    text = "The quick brown fox jumps over the lazy dog"
    response = farm.chat(text, stream=True)
    pieces = list(response.iter_content(None))
    assert len(pieces) > 5
    assert response.headers["content-type"].startswith("text/event-stream")
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert streamed_text(farm.chat(text, stream=True)) == simulated.translate(text)


def test_usage_is_streamed_only_when_requested(farm: Farm):
    assert '"usage"' in farm.chat(stream=True, stream_options={"include_usage": True}).text
    assert '"usage"' not in farm.chat(stream=True).text


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/completions", {"prompt": "Hello"}, lambda body: body["choices"][0]["text"] == "Uryyb"),
        ("/embeddings", {"input": ["a", "b"]}, lambda body: [len(d["embedding"]) for d in body["data"]] == [8, 8]),
        ("/moderations", {"input": "x"}, lambda body: body["results"][0]["flagged"] is False),
        ("/images/generations", {"prompt": "Hello"}, lambda body: body["data"][0]["b64_json"] == "VXJ5eWI="),
        ("/responses", {"input": "Hello"}, lambda body: body["output"][0]["content"][0]["text"] == "Uryyb"),
    ],
)
def test_every_json_route_is_relayed(farm: Farm, path: str, body: dict, expected):
    response = farm.post(f"/v1{path}", {"model": "m", **body})
    assert response.status_code == 200, response.text
    assert expected(response.json())


def test_responses_api_stream_is_relayed(farm: Farm):
    received = events(farm.post("/v1/responses", {"model": "m", "input": "Hello", "stream": True}))
    assert received[-1].startswith("event: response.completed")


def test_binary_reply_is_unchanged(farm: Farm):
    response = farm.post("/v1/audio/speech", {"model": "tts-sim", "input": "Hello", "voice": "x"})
    assert response.content == simulated.build_speech({"input": "Hello"})
    assert response.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize(
    "path", ["/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations"]
)
def test_multipart_body_is_unchanged(farm: Farm, path: str):
    sound = bytes(range(256)) * 1000
    prepared = requests.Request(
        "POST", farm.url, data={"model": "whisper-sim"}, files={"file": ("a.mp3", sound, "audio/mpeg")}
    ).prepare()
    headers = {"authorization": f"Bearer {KEY}", "content-type": prepared.headers["content-type"]}
    response = requests.post(f"{farm.url}/v1{path}", data=prepared.body, headers=headers, timeout=30)
    assert response.json()["text"] == hashlib.sha256(prepared.body).hexdigest()


def test_upstream_models_are_listed(farm: Farm):
    listed = farm.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == list(simulated.MODELS)
    assert farm.get("/models/tts-sim").json()["id"] == "tts-sim"
    missing = farm.get("/v1/models/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_callers_error_is_passed_on_unchanged_and_not_retried(farm: Farm):
    before = farm.upstream.counters()["served"]
    response = farm.post("/v1/chat/completions", {"model": "m", "messages": 3})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_type")
    assert farm.upstream.counters()["served"] == before + 1


def test_concurrent_requests_never_share_a_credential(farm: Farm):
    farm.upstream.pace(delay=0.05)
    texts = [f"text number {i}" for i in range(200)]
    with ThreadPoolExecutor(50) as pool:
        bodies = list(pool.map(lambda text: farm.chat(text).json(), texts))
    assert [body["choices"][0]["message"]["content"] for body in bodies] == [
        simulated.translate(text) for text in texts
    ]
    counters = farm.upstream.counters()
    assert (counters["collisions"], counters["served"]) == (0, 200)
    assert farm.metric("farm_collisions_total") == 0


def test_browser_extensions_may_call(farm: Farm):
    headers = {
        "origin": "chrome-extension://abc",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-my-own",
    }
    preflight = requests.options(farm.url + "/v1/chat/completions", headers=headers, timeout=10)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type,x-my-own"
    assert preflight.headers["access-control-allow-origin"] == "*"
    for response in (
        farm.chat(),
        farm.chat(stream=True),
        farm.post("/v1/nope"),
        requests.get(farm.url + "/v1/models", timeout=10),
    ):
        assert response.headers["access-control-allow-origin"] == "*"


def test_health_and_status_need_no_key(farm: Farm):
    assert requests.get(farm.url + "/healthz", timeout=10).json() == {"status": "ok"}
    assert requests.get(farm.url + "/readyz", timeout=10).status_code == 200
    status = requests.get(farm.url + "/api/status", timeout=10).json()
    assert (status["success"], status["message"]) == (True, "")
    assert status["data"]["pools"][0]["credentials"]["active"] == 8
    assert farm.metric("farm_requests_total") > 0
