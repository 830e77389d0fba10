/** Embeds any number of inputs: in many requests, several at a time, in order, in bounded memory. */

import { onAbort } from "./abort.js";
import {
  type EmbeddingsInput,
  type EmbeddingsRequest,
  type EmbeddingsResponse,
  embedWith,
  type Usage,
} from "./embeddings.js";
import { EmbedwayError, InvalidResponseError, SpaceMismatchError } from "./errors.js";
import { cut, type Input, type Piece } from "./pieces.js";
import type { CallOptions, Settings } from "./settings.js";
import { type Matrix, matrixOf } from "./vectors.js";

/** What has been embedded so far. */
export interface Progress {
  items: number;
  /** How many inputs there are; null if that is not known, as of a generator. */
  total: number | null;
  usage: Usage;
  costUsd: string | null;
}

/** How to embed many inputs: the fields of a request, the options of a call, and these. */
export type EmbedManyOptions = Omit<EmbeddingsRequest, "input" | "encodingFormat"> &
  CallOptions & {
    /** Your end user, for whom limits, budgets and usage count. */
    onBehalfOf?: string | undefined;
    /** The most requests at a time. Default 4. */
    concurrency?: number | undefined;
    /** The most inputs of a request. Default 256. */
    maxItems?: number | undefined;
    /** Called after each request, in order. */
    onProgress?: ((progress: Progress) => void) | undefined;
  };

/** The vector of one input. */
export interface IndexedEmbedding {
  /** The input's place among all. */
  index: number;
  embedding: Float32Array;
}

/** A request that was answered. */
interface Answered {
  piece: Piece;
  response: EmbeddingsResponse;
}

/**
 * The vectors of many inputs, in their order; iterate it once.
 *
 * Inputs are read as they are needed: at most twice `concurrency` requests are in memory. The end of
 * an iteration, also by an error or `break`, cancels the requests under way.
 */
export class EmbedMany implements AsyncIterable<IndexedEmbedding> {
  /** How many vectors were counted so far: those of the requests whose turn has come. */
  items = 0;
  /** The space of all vectors; null before the first. */
  space: string | null = null;
  /** The width of all vectors; null before the first. */
  dimensions: number | null = null;
  /** The tokens of these. */
  readonly usage: Usage = { promptTokens: 0, totalTokens: 0 };
  /** The cost of these in USD, exact; null if an answer did not say what it cost. */
  costUsd: string | null = "0";

  readonly #settings: Settings;
  readonly #options: EmbedManyOptions;
  readonly #embeddings: AsyncGenerator<IndexedEmbedding, void>;
  readonly #total: number | null;
  #isRead = false;

  /** @internal */
  constructor(
    settings: Settings,
    inputs: Iterable<Input> | AsyncIterable<Input>,
    options: EmbedManyOptions,
  ) {
    const { concurrency = 4, maxItems = 256 } = options;
    if (typeof inputs === "string") {
      throw new EmbedwayError("embedMany takes many inputs but got one text. Give it a list.");
    }
    for (const [name, value] of Object.entries({ concurrency, maxItems })) {
      if (!(Number.isInteger(value) && value > 0)) {
        throw new EmbedwayError(`${name} is ${value}. Give a positive whole number.`);
      }
    }
    const { length, size } = inputs as { length?: number; size?: number };
    this.#total = length ?? size ?? null;
    this.#settings = settings;
    this.#options = options;
    this.#embeddings = this.#run(cut(inputs, maxItems), concurrency);
  }

  /** Raises an EmbedwayError the second time. */
  [Symbol.asyncIterator](): AsyncIterator<IndexedEmbedding, void> {
    if (this.#isRead) {
      throw new EmbedwayError("These vectors were read. Call embedMany again to embed again.");
    }
    this.#isRead = true;
    return this.#embeddings;
  }

  /** Reads all vectors into one array. */
  async matrix(): Promise<Matrix> {
    const vectors: Float32Array[] = [];
    for await (const { embedding } of this) vectors.push(embedding);
    return matrixOf(vectors);
  }

