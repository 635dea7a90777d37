// Run as a program of its own, against a farm whose upstream breaks off every stream: each program sees an error.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatOpenAI } from "@langchain/openai";
import { streamText } from "ai";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const prompt = "A text that is long enough to be cut in the middle";

async function readWithOpenai() {
  const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
  const messages = [{ role: "user", content: prompt }];
  for await (const _ of await client.chat.completions.create({ model: "sim-translate", messages, stream: true }));
}

async function readWithLangchain() {
  const chat = new ChatOpenAI({ model: "sim-translate", apiKey, maxRetries: 0, configuration: { baseURL } });
  for await (const _ of await chat.stream(prompt));
}

async function readWithAiSdk() {
  const model = createOpenAICompatible({ name: "farm", baseURL, apiKey })("sim-translate");
  const stream = streamText({ model, prompt, maxRetries: 0, onError: () => {} });
  for await (const part of stream.fullStream) if (part.type === "error") throw part.error;
}

for (const read of [readWithOpenai, readWithLangchain, readWithAiSdk])
  await assert.rejects(read(), (error) => error.code === "upstream_eof" || /broke off|upstream/.test(error.message));
console.log("ok");
