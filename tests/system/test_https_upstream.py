"""An upstream and a token endpoint behind TLS, with a certificate authority of the operator's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.farm import Farm, chat_body, start_farm, streamed_text
from tests.upstream import start_simulator
from tests.waiting import eventually


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("https")
    process, upstream = start_simulator("--accounts", "2", "--rotate", "--https", str(folder / "certificate.pem"))
    running = start_farm(folder / "data", upstream, 2, FARM_CA_BUNDLE=upstream.certificate)
    yield running
    assert running.command("stop").returncode == 0
    process.terminate()
    process.communicate()


def test_responses_and_refreshes_pass_over_tls(farm: Farm):
    farm.upstream.pace(chunks=20, chunk_delay=0.02)
    whole = farm.chat("to be or not to be", stream=False)
    assert whole.status_code == 200
    text = whole.json()["choices"][0]["message"]["content"]
    assert streamed_text(farm.post("/v1/chat/completions", chat_body("to be or not to be", stream=True))) == text
    farm.upstream.accounts(expire=True)
    assert farm.chat(stream=False).status_code == 200
    counters = farm.upstream.counters()
    assert (counters["collisions"], counters["refreshes"] > 0) == (0, True)


def test_caller_who_leaves_frees_the_worker_over_tls(farm: Farm):
    farm.upstream.pace(chunks=1000, chunk_delay=0.05)
    response = farm.post("/v1/chat/completions", chat_body(stream=True), stream=True)
    assert next(response.iter_content(10))
    response.close()
    eventually(lambda: farm.upstream.counters()["in_flight"] == 0)
