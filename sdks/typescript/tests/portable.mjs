/** What every runtime must do. Nothing here is of Node alone. */

import { ConnectionError, NotFoundError, SDK } from "@embedway/sdk";

/** Calls a gateway with a credential, and returns what came of it as plain JSON. */
export async function exercise(serverURL, bearerAuth) {
  const { embeddings } = new SDK({ serverURL, bearerAuth }).llm;
  const input = Array.from({ length: 20 }, (_, index) => `text ${index}`);
  const result = await embeddings.embed({ embeddingsRequest: { input } });
  const numbers = await embeddings.embed({
    embeddingsRequest: { input, encodingFormat: "float" },
  });
  // A Request that lost the signal, as hooks make them, is still sent as it is.
  const seen = [];
  const hooks = {
    beforeRequest: (request) => new Request(request.clone(), { signal: null }),
    afterResponse: async (response) => seen.push((await response.json()).data.length),
  };
  const hooked = new SDK({ serverURL, bearerAuth, hooks }).llm.embeddings;
  seen.push((await hooked.embed({ embeddingsRequest: { input } })).data.length);
  const many = embeddings.embedMany(input, { maxItems: 6 });
  const { items, dimensions } = await many.matrix();
  const unknown = await embeddings
    .embed({ embeddingsRequest: { input, model: "none" } })
    .catch((error) => error);
  const controller = new AbortController();
  const aborted = embeddings
    .embed({ embeddingsRequest: { input } }, { signal: controller.signal })
    .catch((error) => error);
  controller.abort();
  return {
    sameNumbers: numbers.matrix().data.every((each, i) => each === result.matrix().data[i]),
    oneBuffer: result.data.every((each) => each.embedding.buffer === result.matrix().data.buffer),
    length: result.data[0].embedding.length,
    hooked: seen,
    many: [items, dimensions],
    sameSpace: many.space === result.space,
    headers: [result.costUsd, result.provider, typeof result.requestId],
    unknown: [unknown instanceof NotFoundError, unknown.status, unknown.code],
    aborted: (await aborted).name,
  };
}

/** What exercise() returns for the built-in model. */
export const EXPECTED = {
  sameNumbers: true,
  oneBuffer: true,
  length: 384,
  hooked: [20, 20],
  many: [20, 384],
  sameSpace: true,
  headers: ["0", "embedway", "string"],
  unknown: [true, 404, "model_not_found"],
  aborted: "AbortError",
};

/** Returns what a call to an address where nothing listens ends with, and after how many tries. */
export async function refused(serverURL) {
  let tries = 0;
  const debugLogger = { debug: (message) => message.endsWith("request") && tries++ };
  const retryConfig = { backoff: { initialInterval: 1 } };
  const sdk = new SDK({ serverURL, bearerAuth: "k", debugLogger, retryConfig });
  const error = await sdk.llm.embeddings
    .embed({ embeddingsRequest: { input: "one" } })
    .catch((each) => each);
  return { isConnectionError: error instanceof ConnectionError, billed: error.mayBeBilled, tries };
}
