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
const skip = CHROMIUM ? false : "Chromium is not installed: apt-get install chromium";

// The page tells its own server what came of the calls.
const PAGE = `
  import { exercise, refused } from "./tests/portable.mjs";
  import { embed } from "@embedway/sdk/embed";
  self.onmessage = async ({ data: [url, token] }) => {
    const settle = (call) => call.catch((error) => ({ name: error.name, message: error.message }));
    const alone = settle(embed({ input: "one", serverURL: url, bearerAuth: token }).then((each) => each.space));
    const body = JSON.stringify({ whole: await settle(exercise(url, token)), alone: await alone });
    await fetch("/result", { method: "POST", body });
  };
  if (self.document) onmessage({ data: JSON.parse(decodeURIComponent(location.hash.slice(1))) });
`;
const HTML = '<!doctype html><script type="module" src="/page.js"></script>';
const WORKER = `<!doctype html><script>
  const worker = new Worker("/page.js", { type: "module" });
  worker.postMessage(JSON.parse(decodeURIComponent(location.hash.slice(1))));
</script>`;

const server = createServer();
let origin;
let script;

before(async () => {
  const resolveDir = fileURLToPath(new URL("..", import.meta.url));
  const stdin = { contents: PAGE, resolveDir };
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
async function visit(path, url, token) {
  const told = new Promise((resolve) => {
    server.removeAllListeners("request");
    server.on("request", async (request, response) => {
      const type = request.url === "/page.js" ? "text/javascript" : "text/html";
      response.writeHead(200, { "content-type": type });
      response.end({ "/": HTML, "/worker": WORKER, "/page.js": script }[request.url]);
      if (request.url === "/result") resolve(JSON.parse(Buffer.concat(await request.toArray())));
    });
  });
  const home = mkdtempSync(join(tmpdir(), "embedway-chromium-"));
  const address = `${origin}${path}#${encodeURIComponent(JSON.stringify([url, token]))}`;
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

test("A page of a listed origin embeds with a token, and reads the headers.", {
  skip,
}, async () => {
  const gateway = await startGateway({ EMBEDWAY_CORS_ORIGINS: origin });
  try {
    const token = await tokenOf({ serverURL: gateway.url, bearerAuth: gateway.key });
    for (const path of ["/", "/worker"]) {
      const { whole, alone } = await visit(path, gateway.url, token);
      assert.deepEqual(whole, EXPECTED);
      assert.match(alone, /^all-minilm-l6-v2@/);
    }
  } finally {
    await gateway.stop();
  }
});

test("A page of another origin gets a ConnectionError that says what to check.", {
  skip,
}, async () => {
  const { whole, alone } = await visit("/", process.env.EMBEDWAY_BASE_URL, await tokenOf());
  assert.equal(whole.name, "ConnectionError");
  assert.equal(alone.name, "ConnectionError");
  assert.match(whole.message, /cors_origins/);
});
