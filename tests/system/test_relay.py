"""What a caller sees of a farm that is well: every route, passed as it came."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from simulator import responses
from tests.system.farm import KEY, Farm, chat_body, events, streamed_text


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_a_text_is_translated(farm: Farm, prefix: str):
    answer = farm.post(f"{prefix}/chat/completions", chat_body("Hello, Wörld"))
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Uryyb, Jöeyq"
    assert answer.json()["usage"]["total_tokens"] == 4


def test_an_answer_tells_how_it_came_about(farm: Farm):
    headers = farm.chat().headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-farm-attempts"] == "1"
    assert int(headers["x-queue-wait-ms"]) < 5000
    assert int(headers["openai-processing-ms"]) < 5000
    assert headers["content-type"] == "application/json"


def test_a_stream_comes_in_pieces_and_whole(farm: Farm):
    farm.upstream.pace(chunks=30, chunk_delay=0.01)
    text = "The quick brown fox jumps over the lazy dog"
    answer = farm.chat(text, stream=True)
    pieces = list(answer.iter_content(None))
    assert len(pieces) > 5
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert streamed_text(farm.chat(text, stream=True)) == responses.translate(text)


def test_usage_comes_when_it_was_asked_for(farm: Farm):
    assert '"usage"' in farm.chat(stream=True, stream_options={"include_usage": True}).text
    assert '"usage"' not in farm.chat(stream=True).text


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/completions", {"prompt": "Hello"}, lambda a: a["choices"][0]["text"] == "Uryyb"),
        ("/embeddings", {"input": ["a", "b"]}, lambda a: [len(d["embedding"]) for d in a["data"]] == [8, 8]),
        ("/moderations", {"input": "x"}, lambda a: a["results"][0]["flagged"] is False),
        ("/images/generations", {"prompt": "Hello"}, lambda a: a["data"][0]["b64_json"] == "VXJ5eWI="),
        ("/responses", {"input": "Hello"}, lambda a: a["output"][0]["content"][0]["text"] == "Uryyb"),
    ],
)
def test_every_json_route_is_relayed(farm: Farm, path: str, body: dict, expected):
    answer = farm.post(f"/v1{path}", {"model": "m", **body})
    assert answer.status_code == 200, answer.text
    assert expected(answer.json())


def test_a_stream_of_the_responses_api_is_relayed(farm: Farm):
    found = events(farm.post("/v1/responses", {"model": "m", "input": "Hello", "stream": True}))
    assert found[-1].startswith("event: response.completed")


def test_a_binary_answer_is_the_same_byte_for_byte(farm: Farm):
    answer = farm.post("/v1/audio/speech", {"model": "tts-sim", "input": "Hello", "voice": "x"})
    assert answer.content == responses.build_speech({"input": "Hello"})
    assert answer.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize(
    "path", ["/audio/transcriptions", "/audio/translations", "/images/edits", "/images/variations"]
)
def test_a_multipart_body_arrives_as_it_was_sent(farm: Farm, path: str):
    sound = bytes(range(256)) * 1000
    prepared = requests.Request(
        "POST", farm.url, data={"model": "whisper-sim"}, files={"file": ("a.mp3", sound, "audio/mpeg")}
    ).prepare()
    headers = {"authorization": f"Bearer {KEY}", "content-type": prepared.headers["content-type"]}
    answer = requests.post(f"{farm.url}/v1{path}", data=prepared.body, headers=headers, timeout=30)
    assert answer.json()["text"] == hashlib.sha256(prepared.body).hexdigest()


def test_the_upstreams_models_are_listed(farm: Farm):
    listed = farm.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == list(responses.MODELS)
    assert farm.get("/models/tts-sim").json()["id"] == "tts-sim"
    missing = farm.get("/v1/models/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_an_error_of_the_callers_comes_from_the_upstream_as_it_is_and_is_not_retried(farm: Farm):
    before = farm.upstream.counters()["served"]
    answer = farm.post("/v1/chat/completions", {"model": "m", "messages": 3})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_type")
    assert farm.upstream.counters()["served"] == before + 1


def test_many_at_once_keep_every_account_busy_and_never_twice(farm: Farm):
    farm.upstream.pace(delay=0.05)
    texts = [f"text number {i}" for i in range(200)]
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda text: farm.chat(text).json(), texts))
    assert [one["choices"][0]["message"]["content"] for one in found] == [responses.translate(text) for text in texts]
    counters = farm.upstream.counters()
    assert (counters["collisions"], counters["served"]) == (0, 200)
    assert farm.metric("farm_collisions_total") == 0


def test_browsers_extensions_may_call(farm: Farm):
    headers = {
        "origin": "chrome-extension://abc",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-my-own",
    }
    asked = requests.options(farm.url + "/v1/chat/completions", headers=headers, timeout=10)
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type,x-my-own"
    assert asked.headers["access-control-allow-origin"] == "*"
    for answer in (
        farm.chat(),
        farm.chat(stream=True),
        farm.post("/v1/nope"),
        requests.get(farm.url + "/v1/models", timeout=10),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in requests.get(farm.url + "/admin/login", timeout=10).headers


def test_health_and_status_need_no_key(farm: Farm):
    assert requests.get(farm.url + "/healthz", timeout=10).json() == {"status": "ok"}
    assert requests.get(farm.url + "/readyz", timeout=10).status_code == 200
    status = requests.get(farm.url + "/api/status", timeout=10).json()
    assert (status["success"], status["message"]) == (True, "")
    assert status["data"]["pools"][0]["credentials"]["active"] == 8
    assert farm.metric("farm_requests_total") > 0
