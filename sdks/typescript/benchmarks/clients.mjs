/**
 * Measures this SDK beside the `openai` client, and prints a line of JSON for each case.
 *
 * - `decode 2048x1536`: milliseconds from the bytes of one base64 answer, in memory, to vectors.
 * - `calls`: calls a second, one after the other, each of one text, over a kept connection to a
 *   server of another thread that answers at once.
 *
 * Both take turns, and the median of all rounds counts. Options: --rounds 15, --calls 500.
 */

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker } from "node:worker_threads";
import { SDK } from "@embedway/sdk";
import OpenAI from "openai";

const { devDependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url)));

const ITEMS = 2048;
const WIDTH = 1536;

/** The bytes of an answer with this many vectors of this width. */
function answer(items, width) {
  const data = Array.from({ length: items }, (_, index) => {
    const vector = Float32Array.from({ length: width }, () => Math.random() - 0.5);
    const embedding = Buffer.from(vector.buffer).toString("base64");
    return { object: "embedding", index, embedding };
  });
  const usage = { prompt_tokens: items, total_tokens: items };
  const rest = { id: "embd_1", created: 1, provider: "benchmark" };
  return Buffer.from(JSON.stringify({ object: "list", data, model: "auto", usage, ...rest }));
}

function serve() {
  const body = answer(1, 384);
  const headers = { "content-type": "application/json", "content-length": body.length };
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => response.writeHead(200, headers).end(body));
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const print = (line) => console.log(JSON.stringify(line));

/** One function for each client: it embeds `input` by the options that both clients take. */
function clients(serverURL, options) {
  const ours = new SDK({ serverURL, bearerAuth: "k", ...options }).llm.embeddings;
  const theirs = new OpenAI({ baseURL: `${serverURL}/v1`, apiKey: "k", ...options }).embeddings;
  return {
    "@embedway/sdk": (input) => ours.embed({ embeddingsRequest: { input, model: "auto" } }),
    [`openai ${devDependencies.openai}`]: (input) => theirs.create({ input, model: "auto" }),
  };
}

/** Lets the clients take turns, and prints the median of each and how they compare. */
async function compare(name, rounds, unit, embeds, measure) {
  const seen = Object.fromEntries(Object.keys(embeds).map((client) => [client, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [client, embed] of Object.entries(embeds)) {
      const value = await measure(embed);
      if (round >= 0) seen[client].push(value); // The first one warms up.
    }
  }
  const medians = Object.entries(seen).map(([client, values]) => [client, median(values)]);
  for (const [client, value] of medians) {
    print({ client, case: name, [unit]: Number(value.toPrecision(4)) });
  }
  const [[, ours], [, theirs]] = medians;
  const ratio = unit === "ms" ? theirs / ours : ours / theirs;
  print({ case: name, times_as_fast: Number(ratio.toPrecision(3)) });
}

async function main() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "15" },
      calls: { type: "string", default: "500" },
    },
  });
  const [rounds, calls] = [Number(values.rounds), Number(values.calls)];

  const bytes = answer(ITEMS, WIDTH);
  const headers = { "content-type": "application/json" };
  const fetch = async () => new Response(bytes, { headers });
  const input = Array(ITEMS).fill("text");
  await compare(
    `decode ${ITEMS}x${WIDTH}`,
    rounds,
    "ms",
    clients("http://none", { fetch }),
    async (embed) => {
      const begin = performance.now();
      const { data } = await embed(input);
      const ms = performance.now() - begin;
      if (data.length !== ITEMS || data[ITEMS - 1].embedding.length !== WIDTH)
        throw new Error("lost");
      return ms;
    },
  );

  const server = new Worker(new URL(import.meta.url));
  const port = await new Promise((resolve) => server.once("message", resolve));
  await compare(
    "calls",
    rounds,
    "per_s",
    clients(`http://127.0.0.1:${port}`, {}),
    async (embed) => {
      const begin = performance.now();
      for (let call = 0; call < calls; call++) await embed("text");
      return calls / ((performance.now() - begin) / 1000);
    },
  );
  await server.terminate();
}

await (isMainThread ? main() : serve());
