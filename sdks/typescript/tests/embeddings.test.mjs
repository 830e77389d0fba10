import assert from "node:assert/strict";
import { test } from "node:test";
import { SDK } from "@embedway/sdk";
import { embed } from "@embedway/sdk/embed";
import { startScripted } from "./scripted.mjs";

const sdk = new SDK();
const { embeddings } = sdk.llm;
const DIMENSIONS = 384;

const cosine = (one, other) => one.reduce((sum, value, index) => sum + value * other[index], 0);

test("Texts become Float32Array views on one buffer, in order.", async () => {
  const input = ["The quick brown fox", "grüße 🦊", "x".repeat(300)];
  const result = await embeddings.embed({
    embeddingsRequest: { input, model: "auto", truncate: "end" },
  });
  assert.equal(result.data.length, 3);
  assert.deepEqual(
    result.data.map((each) => each.index),
    [0, 1, 2],
  );
  const [{ embedding: first }] = result.data;
  for (const [index, { embedding }] of result.data.entries()) {
    assert(embedding instanceof Float32Array);
    assert.equal(embedding.length, DIMENSIONS);
    assert.equal(embedding.buffer, first.buffer);
    assert(Math.abs(cosine(embedding, embedding) - 1) < 1e-5);
    const alone = await embeddings.embed({
      embeddingsRequest: { input: input[index], truncate: "end" },
    });
    assert(cosine(alone.data[0].embedding, embedding) > 0.9999);
  }
  const { data, items, dimensions } = result.matrix();
  assert.equal(data.buffer, first.buffer);
  assert.deepEqual([items, dimensions, data.length], [3, DIMENSIONS, 3 * DIMENSIONS]);
});

test("A result has the model, usage, and what the headers say.", async () => {
  const result = await embeddings.embed({ embeddingsRequest: { input: "one two", model: "auto" } });
  assert.equal(result.object, "list");
  assert.equal(result.model, "auto");
  assert.deepEqual(result.usage, { promptTokens: 4, totalTokens: 4 });
  assert.match(result.id, /^embd_/);
  assert(Math.abs(result.created - Date.now() / 1000) < 600);
  assert.equal(result.provider, "embedway");
  assert.match(result.requestId, /^req_/);
  assert.match(result.space, /^all-minilm-l6-v2@.*\/384$/);
  assert.equal(result.costUsd, "0");
  assert.equal(result.cache, null);
  assert.equal(result.headers.get("x-embedway-model"), "all-minilm-l6-v2");
});

test("A format that is named is what the vectors are in.", async () => {
  const ask = async (encodingFormat) => {
    const embeddingsRequest = { input: ["one", "two"], encodingFormat };
    return embeddings.embed({ embeddingsRequest });
  };
  const [usual, float, strings] = await Promise.all([ask(undefined), ask("float"), ask("base64")]);
  const numbers = float.data[0].embedding;
  assert(Array.isArray(numbers) && numbers.length === DIMENSIONS);
  assert.equal(typeof strings.data[0].embedding, "string");
  // float32 in decimal is exact, so all three are the same numbers.
  assert.deepEqual(strings.matrix(), usual.matrix());
  assert.deepEqual(float.matrix(), usual.matrix());
});

test("Token ids are embedded, as one item or several.", async () => {
  const one = await embeddings.embed({ embeddingsRequest: { input: [9906, 1917] } });
  const two = await embeddings.embed({ embeddingsRequest: { input: [[9906, 1917], [9906]] } });
  const text = await embeddings.embed({ embeddingsRequest: { input: "Hello world" } });
  assert.equal(one.data.length, 1);
  assert.equal(two.data.length, 2);
  assert(cosine(one.data[0].embedding, text.data[0].embedding) > 0.9999);
  assert(cosine(two.data[0].embedding, text.data[0].embedding) > 0.9999);
});

test("Fields and the end user arrive under the gateway's names.", async () => {
  const server = await startScripted(() => ({}));
  const client = new SDK({
    serverURL: `${server.url}/v1/`,
    bearerAuth: "key",
    httpHeaders: { "x-a": "1" },
  });
  await client.llm.embeddings.embed(
    {
      embeddingsRequest: {
        input: "one",
        model: "m",
        inputType: "query",
        allowedProviders: ["a"],
        euNative: true,
        metadata: { camelCase: "stays" },
        extraBody: { someField: [1] },
      },
      onBehalfOf: "ada",
    },
    { httpHeaders: { "x-b": "2" } },
  );
  const [{ method, url, headers, body }] = server.requests;
  assert.equal(`${method} ${url}`, "POST /v1/embeddings");
  assert.deepEqual(body, {
    input: "one",
    model: "m",
    input_type: "query",
    allowed_providers: ["a"],
    eu_native: true,
    metadata: { camelCase: "stays" },
    extra_body: { someField: [1] },
    encoding_format: "base64",
  });
  assert.equal(headers.authorization, "Bearer key");
  assert.equal(headers["x-on-behalf-of"], "ada");
  assert.deepEqual([headers["x-a"], headers["x-b"]], ["1", "2"]);
  await server.close();
});

