import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  BadRequestError,
  EmbedwayError,
  InvalidResponseError,
  SDK,
  SpaceMismatchError,
} from "@embedway/sdk";
import { answerTo, base64, errorBody, startScripted } from "./scripted.mjs";

const { embeddings } = new SDK().llm;
const texts = (count) => Array.from({ length: count }, (_, index) => `text ${index}`);

/** An SDK at a scripted server, which `use` is given together with the server. */
async function scripted(handle, use, options = {}) {
  const server = await startScripted(handle);
  const sdk = new SDK({ serverURL: server.url, bearerAuth: "k", ...options });
  try {
    await use(sdk.llm.embeddings, server);
  } finally {
    await server.close();
  }
}

/** Reads all items. */
async function read(many) {
  const items = [];
  for await (const each of many) items.push(each);
  return items;
}

/** An answer whose vectors are the numbers in the texts, so that order shows. */
const numbered = (sent, changes = {}) => ({
  body: {
    ...answerTo(sent),
    data: sent.input.map((each, index) => ({
      index,
      embedding: base64([Number(String(each).match(/\d+/)[0])]),
    })),
  },
  ...changes,
});

test("Many texts become the vectors that single requests give, in order.", async () => {
  const inputs = texts(70);
  const progress = [];
  const options = { model: "auto", maxItems: 16, onProgress: (each) => progress.push(each) };
  const many = embeddings.embedMany(inputs, options);
  const items = await read(many);
  const whole = await embeddings.embed({ embeddingsRequest: { input: inputs } });
  assert.deepEqual(
    items.map((each) => each.index),
    inputs.map((_, index) => index),
  );
  for (const { index, embedding } of items) {
    const expected = whole.data[index].embedding;
    assert(embedding.reduce((sum, value, place) => sum + value * expected[place], 0) > 0.9999);
  }
  assert.equal(many.space, whole.space);
  assert.equal(many.costUsd, "0");
  assert.deepEqual(many.usage, whole.usage);
  assert.deepEqual(
    progress.map((each) => each.items),
    [16, 32, 48, 64, 70],
  );
  assert.deepEqual(progress.at(-1), { items: 70, total: 70, usage: whole.usage, costUsd: "0" });
  assert.deepEqual([many.items, many.dimensions], [70, 384]);
});

test("`matrix()` reads all into one array.", async () => {
  await scripted(numbered, async (client) => {
    const all = await client.embedMany(texts(10), { maxItems: 4 }).matrix();
    assert.deepEqual([all.items, all.dimensions], [10, 1]);
    assert.deepEqual([...all.data], [...Array(10).keys()]);

    const one = await client.embedMany(texts(3)).matrix();
    assert.deepEqual([...one.data], [0, 1, 2]);
    const none = await client.embedMany([]).matrix();
    assert.deepEqual([none.items, none.dimensions, none.data.length], [0, 0, 0]);
  });
});

test("Vectors are read once: to read them again is to embed again.", async () => {
  await scripted(numbered, async (client) => {
    const many = client.embedMany(texts(3));
    assert.equal((await read(many)).length, 3);
    await assert.rejects(read(many), /were read/);
    await assert.rejects(many.matrix(), EmbedwayError);

    const left = client.embedMany(texts(3));
    await left[Symbol.asyncIterator]().return();
    await assert.rejects(read(left), /were read/);
  });
});

test("Pieces of two widths are not joined.", async () => {
  const wide = (sent) => ({ ...answerTo(sent), data: [{ index: 0, embedding: base64([1, 2]) }] });
  const handle = (sent, number) => (number ? { body: wide(sent) } : numbered(sent));
  await scripted(handle, async (client) => {
    const many = client.embedMany(texts(2), { maxItems: 1, concurrency: 1 });
    await assert.rejects(read(many), InvalidResponseError);
  });
});

test("Answers that overtake each other are put in order.", async () => {
  const handle = async (sent) => {
    if (sent.input[0] === "text 0") await sleep(200);
    return numbered(sent);
  };
  await scripted(handle, async (client) => {
    const progress = [];
    const onProgress = (each) => progress.push([each.items, each.total, each.usage.totalTokens]);
    const { data } = await client.embedMany(texts(12), { maxItems: 2, onProgress }).matrix();
    assert.deepEqual([...data], [...Array(12).keys()]);
    assert.deepEqual(
      progress,
      [2, 4, 6, 8, 10, 12].map((items) => [items, 12, items]),
    );
  });
});

