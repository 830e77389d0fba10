/**
 * Measures this SDK beside the `openai` client for `benchmarks/clients.py`, and prints a line of
 * JSON for each case and client: how many calls a second it makes.
 *
 * - decode: from the bytes of one base64 answer, in memory, to its vectors.
 * - calls: of one text, one after another, over a kept connection to a server of another thread
 *   that answers at once.
 *
 * Both take turns, and the median of all rounds counts. Options: --rounds 5, --seconds 2.
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
  const body = answer(1, WIDTH);
  const headers = { "content-type": "application/json", "content-length": body.length };
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => response.writeHead(200, headers).end(body));
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** One function for each client: it embeds `input` by the options that both clients take. */
function clients(serverURL, options) {
  const ours = new SDK({ serverURL, bearerAuth: "k", ...options }).llm.embeddings;
  const theirs = new OpenAI({ baseURL: `${serverURL}/v1`, apiKey: "k", ...options }).embeddings;
  return {
    "@embedway/sdk": (input) => ours.embed({ embeddingsRequest: { input, model: "auto" } }),
    [`openai ${devDependencies.openai} (JavaScript)`]: (input) =>
      theirs.create({ input, model: "auto" }),
  };
}

/** Returns how many calls end per second, one after another. */
async function repeat(embed, seconds) {
  const begin = performance.now();
  let [calls, elapsed] = [0, 0];
  while (calls === 0 || elapsed < seconds) {
    await embed();
    calls++;
    elapsed = (performance.now() - begin) / 1000;
  }
  return calls / elapsed;
}

/** Lets the clients take turns, and prints the median of each. */
async function compare(name, input, embeds, { rounds, seconds }) {
  const seen = Object.fromEntries(Object.keys(embeds).map((client) => [client, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [client, embed] of Object.entries(embeds)) {
      const rate = await repeat(() => embed(input), round < 0 ? 0.1 : seconds);
      if (round >= 0) seen[client].push(rate); // The first one warms up.
    }
  }
  for (const [client, values] of Object.entries(seen))
    console.log(JSON.stringify({ case: name, client, per_second: median(values) }));
}

async function main() {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "5" },
      seconds: { type: "string", default: "2" },
    },
  });
  const options = { rounds: Number(values.rounds), seconds: Number(values.seconds) };

  const bytes = answer(ITEMS, WIDTH);
  const headers = { "content-type": "application/json" };
  const fetch = async () => new Response(bytes, { headers });
  const input = Array(ITEMS).fill("text");
  await compare(`decode ${ITEMS} x ${WIDTH}`, input, clients("http://none", { fetch }), options);

  const server = new Worker(new URL(import.meta.url));
  const port = await new Promise((resolve) => server.once("message", resolve));
  await compare("calls", "text", clients(`http://127.0.0.1:${port}`, {}), options);
  await server.terminate();
}

await (isMainThread ? main() : serve());
