import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { test } from "node:test";
import { inspect } from "node:util";
import * as esm from "@embedway/sdk";
import { embed } from "@embedway/sdk/embed";
import { answerTo, base64, errorBody, startScripted } from "./scripted.mjs";

const { SDK } = esm;
const { embeddings } = new SDK().llm;
const ask = (fields, onBehalfOf) =>
  embeddings.embed({ embeddingsRequest: { input: "one", ...fields }, onBehalfOf });

/** Sends one request to a server that answers it in this way, and returns the error. */
async function failure(answer, options = {}) {
  const server = await startScripted(answer);
  try {
    const sent = { input: "one", serverURL: server.url, bearerAuth: "sk-key", ...options };
    return await embed(sent).then(
      () => assert.fail("There is no error."),
      (error) => Object.assign(error, { tries: server.requests.length }),
    );
  } finally {
    await server.close();
  }
}

test("A wrong request is a BadRequestError with the server's message and field.", async () => {
  await assert.rejects(ask({ input: "" }), (error) => {
    assert(error instanceof esm.BadRequestError && error instanceof esm.APIError);
    assert.equal(error.name, "BadRequestError");
    assert.equal(error.status, 400);
    assert.equal(error.param, "input");
    assert.equal(error.type, "invalid_request_error");
    assert.equal(error.code, null);
    assert.match(error.requestId, /^req_/);
    assert.equal(error.message, error.body.error.message);
    assert.equal(error.mayBeBilled, false);
    return true;
  });
});

test("A text that is too long has a code.", async () => {
  const error = await ask({ input: "word ".repeat(400) }).catch((each) => each);
  assert(error instanceof esm.BadRequestError);
  assert.equal(error.code, "context_length_exceeded");
});

test("A wrong key, a missing right and an unknown model are told apart.", async () => {
  const wrong = new SDK({ bearerAuth: "sk-gateway-wrong" });
  await assert.rejects(
    wrong.llm.embeddings.embed({ embeddingsRequest: { input: "one" } }),
    esm.AuthenticationError,
  );
  await assert.rejects(new SDK().organization.projects.list(), esm.PermissionDeniedError);
  await assert.rejects(ask({ model: "no-such-model" }), esm.NotFoundError);
});

test("A rate limit that is full is a RateLimitError that says how long to wait.", async () => {
  const admin = new SDK({ bearerAuth: process.env.EMBEDWAY_ADMIN_KEY });
  const limits = [{ of: "requests", amount: 1, per: "day" }];
  const { value } = await admin.organization.projects.apiKeys.create("proj_default", {
    name: "one a day",
    limits,
  });
  const limited = new SDK({ bearerAuth: value }).llm.embeddings;
  await limited.embed({ embeddingsRequest: { input: "one" } });
  // The wait is longer than maxElapsedTime, so the error is raised at once.
  const error = await limited.embed({ embeddingsRequest: { input: "one" } }).catch((each) => each);
  assert(error instanceof esm.RateLimitError);
  assert.equal(error.status, 429);
  assert.equal(error.code, "rate_limit_exceeded");
  assert(error.retryAfterS > 1000);
  assert.match(error.message, /1 request/);
});

test("Each status has its class.", async () => {
  const classes = {
    400: esm.BadRequestError,
    401: esm.AuthenticationError,
    403: esm.PermissionDeniedError,
    404: esm.NotFoundError,
    405: esm.APIError,
    408: esm.APIError,
    413: esm.APIError,
    415: esm.APIError,
    429: esm.RateLimitError,
    500: esm.ServerError,
    502: esm.ServerError,
    503: esm.ServerError,
    504: esm.ServerError,
  };
  for (const [status, Class] of Object.entries(classes)) {
    const body = errorBody("It is so.", { code: "a_code", param: "input" });
    const answer = { status: Number(status), body, headers: { "x-should-retry": "false" } };
    const error = await failure(() => answer);
    assert.equal(Object.getPrototypeOf(error).name, Class.prototype.name, status);
    assert(error instanceof Class);
    assert.equal(error.message, "It is so.");
    assert.equal(error.tries, 1);
    assert.deepEqual([error.code, error.param, error.retryAfterS], ["a_code", "input", null]);
  }
});

