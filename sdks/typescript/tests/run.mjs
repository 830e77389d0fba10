/** Runs the tests beside one real gateway, which they find in the environment. */

import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { startGateway } from "./gateway.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const named = process.argv.slice(2);
const files = readdirSync(new URL(".", import.meta.url))
  .filter((name) => name.endsWith(".test.mjs"))
  .filter((name) => !named.length || named.some((each) => name.startsWith(each)))
  .map((name) => `tests/${name}`);
const gateway = await startGateway();
const env = {
  ...process.env,
  EMBEDWAY_BASE_URL: gateway.url,
  EMBEDWAY_API_KEY: gateway.key,
  EMBEDWAY_ADMIN_KEY: gateway.adminKey,
};
try {
  const { status } = spawnSync(process.execPath, ["--test", "--test-reporter=spec", ...files], {
    cwd: root,
    env,
    stdio: "inherit",
  });
  process.exitCode = status ?? 1;
} finally {
  await gateway.stop();
}
