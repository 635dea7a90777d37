// Run as a program of its own: the OpenAI Node SDK against a farm, plain, streamed, files, a batch, and many at once.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
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

const content = Buffer.from(`${"x".repeat(99)}\n`.repeat(50_000));
const file = await client.files.create({ file: await toFile(content, "a.jsonl"), purpose: "batch" });
assert.equal(file.bytes, content.length);
const files = [];
for await (const one of client.files.list({ limit: 1 })) files.push(one.id);
assert.deepEqual(files, [file.id]);
assert.equal((await client.files.retrieve(file.id)).filename, "a.jsonl");
assert.deepEqual(Buffer.from(await (await client.files.content(file.id)).arrayBuffer()), content);
assert.equal((await client.files.delete(file.id)).deleted, true);
await assert.rejects(client.files.retrieve(file.id), { status: 404, param: "id" });

const lines = texts.map((text, number) => JSON.stringify({
  custom_id: `${number}`, method: "POST", url: "/v1/chat/completions",
  body: { model, messages: [{ role: "user", content: text }] },
}));
const book = await client.files.create({ file: await toFile(Buffer.from(lines.join("\n")), "b.jsonl"), purpose: "batch" });
let batch = await client.batches.create(
  { input_file_id: book.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
while (["validating", "in_progress", "finalizing"].includes(batch.status)) {
  await new Promise((resolve) => setTimeout(resolve, 200));
  batch = await client.batches.retrieve(batch.id);
}
assert.equal(batch.status, "completed");
const output = (await (await client.files.content(batch.output_file_id)).text()).trimEnd().split("\n").map((line) => JSON.parse(line));
output.sort((one, other) => one.custom_id - other.custom_id);
assert.deepEqual(output.map((line) => line.response.body.choices[0].message.content), texts.map(rot13));
await assert.rejects(client.batches.cancel(batch.id), { status: 409, code: "batch_not_cancellable" });

await assert.rejects(client.chat.completions.create({ model, messages: 3 }), { status: 400, code: "invalid_type" });
await assert.rejects(new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list(), { status: 401 });
console.log("ok");