test("A proxy's answer is an APIError that says so, with its first characters.", async () => {
  const html = `<html>${"Bad Gateway ".repeat(50)}</html>`;
  const error = await failure(() => ({
    status: 502,
    body: html,
    headers: { "content-type": "text/html" },
  }));
  assert(error instanceof esm.ServerError);
  assert.match(error.message, /not as an Embedway gateway answers: <html>Bad Gateway/);
  assert(error.message.length < 300);
  assert.equal(error.body, html);
  assert.equal(error.code, null);
  assert.equal(error.mayBeBilled, true);
  assert.equal(error.tries, 1);
});

test("A redirect is not followed: it might go elsewhere.", async () => {
  const headers = { location: "http://127.0.0.1:1/" };
  const error = await failure(() => ({ status: 307, body: "", headers }));
  assert(error instanceof esm.APIError);
  assert.equal(error.status, 307);
});

test("An answer that is no JSON, or not what was asked for, is an InvalidResponseError.", async () => {
  const lies = {
    "no JSON": "<html>Welcome</html>",
    null: "null",
    "no data": {},
    "a vector too few": (sent) => answerTo({ ...sent, input: ["one"] }),
    "a vector too many": (sent) => answerTo({ ...sent, input: ["one", "two", "three"] }),
    "another order": (sent) => ({ ...answerTo(sent), data: answerTo(sent).data.reverse() }),
    "another index": (sent) => ({
      ...answerTo(sent),
      data: answerTo(sent).data.map((each) => ({ ...each, index: 0 })),
    }),
    numbers: (sent) => answerTo({ ...sent, encoding_format: "float" }),
    "no usage": (sent) => ({ ...answerTo(sent), usage: undefined }),
    "an empty usage": (sent) => ({ ...answerTo(sent), usage: {} }),
    nothing: { data: [null, null] },
    "no vectors": { data: [0, 1].map((index) => ({ index })) },
    "empty vectors": vectors("", ""),
    "half a number": vectors(base64([1]), Buffer.from("123456").toString("base64")),
    "half numbers": vectors(...Array(2).fill(Buffer.from("123456").toString("base64"))),
    "two widths": vectors(base64([1, 2]), base64([1, 2, 3])),
    "a cut text": vectors(base64([1, 2]), base64([1, 2]).slice(0, -1)),
    "no base64": vectors(base64([1, 2]), "!".repeat(12)),
  };
  for (const [name, lie] of Object.entries(lies)) {
    const body = (sent) => (typeof lie === "function" ? lie(sent) : lie);
    const error = await failure((sent) => ({ body: body(sent) }), { input: ["one", "two"] });
    assert(error instanceof esm.InvalidResponseError, `${name}: ${error}`);
    assert.equal(error.tries, 1);
    assert.equal(error.mayBeBilled, true);
  }
});

test("Numbers are finite numbers.", async () => {
  for (const wrong of [null, "1", [1], undefined]) {
    const body = vectors([1, 2], [1, wrong]);
    const error = await failure(() => ({ body }), { input: ["a", "b"], encodingFormat: "float" });
    assert(error instanceof esm.InvalidResponseError, String(error));
    assert.match(error.message, /Vector 1 of the answer is not float/);
  }
});

test("An answer of another form is an InvalidResponseError, which `onError` sees.", async () => {
  for (const body of ["null", "7", "{}", '{"data": {}}']) {
    const seen = [];
    const server = await startScripted(() => ({ body }));
    const hooks = { onError: (error) => seen.push(error) };
    const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", hooks });
    const calls = [
      () => sdk.organization.projects.list(),
      () => sdk.llm.embeddings.embed({ embeddingsRequest: { input: "one" } }),
      () => sdk.llm.embeddings.listModels(),
    ];
    if (!body.startsWith("{")) calls.push(() => sdk.organization.projects.create({ name: "a" }));
    for (const call of calls) {
      const error = await call().then(
        () => assert.fail(body),
        (each) => each,
      );
      assert(error instanceof esm.InvalidResponseError, `${body}: ${error}`);
      assert.equal(error.mayBeBilled, true);
      assert.equal(seen.pop(), error);
    }
    await server.close();
  }
});

