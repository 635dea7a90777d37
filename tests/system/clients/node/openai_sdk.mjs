// Run as a program of its own: the OpenAI Node SDK against a farm, plain, streamed, and many at once.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { numberedTexts, rot13 } from "./rot13.mjs";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const model = "sim-translate";
const messages = (content) => [{ role: "user", content }];

const answer = await client.chat.completions.create({ model, messages: messages("Hello") });
assert.equal(answer.choices[0].message.content, "Uryyb");

async function streamed(text) {
  let found = "";
  const stream = await client.chat.completions.create({ model, messages: messages(text), stream: true });
  for await (const chunk of stream) found += chunk.choices[0]?.delta?.content ?? "";
  return found;
}
assert.equal(await streamed("Hello there"), "Uryyb gurer");

const texts = numberedTexts(60);
assert.deepEqual(await Promise.all(texts.map(streamed)), texts.map(rot13));

const models = [];
for await (const one of client.models.list()) models.push(one.id);
assert.ok(models.includes(model));

await assert.rejects(client.chat.completions.create({ model, messages: 3 }), { status: 400, code: "invalid_type" });
await assert.rejects(new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list(), { status: 401 });
console.log("ok");
