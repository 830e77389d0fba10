import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionError, RateLimitError, SDK, ServerError, TimeoutError } from "@embedway/sdk";
import { answerTo, errorBody, startScripted } from "./scripted.mjs";

const BUSY = { status: 503, body: errorBody("The gateway is busy.") };
const LATER = { status: 429, body: errorBody("Later."), headers: { "retry-after-ms": "1" } };
const PROXY = { status: 502, body: "<html>" };
const RESET = (response) => response.socket.destroy();
const SILENCE = () => {};
const FAST = { backoff: { initialInterval: 1 } };

/**
 * Sends one call to a server that gives these answers in turn, then vectors.
 *
 * Returns the result or error of the call, and how often it was sent.
 */
async function tried(answers, retries = {}, call = "embed", timeoutMs = 60_000) {
  const server = await startScripted((_, number) => answers[number] ?? answers.rest ?? {});
  const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", retryConfig: FAST });
  const calls = {
    embed: () => sdk.llm.embeddings.embed({ embeddingsRequest: { input: "a" } }, options),
    dryRun: () => sdk.llm.embeddings.dryRun({ embeddingsRequest: { input: "a" } }, options),
    listModels: () => sdk.llm.embeddings.listModels({}, options),
    exchangeToken: () => sdk.authentication.exchangeToken({ externalUserId: "ada" }, options),
    createProject: () => sdk.organization.projects.create({ name: "a" }, options),
  };
  const options = { retries, timeoutMs };
  const result = await calls[call]().catch((error) => error);
  await server.close();
  return { result, tries: server.requests.length };
}

test("The gateway's own answers of 408, 429, 502, 503 and 504 are tried twice again.", async () => {
  for (const status of [408, 429, 502, 503, 504]) {
    const answer = { ...BUSY, status };
    const { result, tries } = await tried([answer, answer]);
    assert.equal(tries, 3);
    assert.equal(result.data.length, 1);
    const { tries: most } = await tried({ rest: answer });
    assert.equal(most, 3);
  }
});

test("Other errors are raised at once.", async () => {
  for (const status of [400, 401, 403, 404, 409, 413, 500]) {
    const { tries, result } = await tried({ rest: { ...BUSY, status } });
    assert.equal(tries, 1);
    assert.equal(result.status, status);
  }
});

test("A 429 that says how long to wait does not count as a retry.", async () => {
  const { result, tries } = await tried([LATER, LATER, LATER, LATER, BUSY, BUSY]);
  assert.equal(tries, 7);
  assert.equal(result.data.length, 1);
});

test("A 429 that asks for no wait counts, and the SDK's own wait follows.", async () => {
  for (const headers of [
    { "retry-after": "0" },
    { "retry-after-ms": "0" },
    { "retry-after": new Date(0).toUTCString() },
  ]) {
    const waits = [];
    const debugLogger = { debug: (_, { waitMs }) => waitMs === undefined || waits.push(waitMs) };
    const retryConfig = { backoff: { initialInterval: 40 } };
    const server = await startScripted(() => ({ ...LATER, headers }));
    const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", retryConfig, debugLogger });
    const call = sdk.llm.embeddings.embed({ embeddingsRequest: { input: "a" } });
    await assert.rejects(call, RateLimitError);
    await server.close();
    assert.equal(server.requests.length, 3);
    assert(waits.length === 2 && waits.every((each) => each >= 20), String(waits));
  }
});

test("`x-should-retry` decides.", async () => {
  const never = { ...LATER, headers: { ...LATER.headers, "x-should-retry": "false" } };
  assert.equal((await tried({ rest: never })).tries, 1);
  const always = { ...BUSY, status: 409, headers: { "x-should-retry": "true" } };
  assert.equal((await tried({ rest: always })).tries, 3);
  const billed = { ...PROXY, headers: { "x-should-retry": "true" } };
  assert.equal((await tried({ rest: billed })).tries, 1);
});

test("A proxy's own 408 or 429 is tried again: it did nothing.", async () => {
  for (const status of [408, 429]) assert.equal((await tried([{ ...PROXY, status }])).tries, 2);
});

test("`retry-after` is seconds or a date, and `retry-after-ms` comes before it.", async () => {
  const ended = (error) => error.retryAfterS;
  const asked = async (headers) =>
    ended((await tried([{ ...BUSY, headers }], { strategy: "none" })).result);
  assert.equal(await asked({ "retry-after": "7" }), 7);
  assert.equal(await asked({ "retry-after": "0.5" }), 0.5);
  assert.equal(await asked({ "retry-after": "7", "retry-after-ms": "250" }), 0.25);
  for (const value of ["soon", "-5", "soon 5", "7, 7", "2030-01-01"]) {
    assert.equal(await asked({ "retry-after": value }), null, value);
  }
  assert.equal(await asked({ "retry-after": new Date(0).toUTCString() }), 0);
  const date = await asked({ "retry-after": new Date(Date.now() + 60_000).toUTCString() });
  assert(date > 10 && date <= 60);
});

