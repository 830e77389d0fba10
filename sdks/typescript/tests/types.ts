/** Checks, by the compiler alone, that the types of results follow from requests. */

import { type EmbeddingsRequest, type Page, type Schemas, SDK } from "../src/index.js";

type Same<One, Other> =
  (<T>() => T extends One ? 1 : 2) extends <T>() => T extends Other ? 1 : 2 ? true : false;
const same = <One, Other>(_: Same<One, Other>) => {};

new SDK({
  debugLogger: console,
  hooks: {
    beforeRequest: (request) => console.log(request.url),
    afterResponse: async () => {},
    onError: () => {},
  },
});
new SDK({ hooks: { beforeRequest: async (request) => new Request(request) } });

export async function check(sdk: SDK, named: "float" | "base64"): Promise<void> {
  const { embeddings } = sdk.llm;
  const usual = await embeddings.embed({ embeddingsRequest: { input: "one", model: "auto" } });
  same<(typeof usual.data)[0]["embedding"], Float32Array>(true);
  const input = ["one"] as const;
  const float = await embeddings.embed({ embeddingsRequest: { input, encodingFormat: "float" } });
  same<(typeof float.data)[0]["embedding"], number[]>(true);
  const text = await embeddings.embed({ embeddingsRequest: { input, encodingFormat: "base64" } });
  same<(typeof text.data)[0]["embedding"], string>(true);
  const either = await embeddings.embed({ embeddingsRequest: { input, encodingFormat: named } });
  same<(typeof either.data)[0]["embedding"], number[] | string>(true);

  const request: EmbeddingsRequest = { input: [[1, 2], [3]], inputType: "query", dimensions: 3 };
  same<EmbeddingsRequest["preference"], "balanced" | "cost" | "speed" | null | undefined>(true);
  await embeddings.embed({ embeddingsRequest: request, onBehalfOf: "ada" }, { timeoutMs: 1 });
  // @ts-expect-error: a field in snake case
  await embeddings.embed({ embeddingsRequest: { input, input_type: "query" } });
  // @ts-expect-error: a value that the gateway does not know
  await embeddings.embed({ embeddingsRequest: { input, truncate: "middle" } });
  // @ts-expect-error: no input
  await embeddings.embed({ embeddingsRequest: { model: "auto" } });

  for await (const each of embeddings.embedMany(new Set(["one"]), { model: "auto" })) {
    same<typeof each.embedding, Float32Array>(true);
  }
  // @ts-expect-error: the vectors of many are always Float32Array
  embeddings.embedMany(["one"], { encodingFormat: "float" });

  const projects = await sdk.organization.projects.list({ limit: 1 });
  same<typeof projects, Page<Schemas["Project"]>>(true);
  for await (const project of projects) same<typeof project.name, string>(true);
  // @ts-expect-error: a report needs its start
  await sdk.organization.usage.costs({ group_by: ["model"] });
}
