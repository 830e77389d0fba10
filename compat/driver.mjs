// Runs one client in the client's own environment: `node driver.mjs FILE PACKAGE...`.
//
// It does what driver.py does, and imports only Node. FILE exports `lacks` and functions of the same
// names, so that the default export lets the client choose a model.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const lacked = {
  aembed: "All its methods are asynchronous.",
  default: "You always name the model.",
  search: "It stores nothing.",
};

const [file, ...packages] = process.argv.slice(2);
const client = await import(pathToFileURL(file));

function say(outcome) {
  process.stdout.write(JSON.stringify(outcome) + "\n");
}

function versionOf(name) {
  return JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url))).version;
}

function packed(vector) {
  return typeof vector === "string" ? vector : Buffer.from(Float32Array.from(vector).buffer).toString("base64");
}

async function outcomeOf(given) {
  const method = client[given.method];
  const reason = client.lacks[given.name] ?? (method ? undefined : lacked[given.method]);
  if (reason) return { lacks: reason };
  try {
    const result = await method(given);
    return given.method === "search" ? { found: result } : { vectors: result.map(packed) };
  } catch (error) {
    const name = error.name === "Error" ? error.constructor.name : error.name;
    return { error: name, message: String(error.message) };
  }
}

const versions = Object.fromEntries(packages.map((name) => [name, versionOf(name)]));
say({ versions: { ...versions, node: process.versions.node } });
for await (const line of createInterface({ input: process.stdin })) say(await outcomeOf(JSON.parse(line)));