test("The wait that the server asks for is waited.", async () => {
  const begin = performance.now();
  const { tries } = await tried([{ ...BUSY, headers: { "retry-after-ms": "300" } }]);
  assert.equal(tries, 2);
  assert(performance.now() - begin >= 299);
});

test("A wait beyond `maxElapsedTime` is not begun.", async () => {
  const answer = { ...LATER, headers: { "retry-after": "3600" } };
  const { result, tries } = await tried({ rest: answer });
  assert(result instanceof RateLimitError);
  assert.equal(tries, 1);
  const backoff = { initialInterval: 1000, maxElapsedTime: 400 };
  assert.equal((await tried({ rest: BUSY }, { backoff })).tries, 1);
});

test("A wait longer than any timer does not end at once.", async () => {
  const server = await startScripted(() => ({ ...LATER, headers: { "retry-after": "2147484" } }));
  const controller = new AbortController();
  const debugLogger = {
    debug: (message) => message.endsWith("retry") && setTimeout(() => controller.abort(), 100),
  };
  const retryConfig = { backoff: { maxElapsedTime: Number.POSITIVE_INFINITY } };
  const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", retryConfig, debugLogger });
  const { signal } = controller;
  const call = sdk.llm.embeddings.embed({ embeddingsRequest: { input: "a" } }, { signal });
  await assert.rejects(call, { name: "AbortError" });
  await server.close();
  assert.equal(server.requests.length, 1);
});

test("Tries end with `maxElapsedTime`, also those that do not count.", async () => {
  const { result, tries } = await tried({ rest: LATER }, { backoff: { maxElapsedTime: 100 } });
  assert(result instanceof RateLimitError);
  assert(tries > 1);
});

test("`maxRetries` and `strategy` say how often.", async () => {
  assert.equal((await tried({ rest: BUSY }, { maxRetries: 4 })).tries, 5);
  assert.equal((await tried({ rest: BUSY }, { maxRetries: 0 })).tries, 1);
  assert.equal((await tried({ rest: BUSY }, { strategy: "none" })).tries, 1);
});

test("Fields of `retries` that are undefined leave the SDK's as they are.", async () => {
  const server = await startScripted(() => BUSY);
  const retryConfig = { ...FAST, maxRetries: 1 };
  const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", retryConfig });
  const retries = { maxRetries: undefined, backoff: undefined };
  const call = sdk.llm.embeddings.embed({ embeddingsRequest: { input: "a" } }, { retries });
  await assert.rejects(call, ServerError);
  await server.close();
  assert.equal(server.requests.length, 2);
});

test("A call that may have been billed is sent once, unless `retryBilled` allows more.", async () => {
  for (const [answer, Class] of [
    [PROXY, ServerError],
    [RESET, ConnectionError],
    [SILENCE, TimeoutError],
  ]) {
    const timeoutMs = answer === SILENCE ? 50 : 60_000;
    const once = await tried([answer], {}, "embed", timeoutMs);
    assert(once.result instanceof Class);
    assert.equal(once.result.mayBeBilled, true);
    assert.equal(once.tries, 1);
    const again = await tried([answer], { retryBilled: true }, "embed", timeoutMs * 40);
    if (answer !== SILENCE) assert.equal(again.result.data.length, 1);
    assert.equal(again.tries, 2);
  }
});

test("A change is sent once if it may have happened; what changes nothing is tried again.", async () => {
  assert.equal((await tried([RESET], {}, "createProject")).tries, 1);
  assert.equal((await tried([BUSY], {}, "createProject")).tries, 2);
  for (const call of ["dryRun", "listModels", "exchangeToken"]) {
    for (const answer of [RESET, PROXY, BUSY]) {
      assert.equal((await tried([answer], {}, call)).tries, 2, call);
    }
    assert.equal((await tried({ rest: SILENCE }, {}, call, 50)).tries, 3, call);
  }
});

test("A connection that never came about is tried again.", async () => {
  const server = await startScripted(() => ({}));
  await server.close();
  const count = async (retryConfig) => {
    let tries = 0;
    const counted = (url, init) => {
      tries++;
      return fetch(url, init);
    };
    const options = { serverURL: server.url, bearerAuth: "k", fetch: counted };
    const sdk = new SDK({ ...options, retryConfig: { ...FAST, ...retryConfig } });
    const call = sdk.llm.embeddings.embed({ embeddingsRequest: { input: "a" } });
    await assert.rejects(call, ConnectionError);
    return tries;
  };
  assert.equal(await count({}), 3);
  assert.equal(await count({ retryConnectionErrors: false }), 1);
  assert.equal(await count({ strategy: "none" }), 1);
});

test("A refused key is not tried again, and answers after a retry are whole.", async () => {
  const body = answerTo({ input: ["a"], encoding_format: "base64" }, { model: "m" });
  const { result } = await tried([BUSY, { body }]);
  assert.equal(result.model, "m");
  assert.deepEqual([...result.data[0].embedding], [0, 0.5, -1.25]);
});
