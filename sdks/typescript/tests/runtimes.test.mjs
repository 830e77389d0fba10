/** The other runtimes of servers: Deno and Bun. */

import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { EXPECTED } from "./portable.mjs";
import { startScripted } from "./scripted.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const home = mkdtempSync(join(tmpdir(), "embedway-runtimes-"));
const env = { PATH: process.env.PATH, HOME: home, DENO_DIR: home, DENO_NO_UPDATE_CHECK: "1" };
after(() => rmSync(home, { recursive: true, force: true }));

const bin = (name) => join(root, "tests/runtimes/node_modules/.bin", name);

/** Whether a runtime is installed: npm has it for some machines only. */
function runs(name) {
  try {
    execFileSync(bin(name), ["--version"], { env, stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

// Bun finds the package by its own name, as Node does. Deno has to be told where it is.
const config = join(home, "deno.json");
const imports = { "@embedway/sdk": pathToFileURL(join(root, "dist/esm/index.js")) };
writeFileSync(config, JSON.stringify({ imports }));

const RUNTIMES = {
  deno: ["run", "--no-prompt", "--allow-net", "--allow-read", "--config", config],
  bun: ["run"],
};

for (const [name, options] of Object.entries(RUNTIMES)) {
  const skip = runs(name)
    ? false
    : `no ${name} in tests/runtimes: make test-typescript installs it, if npm has it`;

  test(`It works on ${name}.`, { skip }, async () => {
    const nobody = await startScripted(() => ({}));
    await nobody.close();
    const program = join(home, `${name}.mjs`);
    const values = [process.env.EMBEDWAY_BASE_URL, process.env.EMBEDWAY_API_KEY, nobody.url];
    writeFileSync(
      program,
      `import { exercise, refused } from ${JSON.stringify(join(root, "tests/portable.mjs"))};
       const [url, key, nobody] = ${JSON.stringify(values)};
       const results = [await exercise(url, key), await refused(nobody)];
       console.log(JSON.stringify(results));`,
    );
    const command = [...options, program];
    const { stdout } = await promisify(execFile)(bin(name), command, { cwd: root, env });
    const [result, refused] = JSON.parse(stdout);
    assert.deepEqual(result, EXPECTED);
    assert.deepEqual(refused, { isConnectionError: true, billed: false, tries: 3 });
  });
}