const vectors = (...texts) => ({
  ...answerTo({ input: texts }),
  data: texts.map((embedding, index) => ({ index, embedding })),
});

test("All vectors have one width, in every format: the one that was asked for.", async () => {
  const answers = { float: vectors([1, 2], [1]), base64: vectors(base64([1, 2]), base64([1])) };
  for (const [encodingFormat, body] of Object.entries(answers)) {
    const error = await failure(() => ({ body }), { input: ["a", "b"], encodingFormat });
    assert(error instanceof esm.InvalidResponseError);
    assert.match(error.message, /Vector 1 .* 1 numbers, where 2/);
  }
  const error = await failure(() => ({}), { dimensions: 2 });
  assert.match(error.message, /Vector 0 .* 3 numbers, where 2/);
});

test("An answer that leaves open what was charged may have been billed.", async () => {
  const headers = { "x-should-retry": "false" };
  const error = await failure(() => ({ status: 503, body: errorBody("In doubt."), headers }));
  assert.equal(error.mayBeBilled, true);
  assert.equal(error.tries, 1);
});

test("Without a key, the error says so and nothing is sent.", async () => {
  const { EMBEDWAY_API_KEY } = process.env;
  delete process.env.EMBEDWAY_API_KEY;
  try {
    for (const bearerAuth of [undefined, "", async () => ""]) {
      const error = await failure(() => assert.fail("It was sent."), { bearerAuth });
      assert.equal(error.name, "EmbedwayError");
      assert.match(error.message, /There is no key. .*bearerAuth.*EMBEDWAY_API_KEY/);
      assert.equal(error.tries, 0);
    }
  } finally {
    process.env.EMBEDWAY_API_KEY = EMBEDWAY_API_KEY;
  }
});

test("A key with a line break is refused, and not quoted.", async () => {
  const error = await failure(() => ({}), { bearerAuth: "sk-one\nsk-two" });
  assert.equal(error.name, "EmbedwayError");
  assert(!error.message.includes("sk-one"));
  assert.equal(error.tries, 0);
  const server = await startScripted(() => ({}));
  await embed({ input: "one", serverURL: server.url, bearerAuth: "sk-one\n" });
  assert.equal(server.requests[0].headers.authorization, "Bearer sk-one");
  await server.close();
});

test("An option without meaning is refused at once.", async () => {
  for (const serverURL of ["localhost:8080", "127.0.0.1:18092", "", "ftp://host"]) {
    assert.throws(() => new SDK({ serverURL }), {
      name: "EmbedwayError",
      message: `serverURL '${serverURL}' must look like 'http://127.0.0.1:8080'.`,
    });
  }
  for (const serverURL of ["http://user:secret@host", "ftp://u:secret@h", "http://h?a=secret"]) {
    assert.throws(() => new SDK({ serverURL }), {
      name: "EmbedwayError",
      message: "serverURL must have no user, password or query.",
    });
  }
  for (const serverUrl of ["http://host", undefined]) {
    assert.throws(() => new SDK({ serverUrl }), {
      name: "EmbedwayError",
      message: /^SDK has no option 'serverUrl'\. .*serverURL/,
    });
  }
  for (const timeoutMs of [0, -1, Number.NaN]) {
    assert.throws(() => new SDK({ timeoutMs }), /timeoutMs is/);
    const call = embeddings.embed({ embeddingsRequest: { input: "one" } }, { timeoutMs });
    await assert.rejects(call, /timeoutMs is/);
  }
  const request = { embeddingsRequest: { input: "one" } };
  for (const [retries, message] of [
    [3, /^retries is 3\. Give an object such as/],
    [{ strategy: "nope" }, /^retries\.strategy is 'nope'\. Give 'backoff' or 'none'\.$/],
  ]) {
    const error = { name: "EmbedwayError", message };
    await assert.rejects(embeddings.embed(request, { retries }), error);
    const retryConfig = retries;
    const named = new RegExp(message.source.replace("retries", "retryConfig"));
    assert.throws(() => new SDK({ retryConfig }), { name: "EmbedwayError", message: named });
  }
});

