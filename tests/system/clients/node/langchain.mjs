// Run as a program of its own: LangChain for JavaScript against a farm, plain, streamed, and a batch.
import assert from "node:assert/strict";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { numberedTexts, rot13 } from "./rot13.mjs";

const [baseURL, apiKey] = process.argv.slice(2);
const options = { apiKey, maxRetries: 0, configuration: { baseURL } };
const chat = new ChatOpenAI({ model: "sim-translate", ...options });

const reply = await chat.invoke("Hello");
assert.equal(reply.content, "Uryyb");
assert.equal(reply.usage_metadata.total_tokens, 2);

let found = "";
for await (const chunk of await chat.stream("Hello there")) found += chunk.content;
assert.equal(found, "Uryyb gurer");

const texts = numberedTexts(40);
const replies = await chat.batch(texts);
assert.deepEqual(replies.map((each) => each.content), texts.map(rot13));

const embeddings = new OpenAIEmbeddings({ model: "text-embedding-sim", ...options });
assert.equal((await embeddings.embedDocuments(["a", "b"])).length, 2);
console.log("ok");
