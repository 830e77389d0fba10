/** The programs of the README. */

import { readFileSync } from "node:fs";

const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");

/** Each block of TypeScript, without the indentation that it has in a list. */
export const programs = [...text.matchAll(/^( *)```ts\n(.*?)^ *```$/gms)].map(([, indent, block]) =>
  block.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
);

/** The first one, with the address and key of the gateway of the tests. */
export const quickStart = programs[0]
  .replace("http://127.0.0.1:8080", process.env.EMBEDWAY_BASE_URL)
  .replace("sk-gateway-...", process.env.EMBEDWAY_API_KEY);
