/** The ways to decode base64, of which an engine has one or more. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { InvalidResponseError } from "@embedway/sdk";
import { decodeVectors, swapBytes } from "../dist/esm/vectors.js";
import { base64 } from "./scripted.mjs";

const VECTORS = [1, 3, 4, 385].map((width) =>
  [0, 1, 2].map((each) =>
    Float32Array.from({ length: width }, (_, i) => Math.fround(each + i / 7)),
  ),
);

/** Calls `check` while the engine has a function, or lacks it, that others lack or have. */
function withGlobal(owner, name, value, check) {
  const before = Object.getOwnPropertyDescriptor(owner, name);
  Object.defineProperty(owner, name, { value, configurable: true, writable: true });
  try {
    check();
  } finally {
    if (before) Object.defineProperty(owner, name, before);
    else delete owner[name];
  }
}

function check() {
  for (const vectors of VECTORS) {
    const { data, items, dimensions } = decodeVectors(vectors.map(base64));
    assert.deepEqual([items, dimensions], [3, vectors[0].length]);
    assert.deepEqual(data, Float32Array.from(vectors.flatMap((each) => [...each])));
  }
  for (const wrong of ["!!!!!!==", "AAAA!A==", "AAA=AA=="]) {
    assert.throws(() => decodeVectors([base64([1]), wrong]), InvalidResponseError, wrong);
  }
}

test("`Buffer` decodes.", () => {
  withGlobal(Uint8Array.prototype, "setFromBase64", undefined, check);
});

test("`atob` decodes where there is nothing else.", () => {
  withGlobal(Uint8Array.prototype, "setFromBase64", undefined, () => {
    withGlobal(globalThis, "Buffer", undefined, () => {
      const encoded = VECTORS.map((vectors) => vectors.map(encode));
      for (const [index, vectors] of VECTORS.entries()) {
        const { data } = decodeVectors(encoded[index]);
        assert.deepEqual(
          [...data],
          vectors.flatMap((each) => [...each]),
        );
      }
      assert.throws(() => decodeVectors(["!!!!!!=="]), InvalidResponseError);
    });
  });
});

test("`setFromBase64` decodes where there is one.", () => {
  let calls = 0;
  function setFromBase64(text) {
    calls++;
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    this.set(bytes);
    return { read: text.length, written: bytes.length };
  }
  withGlobal(Uint8Array.prototype, "setFromBase64", setFromBase64, check);
  assert(calls > 10);
});

test("The bytes of a number are turned around for big-endian machines.", () => {
  const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  swapBytes(bytes);
  assert.deepEqual([...bytes], [4, 3, 2, 1, 8, 7, 6, 5]);
});

/** Encodes without `Buffer`. */
const encode = (vector) => btoa(String.fromCharCode(...new Uint8Array(vector.buffer)));