test("A dry run shows the candidates and sends nothing.", async () => {
  const plan = await embeddings.dryRun({ embeddingsRequest: { input: ["one", "two"] } });
  assert.equal(plan.object, "embedding.dry_run");
  assert.equal(plan.items, 2);
  assert.equal(plan.candidates[0].id, "embedway:all-minilm-l6-v2");
});

test("Models are listed, all or those of a name.", async () => {
  const { data } = await embeddings.listModels();
  assert(
    data.some((each) => each.id === "embedway:all-minilm-l6-v2" && each.dimensions === DIMENSIONS),
  );
  const named = await embeddings.listModels({ model: "all-minilm-l6-v2" });
  assert.deepEqual(
    named.data.map((each) => each.id),
    ["embedway:all-minilm-l6-v2"],
  );
});

test("The function alone does the same.", async () => {
  const result = await embed({ input: ["one", "two"], model: "auto", onBehalfOf: "ada" });
  const whole = await embeddings.embed({ embeddingsRequest: { input: ["one", "two"] } });
  assert.deepEqual(result.matrix(), whole.matrix());
  const strings = await embed({ input: "one", encodingFormat: "base64" });
  assert.equal(typeof strings.data[0].embedding, "string");
});

test("A key may come from a function, which is called before each try.", async () => {
  const server = await startScripted((_, number) =>
    number
      ? {}
      : { status: 503, headers: { "retry-after": "0" }, body: { error: { message: "busy" } } },
  );
  let calls = 0;
  const bearerAuth = async () => `key-${++calls}`;
  await embed({ input: "one", serverURL: server.url, bearerAuth });
  const sent = server.requests.map((each) => each.headers.authorization);
  assert.deepEqual(sent, ["Bearer key-1", "Bearer key-2"]);
  await server.close();
});

test("Hooks see and change requests, and see answers and errors.", async () => {
  const server = await startScripted((_, number) =>
    number
      ? {}
      : { status: 429, headers: { "retry-after-ms": "1" }, body: { error: { message: "later" } } },
  );
  const seen = [];
  const hooks = {
    async beforeRequest(request) {
      const headers = new Headers(request.headers);
      headers.set("x-trace", "t1");
      return new Request(request, { headers });
    },
    async afterResponse(response, request) {
      seen.push([response.status, request.headers.get("x-trace"), (await response.json()).model]);
    },
    onError(error) {
      seen.push(error.name);
    },
  };
  const result = await embed({ input: "one", serverURL: server.url, bearerAuth: "k", hooks });
  assert.equal(result.data.length, 1);
  assert.deepEqual(seen, [[429, "t1", undefined], "RateLimitError", [200, "t1", "auto"]]);
  assert.deepEqual(
    server.requests.map((each) => each.headers["x-trace"]),
    ["t1", "t1"],
  );
  assert.deepEqual(server.requests[1].body.input, "one");
  await server.close();
});

test("What a hook throws ends the call.", async () => {
  const server = await startScripted(() => ({}));
  const hooks = {
    beforeRequest: () => {
      throw new RangeError("no");
    },
  };
  await assert.rejects(
    embed({ input: "one", serverURL: server.url, bearerAuth: "k", hooks }),
    RangeError,
  );
  assert.equal(server.requests.length, 0);
  await server.close();
});

test("The debug log has requests, answers and retries, but neither keys nor texts.", async () => {
  const server = await startScripted((sent, number) =>
    number
      ? {}
      : {
          status: 429,
          headers: { "retry-after-ms": "1" },
          body: { error: { message: `later: ${sent.input}` } },
        },
  );
  const lines = [];
  const debugLogger = { debug: (...parts) => lines.push(JSON.stringify(parts)) };
  await embed({
    input: "SECRET TEXT",
    serverURL: server.url,
    bearerAuth: "sk-secret",
    debugLogger,
  });
  assert.deepEqual(
    lines.map((line) => JSON.parse(line)[0]),
    ["request", "answer", "retry", "request", "answer"].map((each) => `embedway: ${each}`),
  );
  assert(lines[1].includes('"status":429') && lines[1].includes("req_1"));
  assert(!/secret/i.test(lines.join()));
  await server.close();
});

test("A fetch of one's own sends the requests.", async () => {
  const urls = [];
  const own = (url, init) => {
    urls.push(url);
    return fetch(url, init);
  };
  await embed({ input: "one", fetch: own });
  assert.deepEqual(urls, [`${process.env.EMBEDWAY_BASE_URL}/v1/embeddings`]);
});

test("A timeout may be longer than any timer.", async () => {
  for (const timeoutMs of [2 ** 31, Number.POSITIVE_INFINITY]) {
    const { data } = await embed({ input: "one", timeoutMs });
    assert.equal(data.length, 1);
  }
});