test("A call without `embeddingsRequest` is refused with what it needs.", async () => {
  for (const given of [{ input: "one" }, "one", undefined, { embeddingsRequest: "one" }]) {
    for (const name of ["embed", "dryRun"]) {
      await assert.rejects(embeddings[name](given), {
        name: "EmbedwayError",
        message: `${name} needs { embeddingsRequest: { input, model } }.`,
      });
    }
  }
});

test("An end user who cannot be named in a header is refused, and nothing is sent.", async () => {
  for (const onBehalfOf of [
    "漢",
    "a\nb",
    "é",
    "",
    " ",
    "ada ",
    " ada",
    "a\u007f",
    "a".repeat(151),
  ]) {
    const error = await failure(() => ({}), { onBehalfOf });
    assert.equal(error.name, "EmbedwayError");
    assert.match(error.message, /^onBehalfOf .* 1 to 150 printable ASCII characters/);
    assert.equal(error.tries, 0);
  }
  for (const onBehalfOf of ["a", "Ada Lovelace", "a".repeat(150)]) {
    const server = await startScripted(() => ({}));
    await embed({ input: "one", serverURL: server.url, bearerAuth: "k", onBehalfOf });
    assert.equal(server.requests[0].headers["x-on-behalf-of"], onBehalfOf);
    await server.close();
  }
});

test("A gateway that is not there is a ConnectionError that names its address.", async () => {
  const serverURL = `http://127.0.0.1:${await closedPort()}`;
  const options = { retryConfig: { strategy: "none" }, bearerAuth: "sk-key" };
  const error = await embed({ input: "one", serverURL, ...options }).catch((each) => each);
  assert(error instanceof esm.ConnectionError);
  assert(error.message.includes(serverURL) && error.message.includes("ECONNREFUSED"));
  assert.equal(error.mayBeBilled, false);
  assert(error.cause instanceof TypeError);
});

test("An answer that is too late is a TimeoutError, also in the middle of its body.", async () => {
  const silent = () => () => {};
  const slow = () => (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.write('{"data": [');
  };
  for (const answer of [silent, slow]) {
    const error = await failure(answer, { timeoutMs: 100 });
    assert(error instanceof esm.TimeoutError && error instanceof esm.ConnectionError);
    assert.match(error.message, /timeoutMs=100/);
    assert.equal(error.mayBeBilled, true);
    assert.equal(error.tries, 1);
  }
});

test("A connection that breaks is a ConnectionError: the call may have been billed.", async () => {
  const reset = () => (response) => response.socket.destroy();
  const truncated = () => (response) => {
    response.writeHead(200, { "content-length": 1000 });
    response.write('{"data": [', () => response.socket.destroy());
  };
  for (const answer of [reset, truncated]) {
    const error = await failure(answer);
    assert.equal(error.name, "ConnectionError");
    assert.equal(error.mayBeBilled, true);
    assert.equal(error.tries, 1);
  }
});

const forever = () => new Promise(() => {});
/** Ways to wait for ever: before a request is sent, and after. */
const STUCK = {
  before: { bearerAuth: [{ bearerAuth: forever }], hook: [{ hooks: { beforeRequest: forever } }] },
  after: {
    "a request of a hook, without the signal": [
      { hooks: { beforeRequest: ({ url }) => new Request(url) } },
      () => () => {},
    ],
    "a fetch that drops the signal": [{ fetch: (url) => fetch(url) }, () => () => {}],
    "a fetch that never answers": [{ fetch: forever }],
    "a hook after the answer": [{ hooks: { afterResponse: forever } }],
  },
};

test("A timeout and an abort end every step that takes for ever.", async () => {
  for (const [when, cases] of Object.entries(STUCK)) {
    for (const [name, [options, answer = () => ({})]] of Object.entries(cases)) {
      const retryConfig = { strategy: "none" };
      const late = await failure(answer, { timeoutMs: 100, retryConfig, ...options });
      assert(late instanceof esm.TimeoutError, `${name}: ${late}`);
      assert.equal(late.mayBeBilled, when === "after", name);
      assert.match(late.message, /timeoutMs=100/);
      const signal = AbortSignal.timeout(100);
      const aborted = await failure(answer, { signal, ...options });
      assert.equal(aborted, signal.reason, name);
    }
  }
});

