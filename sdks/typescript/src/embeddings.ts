/** Turns embedding requests into calls, and their answers into vectors. */

import { EmbedwayError, InvalidResponseError } from "./errors.js";
import { type Call, send } from "./http.js";
import type { components } from "./openapi.js";
import type { CallOptions, Settings } from "./settings.js";
import {
  type AnyVector,
  checkWidths,
  decodeVectors,
  type Matrix,
  matrixOf,
  rowsOf,
} from "./vectors.js";

type Fields = components["schemas"]["EmbeddingsFields"];

/** The formats of vectors that a request may name. */
export type EncodingFormat = "float" | "base64";

/** A text, texts, token ids, or token ids of several items. */
export type EmbeddingsInput =
  | string
  | readonly string[]
  | readonly number[]
  | readonly (readonly number[])[];

/** What to embed and how. The fields are the gateway's, in camel case. */
export type EmbeddingsRequest<Format extends EncodingFormat | undefined = undefined> = {
  [Name in keyof Omit<Fields, "input" | "encodingFormat">]: Fields[Name] | undefined;
} & {
  /** The text or texts to embed, or token ids: one list, or one list for each item. */
  input: EmbeddingsInput;
  /** Leave it out for Float32Array. `float` gives number[], `base64` the strings as they came. */
  encodingFormat?: Format | undefined;
};

/** A vector in the format that a request names, or as usual if it names none. */
export type Vector<Format extends EncodingFormat | undefined> = Format extends "float"
  ? number[]
  : Format extends "base64"
    ? string
    : Float32Array;

/** The vector of one item. */
export interface Embedding<V> {
  object: "embedding";
  /** The item's place in the input. */
  index: number;
  /** A Float32Array is a view on one buffer that all vectors of the answer share. */
  embedding: V;
}

/** How many tokens a request had. */
export interface Usage {
  promptTokens: number;
  totalTokens: number;
}

/** The answer to an embeddings request. */
export class EmbeddingsResponse<V extends AnyVector = Float32Array> {
  readonly object = "list";
  /** One entry for each item of the input, in its order. */
  readonly data: Embedding<V>[];
  /** The model as requested. */
  readonly model: string;
  readonly usage: Usage;
  /** `embd_...`, also the id of the usage record. */
  readonly id: string;
  /** Unix time in seconds. */
  readonly created: number;
  /** The provider that answered; several are separated by commas. */
  readonly provider: string | null;
  /** The id under which the gateway logged the request. */
  readonly requestId: string | null;
  /** The vector space. Compare only vectors of the same space. */
  readonly space: string | null;
  /** The cost in USD, as an exact decimal number. */
  readonly costUsd: string | null;
  /** `hit`, `miss` or `partial`; null if the gateway has no cache. */
  readonly cache: string | null;

  /** @internal */
  constructor(
    body: components["schemas"]["EmbeddingsResponse"],
    /** The headers of the answer. */
    readonly headers: Headers,
    vectors: readonly V[],
  ) {
    this.data = vectors.map((embedding, index) => ({ object: "embedding", index, embedding }));
    this.model = body.model;
    this.usage = {
      promptTokens: body.usage.prompt_tokens,
      totalTokens: body.usage.total_tokens,
    };
    this.id = body.id;
    this.created = body.created;
    this.provider = headers.get("x-embedway-provider") ?? body.provider;
    this.requestId = headers.get("x-request-id");
    this.space = headers.get("x-embedway-space");
    this.costUsd = headers.get("x-embedway-cost-usd");
    this.cache = headers.get("x-embedway-cache");
  }

  /** Returns all vectors as one array. Float32Array vectors are views on it: nothing is copied. */
  matrix(): Matrix {
    return matrixOf(this.data.map((each) => each.embedding));
  }
}

/** Sends a request and returns its vectors, one for each item of the input. */
export async function embedWith<Format extends EncodingFormat | undefined>(
  settings: Settings,
  request: EmbeddingsRequest<Format>,
  onBehalfOf: string | undefined,
  options: CallOptions,
): Promise<EmbeddingsResponse<Vector<Format>>> {
  const { encodingFormat = "base64" } = request;
  const call = callOf({ ...request, encodingFormat }, onBehalfOf);
  return send(settings, call, options, ({ headers, body }) => {
    const answer = body as components["schemas"]["EmbeddingsResponse"];
    const sent = checkedVectors(answer?.data, request.input, encodingFormat);
    checkWidths(sent, request.dimensions);
    const { prompt_tokens, total_tokens } = answer.usage ?? {};
    if (!(Number.isFinite(prompt_tokens) && Number.isFinite(total_tokens))) {
      throw new InvalidResponseError("The answer does not say how many tokens were used.");
    }
    const vectors = request.encodingFormat ? sent : rowsOf(decodeVectors(sent as string[]));
    return new EmbeddingsResponse(answer, headers, vectors as Vector<Format>[]);
  });
}

/**
 * Returns the call that sends a request: its fields in the gateway's own names. Raises an
 * EmbedwayError if a header cannot name the end user.
 */
export function callOf(request: object, onBehalfOf: string | undefined): Call {
  if (onBehalfOf !== undefined && !/^(?! )[ -~]{1,150}(?<! )$/.test(onBehalfOf)) {
    throw new EmbedwayError(
      `onBehalfOf ${JSON.stringify(onBehalfOf)} must have 1 to 150 printable ASCII characters, and no space at its ends.`,
    );
  }
  const fields = Object.entries(request).map(([name, value]) => [
    name.replace(/[A-Z]/g, (capital) => `_${capital.toLowerCase()}`),
    value,
  ]);
  return {
    method: "POST",
    path: "/v1/embeddings",
    body: Object.fromEntries(fields),
    headers: onBehalfOf === undefined ? {} : { "x-on-behalf-of": onBehalfOf },
  };
}

/** Returns the vectors as they came. Raises an error unless there is one for each item, in order. */
function checkedVectors(
  data: unknown,
  input: EmbeddingsInput,
  format: EncodingFormat,
): AnyVector[] {
  const items = Array.isArray(input) && typeof input[0] !== "number" ? input.length : 1;
  if (!Array.isArray(data) || data.length !== items) {
    const found = Array.isArray(data) ? data.length : "no";
    throw new InvalidResponseError(`The answer has ${found} vectors for ${items} items.`);
  }
  return data.map((each, index) => {
    if (each?.index !== index) {
      throw new InvalidResponseError(`Vector ${index} of the answer is not of item ${index}.`);
    }
    const { embedding } = each;
    const isRight =
      format === "base64"
        ? typeof embedding === "string"
        : Array.isArray(embedding) && embedding.every(Number.isFinite);
    if (!isRight) {
      throw new InvalidResponseError(`Vector ${index} of the answer is not ${format}.`);
    }
    return embedding;
  });
}
