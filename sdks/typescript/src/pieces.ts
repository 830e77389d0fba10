/** Cuts any number of inputs into pieces that one request each can carry. */

import { EmbedwayError } from "./errors.js";

/** A text, or the token ids of one. */
export type Input = string | readonly number[];

/** Inputs of one request. */
export interface Piece {
  /** The place of its first input among all. */
  start: number;
  inputs: Input[];
}

/**
 * The most UTF-8 bytes of text, or token ids, of a piece of several inputs. No text has more tokens than bytes, so it
 * stays below the 300,000 tokens that a request may have.
 */
const MAX_SIZE = 262_144;

const encoder = new TextEncoder();

/** Reads inputs one by one and yields pieces of at most `maxItems`. */
export async function* cut(
  inputs: Iterable<Input> | AsyncIterable<Input>,
  maxItems: number,
): AsyncGenerator<Piece, void> {
  let piece: Piece = { start: 0, inputs: [] };
  let size = 0;
  for await (const input of inputs) {
    const isText = typeof input === "string";
    if (!isText && !Array.isArray(input)) {
      const place = piece.start + piece.inputs.length;
      throw new EmbedwayError(`Input ${place} is neither a text nor a list of token ids.`);
    }
    const added = isText ? encoder.encode(input).length : input.length;
    const count = piece.inputs.length;
    if (count && (count >= maxItems || size + added > MAX_SIZE)) {
      yield piece;
      piece = { start: piece.start + count, inputs: [] };
      size = 0;
    }
    piece.inputs.push(input);
    size += added;
  }
  if (piece.inputs.length) yield piece;
}