test("What is raised before a request is sent cannot be billed.", async () => {
  const retryConfig = { strategy: "none" };
  const error = await failure(() => ({}), { timeoutMs: 50, bearerAuth: forever, retryConfig });
  assert.match(error.message, /^Nothing was sent to http.* bearerAuth or beforeRequest/);
  assert.equal(error.tries, 0);
});

test("`onError` sees a timeout, and cannot hold it up.", async () => {
  const seen = [];
  const hooks = {
    onError(error) {
      seen.push(error);
      return forever();
    },
  };
  const error = await failure(() => () => {}, { timeoutMs: 100, hooks });
  assert(error instanceof esm.TimeoutError);
  assert.deepEqual(seen, [error]);
});

test("A hook that throws after the answer ends the connection.", async () => {
  const server = await startScripted(() => (response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.write('{"data": [');
  });
  const hooks = {
    afterResponse() {
      throw new RangeError("no");
    },
  };
  const call = embed({ input: "one", serverURL: server.url, bearerAuth: "k", hooks });
  await assert.rejects(call, RangeError);
  assert.equal(await server.requests[0].closed, false);
  await server.close();
});

test("A hook may read the copy of an answer after the call.", async () => {
  for (const answer of [{}, { status: 400, body: errorBody("wrong") }]) {
    const server = await startScripted(() => answer);
    let copy;
    const hooks = {
      afterResponse(response) {
        copy = response;
      },
    };
    const call = embed({ input: "one", serverURL: server.url, bearerAuth: "k", hooks });
    await call.catch((error) => assert(error instanceof esm.BadRequestError));
    assert.equal(typeof (await copy.json()), "object");
    await server.close();
  }
});

test("An SDK that is printed does not show the key.", () => {
  const sdk = new SDK({ bearerAuth: "sk-secret" });
  const many = sdk.llm.embeddings.embedMany(["one"]);
  for (const each of [sdk, sdk.llm.embeddings, sdk.authentication, sdk.organization, many]) {
    assert(!inspect(each, { depth: null }).includes("sk-secret"));
    assert(!JSON.stringify(each).includes("sk-secret"));
  }
});

test("An aborted call raises the signal's reason.", async () => {
  const reason = new RangeError("enough");
  await assert.rejects(embed({ input: "one", signal: AbortSignal.abort(reason) }), reason);

  const early = new AbortController();
  const call = embed({ input: "one", signal: early.signal });
  early.abort(reason);
  await assert.rejects(call, reason);

  const controller = new AbortController();
  const server = await startScripted(() => {
    controller.abort(reason);
    return () => {};
  });
  const { signal } = controller;
  await assert.rejects(
    embed({ input: "one", serverURL: server.url, bearerAuth: "k", signal }),
    reason,
  );
  assert.equal(await server.requests[0].closed, false);
  await server.close();
});

test("An abort ends a wait between tries.", async () => {
  const controller = new AbortController();
  const debugLogger = { debug: (message) => message.endsWith("retry") && controller.abort() };
  const error = await failure(
    () => ({ status: 429, body: errorBody("later"), headers: { "retry-after": "60" } }),
    { signal: controller.signal, debugLogger },
  );
  assert.equal(controller.signal.aborted, true);
  assert.equal(error.name, "AbortError");
});

test("`instanceof` works across the ESM and the CommonJS build.", () => {
  const cjs = createRequire(import.meta.url)("@embedway/sdk");
  assert.notEqual(cjs.TimeoutError, esm.TimeoutError);
  const error = new cjs.TimeoutError("late");
  assert(error instanceof esm.TimeoutError);
  assert(error instanceof esm.ConnectionError);
  assert(error instanceof esm.EmbedwayError);
  assert(error instanceof Error);
  assert(!(error instanceof esm.RateLimitError));
  assert(!(new Error("other") instanceof esm.EmbedwayError));
  class Mine extends esm.TimeoutError {}
  assert(!(error instanceof Mine));
  assert(new Mine("late") instanceof cjs.TimeoutError);
  assert(new Mine("late") instanceof Mine);
});

/** A port at which nothing listens. */
async function closedPort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