test("The totals are those of what was taken and what comes next.", async () => {
  await scripted(numbered, async (client, { requests }) => {
    const many = client.embedMany(texts(12), { maxItems: 2 });
    const totals = [];
    for await (const { index } of many) {
      if (index === 0) while (requests.length < 6) await sleep(5);
      totals.push([many.items, many.usage.totalTokens, many.costUsd]);
    }
    const expected = [2, 4, 6, 8, 10, 12].flatMap((items) => {
      const total = [items, items, `0.00000000${items / 2}`];
      return [total, total];
    });
    assert.deepEqual(totals, expected);
  });
});

test("The first space counts, not the first that arrives.", async () => {
  const handle = async (sent) => {
    const isFirst = sent.input[0] === "text 0";
    if (isFirst) await sleep(200);
    return numbered(sent, { headers: { "x-embedway-space": isFirst ? "one/1" : "two/1" } });
  };
  await scripted(handle, async (client) => {
    const seen = [];
    await assert.rejects(
      async () => {
        for await (const { index } of client.embedMany(texts(6), { maxItems: 2 })) seen.push(index);
      },
      (error) => {
        assert.deepEqual([error.spaces, error.firstIndex], [["one/1", "two/1"], 2]);
        return true;
      },
    );
    assert.deepEqual(seen, [0, 1]);
  });
});

test("Every error of a request says which input was its first.", async () => {
  const failures = {
    BadRequestError: { status: 400, body: errorBody("wrong") },
    ConnectionError: (response) => response.socket.destroy(),
    TimeoutError: () => {},
    InvalidResponseError: { body: {} },
    SpaceMismatchError: { headers: { "x-embedway-space": "other/1" } },
  };
  for (const [name, answer] of Object.entries(failures)) {
    const handle = (sent) => (sent.input[0] === "text 4" ? answer : { body: answerTo(sent) });
    await scripted(handle, async (client) => {
      const timeoutMs = name === "TimeoutError" ? 1000 : 60_000;
      const options = { maxItems: 2, concurrency: 1, timeoutMs };
      await assert.rejects(client.embedMany(texts(8), options).matrix(), (error) => {
        assert.deepEqual([error.name, error.firstIndex], [name, 4]);
        assert.match(error.message, /inputs 4 to 5/);
        return true;
      });
    });
  }
  const error = await embeddings.embed({ embeddingsRequest: { input: "" } }).catch((each) => each);
  assert.equal(error.firstIndex, 0);
});

test("Inputs are cut by items and by bytes.", async () => {
  const handle = (sent) => ({ body: answerTo(sent) });
  await scripted(handle, async (client, { requests }) => {
    const sizes = async (inputs, options) => {
      requests.length = 0;
      await client.embedMany(inputs, { concurrency: 1, ...options }).matrix();
      return requests.map((each) => each.body.input.length);
    };
    assert.deepEqual(await sizes(texts(600)), [256, 256, 88]);
    assert.deepEqual(await sizes(texts(5), { maxItems: 2 }), [2, 2, 1]);
    // 100,000 ASCII characters have as many bytes; as umlauts they have twice as many.
    assert.deepEqual(await sizes(Array(5).fill("x".repeat(100_000))), [2, 2, 1]);
    assert.deepEqual(await sizes(Array(3).fill("ü".repeat(100_000))), [1, 1, 1]);
    assert.deepEqual(await sizes(Array(3).fill("€".repeat(100_000))), [1, 1, 1]);
    assert.deepEqual(await sizes(Array(70).fill(Array(8000).fill(1))), [32, 32, 6]);
    // What no request may exceed for its tokens goes alone if it is one text.
    assert.deepEqual(await sizes(["a", "x".repeat(300_000), "b"]), [1, 1, 1]);
  });
});

test("Texts and token ids together are refused by the gateway.", async () => {
  await assert.rejects(embeddings.embedMany(["a", [9906]]).matrix(), BadRequestError);
});

