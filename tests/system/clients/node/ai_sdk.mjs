// Run as a program of its own: Vercel's AI SDK against a farm, plain, streamed, structured, and many at once.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, streamText } from "ai";
import { numberedTexts, rot13 } from "./rot13.mjs";

const [baseURL, apiKey] = process.argv.slice(2);
const farm = createOpenAICompatible({ name: "farm", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const model = farm("sim-translate");

const { text, usage } = await generateText({ model, prompt: "Hello", maxRetries: 0 });
assert.equal(text, "Uryyb");
assert.equal(usage.totalTokens, 2);

async function streamed(prompt) {
  const stream = streamText({ model, prompt, maxRetries: 0, onError: ({ error }) => console.error(error) });
  let found = "";
  for await (const part of stream.textStream) found += part;
  assert.equal(await stream.finishReason, "stop");
  assert.ok((await stream.usage).totalTokens > 0);
  return found;
}
assert.equal(await streamed("Hello there"), "Uryyb gurer");

const properties = { name: { type: "string" }, age: { type: "number" } };
const schema = jsonSchema({ type: "object", properties, required: ["name", "age"], additionalProperties: false });
const prompt = rot13('{"name": "Ann", "age": 7}');
const { output } = await generateText({ model, prompt, output: Output.object({ schema }), maxRetries: 0 });
assert.deepEqual(output, { name: "Ann", age: 7 });

const texts = numberedTexts(40);
assert.deepEqual(await Promise.all(texts.map(streamed)), texts.map(rot13));
console.log("ok");
