/** Sends a call: one request, and the tries after it. */

import { onAbort } from "./abort.js";
import { apiError, ConnectionError, InvalidResponseError, quote, TimeoutError } from "./errors.js";
import { checkRetries, nextRetry, type RetryConfig } from "./retries.js";
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

/** The longest wait of a timer, in milliseconds. Longer timers end at once. */
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

/**
 * Sends `call` until it succeeds or there is no use in another try, and returns what `read` makes of
 * the answer. `read` raises an InvalidResponseError if the answer is not what was asked for.
 */
export async function send<Result>(
  settings: Settings,
  call: Call,
  options: CallOptions,
  read: (answer: Answer) => Result,
): Promise<Result> {
  const { timeoutMs = settings.timeoutMs, retries: changes } = options;
  checkTimeout(timeoutMs);
  checkRetries("retries", changes);
  const named = Object.entries(changes ?? {}).filter(([, value]) => value !== undefined);
  const config: RetryConfig = { ...settings.retryConfig, ...Object.fromEntries(named) };
  const isSafe = call.isSafe ?? call.method === "GET";
  const begin = Date.now();
  for (let retries = 0; ; ) {
    try {
      return await sendOnce(settings, call, { ...options, timeoutMs }, read);
    } catch (error) {
      const elapsedMs = Date.now() - begin;
      const retry = nextRetry(config, error, { retries, elapsedMs, isSafe });
      if (!retry) throw error;
      const { waitMs, isFree } = retry;
      if (!isFree) retries++;
      settings.debugLogger?.debug("embedway: retry", { path: call.path, waitMs });
      await pause(waitMs, options.signal);
    }
  }
}

async function sendOnce<Result>(
  settings: Settings,
  call: Call,
  { timeoutMs, signal: ending, httpHeaders }: CallOptions & { timeoutMs: number },
  read: (answer: Answer) => Result,
): Promise<Result> {
  const { hooks = {}, fetch: send = fetch, debugLogger } = settings;
  const url = settings.serverURL + call.path + queryOf(call.query);
  const controller = new AbortController();
  const { signal } = controller;
  let isSent = false;
  let isRead = false;
  const expire = () => {
    const message = isSent
      ? `${url} did not answer within timeoutMs=${timeoutMs}.`
      : `Nothing was sent to ${url} within timeoutMs=${timeoutMs}: bearerAuth or beforeRequest takes too long.`;
    controller.abort(new TimeoutError(message, { mayBeBilled: isSent }));
  };
  ending?.throwIfAborted();
  const timer = startTimer(expire, timeoutMs);
  const ignore = onAbort(ending, () => controller.abort(ending?.reason));
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  aborted.catch(() => {}); // Nobody may be waiting for it.
  /** Waits for what may not know the signal, but no longer than until it is aborted. */
  const within = <T>(step: T): Promise<Awaited<T>> => Promise.race([step, aborted]);
  /** Names what went wrong with the connection. */
  const over = async <T>(step: Promise<T>): Promise<T> => {
    try {
      return await within(step);
    } catch (cause) {
      throw signal.aborted ? signal.reason : connectionError(settings.serverURL, cause);
    }
  };

  let request: Request | undefined;
  try {
    const headers = new Headers({ accept: "application/json" });
    if (call.body !== undefined) headers.set("content-type", "application/json");
    const added = { ...settings.httpHeaders, ...httpHeaders, ...call.headers };
    for (const [name, value] of Object.entries(added)) headers.set(name, value);
    headers.set("authorization", `Bearer ${await within(credentialOf(settings))}`);
    // A redirected POST may arrive elsewhere, or as a GET.
    const init: RequestInit = { method: call.method, headers, redirect: "manual", signal };
    if (call.body !== undefined) init.body = JSON.stringify(call.body);
    if (hooks.beforeRequest || hooks.afterResponse || hooks.onError) {
      request = new Request(url, init);
      request = (await within(hooks.beforeRequest?.(request))) ?? request;
    }
    debugLogger?.debug("embedway: request", { method: call.method, url });
    const start = Date.now();
    isSent = true;
    // The signal again, for the request of a hook may lack it.
    const response = await over(request ? send(request, { signal }) : send(url, init));
    if (request) await within(hooks.afterResponse?.(response.clone(), request));
    const text = await over(response.text());
    isRead = true;
    const { status } = response;
    const requestId = response.headers.get("x-request-id");
    debugLogger?.debug("embedway: answer", { status, requestId, ms: Date.now() - start });
    if (!response.ok) throw apiError(status, response.headers, text);
    return read({ headers: response.headers, body: parse(text) });
  } catch (error) {
    if (request) await within(hooks.onError?.(error, request));
    throw error;
  } finally {
    clearTimeout(timer);
    ignore();
    if (!isRead) controller.abort(); // The connection is of no more use.
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
    const timer = startTimer(() => {
      ignore();
      resolve();
    }, ms);
  });
}

/** Calls `act` after so many milliseconds, or after the most that a timer can wait: 25 days. */
function startTimer(act: () => void, ms: number): ReturnType<typeof setTimeout> {
  return setTimeout(act, Math.min(ms, MAX_TIMER_MS));
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