test("No more requests run than `concurrency`, and no more pieces are read than twice that.", async () => {
  let running = 0;
  let most = 0;
  const handle = async (sent) => {
    most = Math.max(most, ++running);
    await sleep(5);
    running--;
    return numbered(sent);
  };
  await scripted(handle, async (client, { requests }) => {
    let taken = 0;
    function* source() {
      for (const text of texts(60)) {
        taken++;
        yield text;
      }
    }
    const options = { maxItems: 2, concurrency: 3 };
    const iterator = client.embedMany(source(), options)[Symbol.asyncIterator]();
    assert.equal(taken, 0);
    let count = 0;
    for (; !(await iterator.next()).done; count++) {
      if (count % 10 === 0) await sleep(30); // It could run ahead now.
      // Besides six pieces, one text is read to know where the last of them ends.
      assert(taken <= count + 2 * 6 + 1, `${taken} were read when ${count} were taken`);
      assert(requests.length <= Math.floor(count / 2) + 6);
    }
    assert.equal(count, 60);
    assert.equal(most, 3);
  });
});

test("An endless source is read as it is needed, and told when it is needed no more.", async () => {
  let taken = 0;
  let ended;
  const end = new Promise((resolve) => {
    ended = resolve;
  });
  async function* endless() {
    try {
      for (; ; taken++) yield `text ${taken}`;
    } finally {
      ended();
    }
  }
  await scripted(numbered, async (client) => {
    for await (const { index } of client.embedMany(endless(), { maxItems: 2 })) {
      if (index === 20) break;
    }
    await end;
    assert(taken <= 20 + 2 * 8 + 2);
  });
});

test("A piece that fails is tried again alone.", async () => {
  const failed = new Set();
  const handle = (sent) => {
    const [first] = sent.input;
    if (first === "text 4" && !failed.has(first)) {
      failed.add(first);
      return { status: 503, body: errorBody("busy"), headers: { "retry-after-ms": "1" } };
    }
    return numbered(sent);
  };
  await scripted(handle, async (client, { requests }) => {
    const { data } = await client.embedMany(texts(10), { maxItems: 2 }).matrix();
    assert.deepEqual([...data], [...Array(10).keys()]);
    const sent = requests.map((each) => each.body.input[0]).sort();
    assert.deepEqual(sent, ["text 0", "text 2", "text 4", "text 4", "text 6", "text 8"]);
  });
});

test("An error is raised after what came before it, names its inputs, and ends the rest.", async () => {
  let arrived;
  const fourth = new Promise((resolve) => {
    arrived = resolve;
  });
  const handle = async (sent) => {
    if (sent.input[0] === "text 4") {
      arrived();
      return () => {};
    }
    if (sent.input[0] !== "text 2") return numbered(sent);
    await fourth;
    return { status: 400, body: errorBody("input[1] is bad.") };
  };
  await scripted(handle, async (client, { requests }) => {
    const seen = [];
    const many = client.embedMany(texts(1000), { maxItems: 2, concurrency: 3 });
    await assert.rejects(
      async () => {
        for await (const { index } of many) seen.push(index);
      },
      (error) => {
        assert(error instanceof BadRequestError);
        assert.match(error.message, /^input\[1\] is bad\. .*inputs 2 to 3/);
        return true;
      },
    );
    assert.deepEqual(seen, [0, 1]);
    const hanging = requests.find((each) => each.body.input[0] === "text 4");
    assert.equal(await hanging.closed, false);
    assert(requests.length <= 6);
  });
});

test("An error of the source is raised, after what came before it.", async () => {
  function* source() {
    yield* texts(4);
    throw new RangeError("The file ends.");
  }
  await scripted(numbered, async (client) => {
    const seen = [];
    await assert.rejects(async () => {
      for await (const { index } of client.embedMany(source(), { maxItems: 2 })) seen.push(index);
    }, RangeError);
    assert.deepEqual(seen, [0, 1]); // The third and fourth were not sent yet.
  });
});

test("An abort ends the iteration and what is under way, even while the source waits.", async () => {
  const reason = new RangeError("enough");
  const controller = new AbortController();
  const { signal } = controller;
  await scripted(
    () => {
      controller.abort(reason);
      return () => {};
    },
    async (client, { requests }) => {
      await assert.rejects(client.embedMany(texts(4), { maxItems: 2, signal }).matrix(), reason);
      assert.equal(await requests[0].closed, false);
    },
  );
  async function* waiting() {
    await new Promise(() => {});
  }
  const later = new AbortController();
  const many = embeddings.embedMany(waiting(), { signal: later.signal });
  setImmediate(() => later.abort(reason));
  await assert.rejects(many.matrix(), reason);
  await assert.rejects(embeddings.embedMany(texts(1), { signal }).matrix(), reason);
});

