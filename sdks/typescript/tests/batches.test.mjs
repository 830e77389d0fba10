/** OpenAI's client against the gateway's files and batches. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const client = new OpenAI({
  apiKey: process.env.EMBEDWAY_API_KEY,
  baseURL: `${process.env.EMBEDWAY_BASE_URL}/v1`,
});
const UNFINISHED = ["validating", "in_progress", "finalizing", "cancelling"];

/** Reads the lines of a file of results. */
async function results(fileId) {
  const text = await (await client.files.content(fileId)).text();
  return text.trimEnd().split("\n").map(JSON.parse);
}

test("OpenAI's client submits a batch and reads its results.", async () => {
  const inputs = ["one", ["two", "three"], ""];
  const lines = inputs.map((input, at) =>
    JSON.stringify({
      custom_id: `line-${at}`,
      method: "POST",
      url: "/v1/embeddings",
      body: { model: "auto", input },
    }),
  );
  const file = await client.files.create({
    file: await toFile(Buffer.from(lines.join("\n")), "in.jsonl"),
    purpose: "batch",
    expires_after: { anchor: "created_at", seconds: 3600 },
  });
  assert.equal(file.expires_at, file.created_at + 3600);
  let batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/embeddings",
    completion_window: "24h",
    metadata: { run: "1" },
  });
  while (UNFINISHED.includes(batch.status)) {
    await sleep(100);
    batch = await client.batches.retrieve(batch.id);
  }
  assert.equal(batch.status, "completed");
  assert.deepEqual(batch.request_counts, { total: 3, completed: 2, failed: 1 });
  const answers = await results(batch.output_file_id);
  assert.deepEqual(
    answers.map((each) => each.response.body.data.length),
    [1, 2],
  );
  const [error] = await results(batch.error_file_id);
  assert.equal(error.custom_id, "line-2");
  assert.equal(error.response.status_code, 400);
  const listed = [];
  for await (const each of client.batches.list({ limit: 1 })) listed.push(each.id);
  assert(listed.includes(batch.id));
  assert((await client.files.delete(file.id)).deleted);
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});
