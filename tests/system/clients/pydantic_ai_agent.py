"""A program that uses Pydantic AI against a farm: plain, streamed, structured, and 40 runs at once."""

import asyncio
import sys

from httpx2 import AsyncClient
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from simulator.responses import translate

URL, KEY = sys.argv[1:3]


class Person(BaseModel):
    name: str
    age: int


async def main() -> None:
    # By default it gives up on a connection after 5 seconds, which many at once can take.
    provider = OpenAIProvider(base_url=URL, api_key=KEY, http_client=AsyncClient(timeout=300))
    model = OpenAIChatModel("sim-translate", provider=provider)
    agent = Agent(model)
    result = await agent.run("Hello")
    assert result.output == "Uryyb"
    assert (result.usage.input_tokens, result.usage.output_tokens) == (1, 1)
    async with agent.run_stream("Hello there") as stream:
        assert "".join([text async for text in stream.stream_text(delta=True)]) == "Uryyb gurer"
    # The simulator's translation of this prompt is the object that the response format asks for.
    structured = await Agent(model, output_type=NativeOutput(Person)).run(translate('{"name": "Ann", "age": 7}'))
    assert structured.output == Person(name="Ann", age=7)
    texts = [f"This is text number {number}" for number in range(40)]
    results = await asyncio.gather(*(agent.run(text) for text in texts))
    assert [result.output for result in results] == [translate(text) for text in texts]


asyncio.run(main())
print("ok")
