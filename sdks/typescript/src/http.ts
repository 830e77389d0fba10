/** Sends a call: one request, and the tries after it. */

import { onAbort } from "./abort.js";
import { apiError, ConnectionError, InvalidResponseError, quote, TimeoutError } from "./errors.js";
import { isFree, retryWait } from "./retries.js";
import { type CallOptions, checkTimeout, credentialOf, type Settings } from "./settings.js";

/** A call of the gateway's API. */
export interface Call {
  method: "GET" | "POST" | "DELETE";
  path: string;
  query?: object | undefined;
  /** Sent as JSON. */
  body?: unknown;
  headers?: Record<string, string>;
  /** Whether it changes and costs nothing although it is no GET. */
  isSafe?: boolean;
}

/** An answer of status 2xx. */
export interface Answer {
  headers: Headers;
  /** The decoded JSON. */
  body: unknown;
}

/** Longer timers end at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Codes of Node and Bun for a connection that never came about, so that nothing was sent. */
const NOT_CONNECTED = [
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
  "ConnectionRefused",
  "FailedToOpenSocket",
];

/** Sends `call` until it succeeds or there is no use in another try. */
export async function send(settings: Settings, call: Call, options: CallOptions): Promise<Answer> {
  const config = { ...settings.retryConfig, ...options.retries };
  const isSafe = call.isSafe ?? call.method === "GET";
  const begin = Date.now();
  for (let retries = 0; ; ) {
    try {
      return await sendOnce(settings, call, options);
    } catch (error) {
      const elapsedMs = Date.now() - begin;
      const waitMs = retryWait(config, error, { retries, elapsedMs, isSafe });
      if (waitMs === null) throw error;
      if (!isFree(error)) retries++;
      settings.debugLogger?.debug("embedway: retry", { path: call.path, waitMs });
      await pause(waitMs, options.signal);
    }
  }
}

async function sendOnce(settings: Settings, call: Call, options: CallOptions): Promise<Answer> {
  const { hooks = {}, fetch: send = fetch, debugLogger } = settings;
  const timeoutMs = options.timeoutMs ?? settings.timeoutMs;
  checkTimeout(timeoutMs);
  const url = settings.serverURL + call.path + queryOf(call.query);
  const headers = new Headers({ accept: "application/json" });
  if (call.body !== undefined) headers.set("content-type", "application/json");
  const added = { ...settings.httpHeaders, ...options.httpHeaders, ...call.headers };
  for (const [name, value] of Object.entries(added)) headers.set(name, value);
  headers.set("authorization", `Bearer ${await credentialOf(settings)}`);
  // A redirected POST may arrive elsewhere, or as a GET.
  const init: RequestInit = { method: call.method, headers, redirect: "manual" };
  if (call.body !== undefined) init.body = JSON.stringify(call.body);

  options.signal?.throwIfAborted();
  const controller = new AbortController();
  init.signal = controller.signal;
  const abort = () => controller.abort();
  const ignore = onAbort(options.signal, abort);
  let isLate = false;
  const expire = () => {
    isLate = true;
    abort();
  };
  const timer = timeoutMs > MAX_TIMER_MS ? undefined : setTimeout(expire, timeoutMs);
  const start = Date.now();
  /** Names what went wrong with the connection. */
  const over = async <T>(step: Promise<T>): Promise<T> => {
    try {
      return await step;
    } catch (cause) {
      options.signal?.throwIfAborted();
      if (isLate) {
        const message = `${url} did not answer within timeoutMs=${timeoutMs}.`;
        throw new TimeoutError(message, { mayBeBilled: true });
      }
      throw connectionError(settings.serverURL, cause);
    }
  };

  let request =
    hooks.beforeRequest || hooks.afterResponse || hooks.onError
      ? new Request(url, init)
      : undefined;
  try {
    if (request) request = (await hooks.beforeRequest?.(request)) ?? request;
    debugLogger?.debug("embedway: request", { method: call.method, url });
    const response = await over(request ? send(request) : send(url, init));
    if (request) await hooks.afterResponse?.(response.clone(), request);
    const text = await over(response.text());
    const { status } = response;
    const requestId = response.headers.get("x-request-id");
    debugLogger?.debug("embedway: answer", { status, requestId, ms: Date.now() - start });
    if (!response.ok) throw apiError(status, response.headers, text);
    return { headers: response.headers, body: parse(text) };
  } catch (error) {
    if (request) await hooks.onError?.(error, request);
    throw error;
  } finally {
    clearTimeout(timer);
    ignore();
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InvalidResponseError(`The answer is no JSON but: ${quote(text)}`, cause);
  }
}

/** Waits; raises the reason of `signal` if it is aborted meanwhile. */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const ignore = onAbort(signal, () => {
      clearTimeout(timer);
      reject(signal?.reason);
    });
    const timer = setTimeout(() => {
      ignore();
      resolve();
    }, ms);
  });
}

interface Failure {
  code?: string;
  message?: string;
  cause?: Failure;
}

function connectionError(serverURL: string, cause: unknown): ConnectionError {
  const failure = cause as Failure;
  const code = failure.code ?? failure.cause?.code ?? "";
  const reason = failure.cause?.message || failure.message || code;
  // Deno has no code, but says at which step it failed.
  const isSent = !NOT_CONNECTED.includes(code) && !/client error \(Connect\)/.test(reason);
  const isBrowser = "document" in globalThis || "importScripts" in globalThis;
  const cors = isBrowser ? " Does the gateway's cors_origins list this page?" : "";
  const verb = isSent ? "broke" : "failed";
  return new ConnectionError(`The connection to ${serverURL} ${verb}: ${reason}.${cors}`, {
    cause,
    mayBeBilled: isSent,
  });
}

function queryOf(query: object = {}): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    [value]
      .flat()
      .filter((each) => each !== undefined && each !== null)
      .map((each) => [name, String(each)]),
  );
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
}
