/** Decodes base64 vectors into one Float32Array, with no work per number. */

import { InvalidResponseError } from "./errors.js";

/** Vectors in one array, one after the other. */
export interface Matrix {
  /** All numbers: vector `i` is `data.subarray(i * dimensions, (i + 1) * dimensions)`. */
  data: Float32Array;
  /** How many vectors there are. */
  items: number;
  /** How many numbers each vector has. */
  dimensions: number;
}

const FLOAT_BYTES = 4;

const isLittleEndian = () => new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

/** A vector in any format: the base64 of its bytes, or its numbers. */
export type AnyVector = string | ArrayLike<number>;

/** Raises an InvalidResponseError unless all vectors have the same width: `asked`, if given. */
export function checkWidths(vectors: readonly AnyVector[], asked?: number | null): void {
  const expected = asked ?? widthOf(vectors[0] ?? "");
  vectors.forEach((vector, index) => {
    const width = widthOf(vector);
    if (width !== expected || width === 0 || !Number.isInteger(width)) {
      throw new InvalidResponseError(
        `Vector ${index} of the answer has ${width} numbers, where ${expected} are expected.`,
      );
    }
  });
}

/** How many numbers a vector has; a fraction if it is not the base64 of whole numbers. */
function widthOf(vector: AnyVector): number {
  if (typeof vector !== "string") return vector.length;
  const padding = vector.endsWith("==") ? 2 : vector.endsWith("=") ? 1 : 0;
  return ((vector.length / 4) * 3 - padding) / FLOAT_BYTES;
}

/**
 * Decodes vectors of one width, each given as the base64 of its little-endian float32 bytes, into
 * one array. Raises an InvalidResponseError if one is not base64.
 */
export function decodeVectors(encoded: readonly string[]): Matrix {
  const dimensions = widthOf(encoded[0] ?? "");
  const width = dimensions * FLOAT_BYTES;
  const bytes = new Uint8Array(encoded.length * width);
  encoded.forEach((text, index) => {
    decodeInto(text, bytes.subarray(index * width, (index + 1) * width), index);
  });
  if (!isLittleEndian()) swapBytes(bytes);
  return { data: new Float32Array(bytes.buffer), items: encoded.length, dimensions };
}

/** Returns the vectors of a matrix, as views on its array. */
export function rowsOf({ data, items, dimensions }: Matrix): Float32Array[] {
  return Array.from({ length: items }, (_, index) =>
    data.subarray(index * dimensions, (index + 1) * dimensions),
  );
}

/** Joins vectors of one width. Those that are views on one array, in order, are not copied. */
export function matrixOf(vectors: readonly AnyVector[]): Matrix {
  const [first] = vectors;
  if (typeof first === "string") return decodeVectors(vectors as string[]);
  const rows = vectors as ArrayLike<number>[];
  const items = rows.length;
  const dimensions = first?.length ?? 0;
  if (first instanceof Float32Array && isWhole(rows, first)) {
    return { data: new Float32Array(first.buffer), items, dimensions };
  }
  const data = new Float32Array(items * dimensions);
  rows.forEach((row, index) => {
    data.set(row, index * dimensions);
  });
  return { data, items, dimensions };
}

/** Whether the rows are all of one buffer, as rowsOf() cut it. */
function isWhole(
  rows: readonly ArrayLike<number>[],
  { buffer, byteLength }: Float32Array,
): boolean {
  return (
    buffer.byteLength === rows.length * byteLength &&
    rows.every(
      (row, index) =>
        row instanceof Float32Array &&
        row.buffer === buffer &&
        row.byteOffset === index * byteLength,
    )
  );
}

/** Turns the bytes of each float32 around, for machines that are big-endian. */
export function swapBytes(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += FLOAT_BYTES) {
    bytes.subarray(at, at + FLOAT_BYTES).reverse();
  }
}

// Newer engines decode into an array. TypeScript's library does not know this yet.
interface Base64Target extends Uint8Array {
  setFromBase64?(text: string): { written: number };
}

interface NodeBuffer {
  from(
    buffer: ArrayBufferLike,
    offset: number,
    length: number,
  ): {
    write(text: string, encoding: "base64"): number;
  };
}

function decodeInto(text: string, target: Base64Target, index: number): void {
  const { Buffer } = globalThis as { Buffer?: NodeBuffer };
  let written = 0;
  let cause: unknown;
  try {
    if (target.setFromBase64) {
      written = target.setFromBase64(text).written;
    } else if (Buffer) {
      written = Buffer.from(target.buffer, target.byteOffset, target.length).write(text, "base64");
    } else {
      const binary = atob(text);
      for (; written < binary.length; written++) target[written] = binary.charCodeAt(written);
    }
  } catch (error) {
    cause = error;
  }
  if (written !== target.length) {
    throw new InvalidResponseError(`Vector ${index} of the answer is not base64.`, cause);
  }
}
