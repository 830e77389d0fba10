/** An HTTP server that answers as a test says, for what a real gateway does rarely or never. */

import { createServer } from "node:http";

/** The vector that the scripted server gives for an item: its place in the request, and more. */
export const vectorOf = (place) => [place, 0.5, -1.25];

/** The base64 of a vector's little-endian float32 bytes. */
export const base64 = (vector) => Buffer.from(new Float32Array(vector).buffer).toString("base64");

/** The body that answers a request, as the gateway would. */
export function answerTo(sent = {}, changes = {}) {
  const items = Array.isArray(sent.input) && typeof sent.input[0] !== "number" ? sent.input : [0];
  return {
    object: "list",
    data: items.map((_, index) => ({
      object: "embedding",
      index,
      embedding: sent.encoding_format === "base64" ? base64(vectorOf(index)) : vectorOf(index),
    })),
    model: sent.model ?? "auto",
    usage: { prompt_tokens: items.length, total_tokens: items.length },
    id: "embd_1",
    created: 1,
    provider: "scripted",
    ...changes,
  };
}

/** The body of an error. */
export const errorBody = (message, fields = {}) => ({
  error: { message, type: "invalid_request_error", param: null, code: null, ...fields },
});

/**
 * Starts a server; `handle(sent, number)` returns the answer to each request: `{ status, headers,
 * body }`, or a function that is given the response and does what it wants with the connection.
 *
 * Returns its `url`, the `requests` that came, and `close`.
 */
export async function startScripted(handle) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const sent = text ? JSON.parse(text) : undefined;
    const { method, url, headers } = request;
    requests.push({ method, url, headers, body: sent, closed: closing(response) });
    const answer = await handle(sent, requests.length - 1, request);
    if (typeof answer === "function") return answer(response);
    const { status = 200, headers: more = {}, body = answerTo(sent) } = answer ?? {};
    response.writeHead(status, {
      "content-type": "application/json",
      "x-request-id": "req_1",
      "x-embedway-space": "scripted/3",
      "x-embedway-cost-usd": "0.000000001",
      ...more,
    });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Resolves, with whether it was answered, when the connection of a response ends. */
const closing = (response) =>
  new Promise((resolve) => response.once("close", () => resolve(response.writableFinished)));
