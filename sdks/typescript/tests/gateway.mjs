/** Starts real gateways, each a process of its own on an empty data folder. */

import { execFileSync, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { SDK } from "@embedway/sdk";

const PROGRAM = fileURLToPath(new URL("../../../.venv/bin/embedway", import.meta.url));
const START_MS = 120_000;

/** A free port of this machine. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/**
 * Starts a gateway with these settings and waits until it is ready.
 *
 * Returns its `url`, an admin key, a key with all scopes of a project's keys but `keys`, and `stop`.
 */
export async function startGateway(settings = {}) {
  const folder = mkdtempSync(join(tmpdir(), "embedway-typescript-"));
  const port = await freePort();
  const env = {
    PATH: process.env.PATH,
    HOME: folder,
    EMBEDWAY_DATA_DIR: join(folder, "data"),
    EMBEDWAY_PORT: String(port),
    EMBEDWAY_PRECISION: "f32",
    EMBEDWAY_DRAIN_S: "0.2",
    EMBEDWAY_LOCAL_SERVERS: "false",
    EMBEDWAY_CANARIES: "false",
    ...(process.env.EMBEDWAY_CACHE_DIR && { EMBEDWAY_CACHE_DIR: process.env.EMBEDWAY_CACHE_DIR }),
    ...settings,
  };
  const options = { cwd: folder, env };
  const log = openSync(join(folder, "log"), "w");
  const process_ = spawn(PROGRAM, ["serve"], { ...options, stdio: ["ignore", log, log] });
  closeSync(log);
  const ended = new Promise((resolve) => process_.once("exit", resolve));
  const stop = async () => {
    process_.kill("SIGKILL");
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  try {
    const deadline = Date.now() + START_MS;
    while (!(await isReady(url))) {
      if (process_.exitCode !== null || Date.now() > deadline) {
        const said = readFileSync(join(folder, "log"), "utf8");
        throw new Error(`The gateway did not start:\n${said}`);
      }
      await sleep(50);
    }
    const create = ["keys", "create", "--name", "tests", "--admin", "--json"];
    const adminKey = JSON.parse(execFileSync(PROGRAM, create, options)).key;
    const admin = new SDK({ serverURL: url, bearerAuth: adminKey });
    const { value: key } = await admin.organization.projects.apiKeys.create("proj_default", {
      name: "tests",
      scopes: ["embeddings", "on_behalf_of", "tokens", "usage"],
    });
    return { url, adminKey, key, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function isReady(url) {
  try {
    return (await fetch(`${url}/readyz`)).ok;
  } catch {
    return false;
  }
}
