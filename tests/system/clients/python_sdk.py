"""A program that uses the OpenAI Python SDK against a farm: plain, streamed, files, and 200 concurrent calls."""

import asyncio
import io
import sys

from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from simulator.responses import translate

URL, KEY = sys.argv[1:3]
MODEL = "sim-translate"
#: Seconds, for connecting too: by default the SDK gives up after 5, which 200 connections at once can take.
TIMEOUT_SECONDS = 300


def plain(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert completion.choices[0].message.content == "Uryyb"
    assert completion.usage and completion.usage.total_tokens == 2
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hello there"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Uryyb gurer"
    assert chunks[-1].usage
    assert len(client.embeddings.create(model="text-embedding-sim", input=["a", "b"]).data) == 2
    assert "sim-translate" in [model.id for model in client.models.list()]
    assert client.responses.create(model=MODEL, input="Hello").output_text == "Uryyb"
    assert client.audio.speech.create(model="tts-sim", voice="alloy", input="Hello").content.endswith(b"Uryyb")
    assert client.audio.transcriptions.create(model="whisper-sim", file=("a.mp3", b"\x00\xff" * 500)).text
    try:
        client.chat.completions.create(model=MODEL, messages="wrong")  # type: ignore[arg-type]
    except BadRequestError as error:
        assert error.code == "invalid_type"
    else:
        raise AssertionError("a wrong request was not refused")


def files(client: OpenAI) -> None:
    content = b'{"custom_id": "a"}\n' * 300_000
    expiry = {"anchor": "created_at", "seconds": 3600}
    first = client.files.create(file=("a.jsonl", io.BytesIO(content)), purpose="batch", expires_after=expiry)
    second = client.files.create(file=b"{}\n", purpose="batch")
    assert (first.filename, first.bytes, first.status) == ("a.jsonl", len(content), "processed")
    assert first.expires_at == first.created_at + 3600
    assert client.files.retrieve(first.id) == first
    # Among those of the other programs, by pages of one.
    listed = [file.id for file in client.files.list(limit=1, order="asc")]
    assert [file_id for file_id in listed if file_id in (first.id, second.id)] == [first.id, second.id]
    assert client.files.content(first.id).read() == content
    with client.files.with_streaming_response.content(first.id) as response:
        assert sum(map(len, response.iter_bytes())) == len(content)
    for file in (first, second):
        assert client.files.delete(file.id).deleted
    try:
        client.files.content(first.id)
    except NotFoundError as error:
        assert error.param == "id"
    else:
        raise AssertionError("a deleted file was found")
    try:
        client.files.create(file=b"{}", purpose="fine-tune")
    except BadRequestError as error:
        assert error.param == "purpose"
    else:
        raise AssertionError("a file for fine-tuning was taken")


async def many() -> None:
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=TIMEOUT_SECONDS) as client:

        async def ask(number: int) -> None:
            text = f"This is text number {number}"
            messages = [{"role": "user", "content": text}]
            if number % 2:
                completion = await client.chat.completions.create(model=MODEL, messages=messages)
                content = completion.choices[0].message.content
            else:
                stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
                content = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            assert content == translate(text), (content, text)

        await asyncio.gather(*(ask(number) for number in range(200)))


plain(OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=TIMEOUT_SECONDS))
files(OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=TIMEOUT_SECONDS))
asyncio.run(many())
print("ok")
