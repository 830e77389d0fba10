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

/**
 * Decodes vectors, each given as the base64 of its little-endian float32 bytes, into one array.
 *
 * Raises an InvalidResponseError if one is not base64 or not as wide as the first.
 */
export function decodeVectors(encoded: readonly string[]): Matrix {
  const width = byteLength(encoded[0] ?? "");
  const bytes = new Uint8Array(encoded.length * width);
  encoded.forEach((text, index) => {
    const end = (index + 1) * width;
    if (byteLength(text) !== width || width === 0 || width % FLOAT_BYTES !== 0) {
      const size = `${byteLength(text)} bytes, where the first has ${width}`;
      throw new InvalidResponseError(
        `The vectors cannot be read: vector ${index} has ${size}. All need the same multiple of 4.`,
      );
    }
    decodeInto(text, bytes.subarray(index * width, end), index);
  });
  if (!isLittleEndian()) swapBytes(bytes);
  const data = new Float32Array(bytes.buffer);
  return { data, items: encoded.length, dimensions: width / FLOAT_BYTES };
}

/** Returns the vectors of a matrix, as views on its array. */
export function rowsOf({ data, items, dimensions }: Matrix): Float32Array[] {
  return Array.from({ length: items }, (_, index) =>
    data.subarray(index * dimensions, (index + 1) * dimensions),
  );
}

/** Joins vectors of any format. Those that are views on one array are not copied. */
export function matrixOf(vectors: readonly unknown[]): Matrix {
  const [first] = vectors;
  if (typeof first === "string") return decodeVectors(vectors as string[]);
  const rows = vectors as ArrayLike<number>[];
  const dimensions = rows[0]?.length ?? 0;
  const size = rows.length * dimensions;
  if (first instanceof Float32Array && isWhole(rows, first)) {
    return { data: new Float32Array(first.buffer), items: rows.length, dimensions };
  }
  const data = new Float32Array(size);
  rows.forEach((row, index) => {
    if (row.length !== dimensions) {
      throw new InvalidResponseError(`Vector ${index} is not as wide as the first.`);
    }
    data.set(row, index * dimensions);
  });
  return { data, items: rows.length, dimensions };
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
        row.byteOffset === index * byteLength &&
        row.byteLength === byteLength,
    )
  );
}

/** Turns the bytes of each float32 around, for machines that are big-endian. */
export function swapBytes(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += FLOAT_BYTES) {
    bytes.subarray(at, at + FLOAT_BYTES).reverse();
  }
}

/** The number of bytes that a base64 text stands for; a fraction if it is no base64. */
function byteLength(text: string): number {
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  return (text.length / 4) * 3 - padding;
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
