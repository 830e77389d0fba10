/** A web page and its worker in headless Chromium, with a token of an end user. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { SDK } from "@embedway/sdk";
import { build } from "esbuild";
import { startGateway } from "./gateway.mjs";
import { EXPECTED } from "./portable.mjs";

const CHROMIUM = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
  existsSync,
);
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--disable-sync",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
];
const isRequired = process.env.EMBEDWAY_TEST_SERVERS === "required";
const skip = CHROMIUM || isRequired ? false : "Chromium is not installed: apt-get install chromium";

// The page and a worker of it do the same, and the page tells its own server what came of it.
const SCRIPT = `
  import { exercise } from "./tests/portable.mjs";
  import { embed } from "@embedway/sdk/embed";
  const settle = (call) => call.catch(({ name, message }) => ({ name, message }));
  const work = async (url, token) => ({
    whole: await settle(exercise(url, token)),
    alone: await settle(embed({ input: "one", serverURL: url, bearerAuth: token }).then((each) => each.space)),
  });
  if (self.document) {
    const settings = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const worker = new Worker("/script.js", { type: "module" });
    worker.postMessage(settings);
    worker.onmessage = async ({ data }) => {
      const body = JSON.stringify({ page: await work(...settings), worker: data });
      await fetch("/result", { method: "POST", body });
    };
  } else {
    self.onmessage = async ({ data }) => postMessage(await work(...data));
  }
`;
const PAGE = '<!doctype html><script type="module" src="/script.js"></script>';

const server = createServer();
let origin;
let script;

before(async () => {
  const resolveDir = fileURLToPath(new URL("..", import.meta.url));
  const stdin = { contents: SCRIPT, resolveDir };
  const options = { bundle: true, format: "esm", platform: "browser", write: false };
  script = (await build({ stdin, ...options })).outputFiles[0].text;
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${server.address().port}`;
});

after(() => {
  server.close();
  server.closeAllConnections();
});

/** Opens a page that calls a gateway with a token, and returns what it tells. */
async function visit(url, token) {
  const told = new Promise((resolve) => {
    server.removeAllListeners("request");
    server.on("request", async (request, response) => {
      const type = request.url === "/script.js" ? "text/javascript" : "text/html";
      response.writeHead(200, { "content-type": type });
      response.end({ "/": PAGE, "/script.js": script }[request.url]);
      if (request.url === "/result") resolve(JSON.parse(Buffer.concat(await request.toArray())));
    });
  });
  const home = mkdtempSync(join(tmpdir(), "embedway-chromium-"));
  const address = `${origin}/#${encodeURIComponent(JSON.stringify([url, token]))}`;
  const browser = spawn(CHROMIUM, [...FLAGS, `--user-data-dir=${home}`, address], {
    detached: true, // It starts processes of its own, which end together.
    env: { PATH: process.env.PATH, HOME: home },
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  const early = ended.then((status) => assert.fail(`Chromium ended with ${status}.`));
  early.catch(() => {});
  try {
    return await Promise.race([told, early]);
  } finally {
    process.kill(-browser.pid, "SIGKILL");
    await ended;
    rmSync(home, { recursive: true, force: true, maxRetries: 10 });
  }
}

const tokenOf = async (options) => {
  const request = { externalUserId: "ada", expiresIn: 600 };
  return (await new SDK(options).authentication.exchangeToken(request)).token;
};

test("A page and its worker embed with a token, and read the headers, if their origin is listed.", {
  skip,
}, async () => {
  const gateway = await startGateway({ EMBEDWAY_CORS_ORIGINS: origin });
  try {
    const token = await tokenOf({ serverURL: gateway.url, bearerAuth: gateway.key });
    const results = await visit(gateway.url, token);
    for (const { whole, alone } of [results.page, results.worker]) {
      assert.deepEqual(whole, EXPECTED);
      assert.match(alone, /^all-minilm-l6-v2@/);
    }
  } finally {
    await gateway.stop();
  }
});

test("Pages and workers of another origin get a ConnectionError that says what to check.", {
  skip,
}, async () => {
  const { page, worker } = await visit(process.env.EMBEDWAY_BASE_URL, await tokenOf());
  for (const { whole, alone } of [page, worker]) {
    for (const { name, message } of [whole, alone]) {
      assert.equal(name, "ConnectionError");
      assert.match(message, /cors_origins/);
    }
  }
});
