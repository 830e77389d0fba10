/** The options of an SDK and of a call, and where their defaults come from. */

import { EmbedwayError } from "./errors.js";
import { checkRetries, type RetryConfig } from "./retries.js";

const DEFAULT_URL = "http://127.0.0.1:8080";

/** A function with the signature of the global `fetch`. */
export type Fetch = (input: string | Request, init?: RequestInit) => Promise<Response>;

/** Functions to call around each try of a call. Each may be async. What they throw ends the call. */
export interface Hooks {
  /** Sees each request, and may return another to send instead. */
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook that returns nothing is the usual one
  beforeRequest?(request: Request): Request | void | Promise<Request | void>;
  /** Sees a copy of each answer, whatever its status. */
  afterResponse?(response: Response, request: Request): void | Promise<void>;
  /** Sees what a try failed with, before it is tried again or raised. */
  onError?(error: unknown, request: Request): void | Promise<void>;
}

/** Takes notes of each request, answer and retry; `console` is one. They have no key and no text. */
export interface DebugLogger {
  debug(message: string, details: Record<string, unknown>): void;
}

/** The options of an SDK. */
export interface SDKOptions {
  /**
   * Your key or token, or a function that returns it, which is called before each try. Default: the
   * environment's EMBEDWAY_API_KEY.
   */
  bearerAuth?: string | (() => string | Promise<string>) | undefined;
  /**
   * The gateway's address; `/v1` at its end is ignored. Default: the environment's
   * EMBEDWAY_BASE_URL, or else http://127.0.0.1:8080.
   */
  serverURL?: string | undefined;
  /** The most milliseconds that one try may take. Default 60,000. */
  timeoutMs?: number | undefined;
  /** Which failures are tried again, and how often. */
  retryConfig?: RetryConfig | undefined;
  /** Headers to send with each request. */
  httpHeaders?: Record<string, string> | undefined;
  /** What sends requests. Default: the global `fetch`. */
  fetch?: Fetch | undefined;
  debugLogger?: DebugLogger | undefined;
  hooks?: Hooks | undefined;
}

/** The options of one call. */
export interface CallOptions {
  /** The most milliseconds that one try may take. */
  timeoutMs?: number | undefined;
  /** Replaces those fields of the SDK's `retryConfig` that are not undefined. */
  retries?: RetryConfig | undefined;
  /** Ends the call, waits between tries included, which then raises the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Headers to send besides the SDK's. */
  httpHeaders?: Record<string, string> | undefined;
}

/** Options with their defaults filled in. */
export interface Settings extends SDKOptions {
  serverURL: string;
  timeoutMs: number;
}

/** Fills in the defaults. Raises an EmbedwayError if an option has no meaning. */
export function settingsOf(options: SDKOptions): Settings {
  const { serverURL = environment("EMBEDWAY_BASE_URL") ?? DEFAULT_URL } = options;
  const timeoutMs = options.timeoutMs ?? 60_000;
  checkTimeout(timeoutMs);
  checkRetries("retryConfig", options.retryConfig);
  return { ...options, serverURL: rootOf(serverURL), timeoutMs };
}

/** Raises an EmbedwayError unless `timeoutMs` is a positive number. */
export function checkTimeout(timeoutMs: number): void {
  if (!(timeoutMs > 0)) {
    throw new EmbedwayError(`timeoutMs is ${timeoutMs}. Give a positive number of milliseconds.`);
  }
}

/** Returns the credential to send. Raises an EmbedwayError if there is none that can be sent. */
export async function credentialOf({ bearerAuth }: Settings): Promise<string> {
  const credential =
    typeof bearerAuth === "function"
      ? await bearerAuth()
      : (bearerAuth ?? environment("EMBEDWAY_API_KEY"));
  if (!credential) {
    throw new EmbedwayError("There is no key. Give bearerAuth, or set EMBEDWAY_API_KEY.");
  }
  // fetch would quote it in its message.
  if (!/^[!-~]+$/.test(credential.trim())) {
    throw new EmbedwayError(
      "bearerAuth has characters that no key has. Check what it was read from.",
    );
  }
  return credential.trim();
}

function rootOf(serverURL: string): string {
  // Such an address may hold a secret, so it is not quoted.
  if (/[@?]/.test(serverURL)) {
    throw new EmbedwayError("serverURL must have no user, password or query.");
  }
  if (!/^https?:/i.test(serverURL) || !URL.canParse(serverURL)) {
    throw new EmbedwayError(`serverURL '${serverURL}' must look like '${DEFAULT_URL}'.`);
  }
  const { origin, pathname } = new URL(serverURL);
  return (origin + pathname).replace(/(\/v1)?\/*$/, "");
}

function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  try {
    return process?.env?.[name] || undefined;
  } catch {
    return undefined; // Deno may forbid it.
  }
}