  async *#run(
    pieces: AsyncIterable<Piece>,
    concurrency: number,
  ): AsyncGenerator<IndexedEmbedding, void> {
    const { signal } = this.#options;
    const controller = new AbortController();
    /** Requests under way or done, in order, until their vectors are taken. */
    const window: Promise<Answered>[] = [];
    let running = 0;
    let isOver = false;
    let wake = () => {};
    let change = Promise.resolve();
    const notify = () => {
      wake();
      change = new Promise((resolve) => {
        wake = resolve;
      });
    };
    const abort = () => {
      isOver = true;
      controller.abort(signal?.reason);
      notify();
    };
    const add = (answered: Promise<Answered>) => {
      answered.catch(() => {}); // It is raised when its turn comes.
      window.push(answered);
      notify();
    };
    const start = async (piece: Piece) => {
      running++;
      try {
        return await this.#embed(piece, controller.signal);
      } catch (error) {
        isOver = true; // Read no more.
        throw error;
      } finally {
        running--;
        notify();
      }
    };
    const fill = async () => {
      for await (const piece of pieces) {
        if (isOver) break;
        add(start(piece));
        while (!isOver && (running >= concurrency || window.length >= 2 * concurrency)) {
          await change;
        }
        if (isOver) break;
      }
    };
    notify();
    const ignore = onAbort(signal, abort);
    try {
      signal?.throwIfAborted();
      fill()
        .catch((error) => add(Promise.reject(error)))
        .finally(() => {
          isOver = true;
          notify();
        });
      for (let index = 0; ; notify()) {
        while (!window.length && !isOver) await change;
        signal?.throwIfAborted();
        const next = window[0];
        if (!next) return;
        const { data } = this.#accept(await next);
        for (const { embedding } of data) yield { index: index++, embedding };
        window.shift();
      }
    } finally {
      abort();
      ignore();
    }
  }

  async #embed(piece: Piece, signal: AbortSignal): Promise<Answered> {
    const {
      concurrency,
      maxItems,
      onProgress,
      onBehalfOf,
      timeoutMs,
      retries,
      httpHeaders,
      signal: _,
      ...fields
    } = this.#options;
    const request: EmbeddingsRequest = { ...fields, input: piece.inputs as EmbeddingsInput };
    const options = { timeoutMs, retries, httpHeaders, signal };
    try {
      const response = await embedWith(this.#settings, request, onBehalfOf, options);
      return { piece, response };
    } catch (error) {
      throw located(error, piece);
    }
  }

  /** Counts the next answer. Raises an error if its vectors do not match those before. */
  #accept({ piece, response }: Answered): EmbeddingsResponse {
    try {
      this.#count(response);
    } catch (error) {
      throw located(error, piece);
    }
    const { items, usage, costUsd } = this;
    this.#options.onProgress?.({ items, total: this.#total, usage: { ...usage }, costUsd });
    return response;
  }

  #count({ data, usage, space, costUsd }: EmbeddingsResponse): void {
    const found = (space ?? "").split(/, */);
    const spaces = [...new Set(this.space ? [this.space, ...found] : found)];
    const [only] = spaces;
    if (spaces.length > 1 || !only) {
      throw new SpaceMismatchError(
        only
          ? `The vectors are of different spaces, ${spaces.join(" and ")}, so comparing them means nothing. Name a model as provider:model, and embed all again.`
          : "An answer does not say of which space its vectors are, so they cannot be joined.",
        spaces,
      );
    }
    const width = data[0]?.embedding.length ?? 0;
    if (width !== (this.dimensions ?? width)) {
      throw new InvalidResponseError(
        `The answer has vectors of ${width} numbers, and those before have ${this.dimensions}.`,
      );
    }
    this.space = only;
    this.dimensions = width;
    this.items += data.length;
    this.usage.promptTokens += usage.promptTokens;
    this.usage.totalTokens += usage.totalTokens;
    this.costUsd = costUsd === null || this.costUsd === null ? null : sum(this.costUsd, costUsd);
  }
}

/** Returns the error after it is told which inputs its request had. */
function located(error: unknown, { start, inputs }: Piece): unknown {
  if (error instanceof EmbedwayError) {
    const end = start + inputs.length - 1;
    error.firstIndex = start;
    error.message += ` (This request had inputs ${start} to ${end} of embedMany.)`;
  }
  return error;
}

/** Adds two decimal numbers exactly. */
function sum(one: string, other: string): string {
  const places = Math.max(...[one, other].map((each) => (each.split(".")[1] ?? "").length));
  const [a = 0n, b = 0n] = [one, other].map((each) => {
    const [whole = "0", fraction = ""] = each.split(".");
    return BigInt(whole + fraction.padEnd(places, "0"));
  });
  const digits = (a + b).toString().padStart(places + 1, "0");
  const whole = digits.slice(0, digits.length - places);
  const fraction = digits.slice(digits.length - places).replace(/0+$/, "");
  return fraction ? `${whole}.${fraction}` : whole;
}