test("Pieces of two spaces are not joined.", async () => {
  const space = (sent) => (sent.input[0] === "text 2" ? "other/1" : "scripted/1");
  const handle = (sent) => numbered(sent, { headers: { "x-embedway-space": space(sent) } });
  await scripted(handle, async (client) => {
    const many = client.embedMany(texts(100), { maxItems: 2, concurrency: 1 });
    await assert.rejects(many.matrix(), (error) => {
      assert(error instanceof SpaceMismatchError);
      assert.match(error.message, /scripted\/1 and other\/1/);
      assert.deepEqual(error.spaces, ["scripted/1", "other/1"]);
      return true;
    });
  });
});

test("A piece of several spaces, or of none, never passes.", async () => {
  for (const space of ["one/1, other/1", "one/1,other/1", ""]) {
    const handle = (sent) => numbered(sent, { headers: { "x-embedway-space": space } });
    await scripted(handle, async (client) => {
      await assert.rejects(client.embedMany(texts(2)).matrix(), SpaceMismatchError);
    });
  }
});

test("Costs are added without rounding.", async () => {
  const costs = ["0.1", "0.2", "10", "0.000000001"];
  const handle = (sent, number) =>
    numbered(sent, { headers: { "x-embedway-cost-usd": costs[number] } });
  await scripted(handle, async (client) => {
    const many = client.embedMany(texts(4), { maxItems: 1 });
    await many.matrix();
    assert.equal(many.costUsd, "10.300000001");
    assert.deepEqual(many.usage, { promptTokens: 4, totalTokens: 4 });
  });
});

test("Fields, headers and the end user go with each piece.", async () => {
  await scripted(numbered, async (client, { requests }) => {
    const options = { model: "m", inputType: "document", onBehalfOf: "ada", maxItems: 1 };
    await client.embedMany(texts(2), { ...options, httpHeaders: { "x-a": "1" } }).matrix();
    for (const { body, headers } of requests) {
      assert.deepEqual(
        { ...body, input: 0 },
        {
          input: 0,
          model: "m",
          input_type: "document",
          encoding_format: "base64",
        },
      );
      assert.deepEqual([headers["x-on-behalf-of"], headers["x-a"]], ["ada", "1"]);
    }
  });
});

test("A limit that is full meanwhile is waited for.", async () => {
  const admin = new SDK({ bearerAuth: process.env.EMBEDWAY_ADMIN_KEY });
  const { value } = await admin.organization.projects.apiKeys.create("proj_default", {
    name: "two a second",
    limits: [{ of: "requests", amount: 2, per: "second" }],
  });
  const limited = new SDK({ bearerAuth: value }).llm.embeddings;
  const { items } = await limited.embedMany(texts(14), { maxItems: 2 }).matrix();
  assert.equal(items, 14);
});

test("One text, and options without meaning, are refused.", async () => {
  assert.throws(() => embeddings.embedMany("text"), /got one text/);
  for (const options of [{ concurrency: 0 }, { maxItems: 1.5 }, { maxItems: Number.NaN }]) {
    assert.throws(() => embeddings.embedMany(["text"], options), EmbedwayError);
  }
  await assert.rejects(embeddings.embedMany(["text", 7]).matrix(), /Input 1 is neither/);
});

test("Node warns of no leak, however many calls listen to one signal.", async () => {
  const warnings = [];
  const note = (warning) => warnings.push(warning);
  process.on("warning", note);
  const handle = async (sent) => {
    await sleep(20);
    return numbered(sent);
  };
  await scripted(handle, async (client, { requests }) => {
    const { signal } = new AbortController();
    const embeddingsRequest = { input: ["text 1"] };
    const call = () => client.embed({ embeddingsRequest }, { signal });
    await Promise.all(Array.from({ length: 12 }, call));
    const { items } = await client
      .embedMany(texts(30), { maxItems: 1, concurrency: 12, signal })
      .matrix();
    assert.deepEqual([items, requests.length], [30, 42]);
  });
  await sleep(10);
  process.off("warning", note);
  assert.deepEqual(warnings, []);
});
