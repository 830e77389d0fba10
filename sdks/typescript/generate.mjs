/**
 * Writes src/openapi.ts from the OpenAPI description of the gateway at EMBEDWAY_BASE_URL, or else at
 * http://127.0.0.1:8080.
 */

import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openapi, { astToString } from "openapi-typescript";

const HEADER =
  "// Written by `npm run generate` from the gateway's OpenAPI description. Do not edit.\n\n";

/** Returns the types of a gateway's API, and those of a request's fields in camel case. */
export async function types(url) {
  const description = await (await fetch(`${url}/openapi.json`)).json();
  const { schemas } = description.components;
  const { properties, required, type } = schemas.EmbeddingsRequest;
  // The compiler could derive these names from the others, but not their descriptions.
  const camelCase = (name) => name.replaceAll(/_(.)/g, (_, letter) => letter.toUpperCase());
  schemas.EmbeddingsFields = {
    type,
    description: "The fields of an embeddings request in camel case, for TypeScript alone.",
    properties: Object.fromEntries(
      Object.entries(properties).map(([name, field]) => [camelCase(name), field]),
    ),
    required: required.map(camelCase),
  };
  const options = { defaultNonNullable: false, emptyObjectsUnknown: true };
  return HEADER + astToString(await openapi(description, options));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const url = process.env.EMBEDWAY_BASE_URL ?? "http://127.0.0.1:8080";
  writeFileSync(new URL("src/openapi.ts", import.meta.url), await types(url));
}
