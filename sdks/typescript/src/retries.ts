/**
 * Decides whether a failed call is tried again, and after how long.
 *
 * A call that may have been billed is never sent twice unless `retryBilled` says so. The gateway
 * charges only for answers of status 200, so its own error answers are safe to retry.
 */

import { APIError, ConnectionError, EmbedwayError, RateLimitError } from "./errors.js";

/** The statuses after which another try may succeed. */
const RETRIED = [408, 429, 502, 503, 504];

/**
 * How long to wait between tries, in milliseconds.
 *
 * The wait grows by the factor `exponent` from `initialInterval` up to `maxInterval`, less up to
 * half by chance, so that clients do not come back together. What the server asks for comes first.
 */
export interface BackoffStrategy {
  /** Default 500. */
  initialInterval?: number | undefined;
  /** Default 8,000. */
  maxInterval?: number | undefined;
  /** Default 2. */
  exponent?: number | undefined;
  /** Start no try later than this after the first one began. Default 120,000. */
  maxElapsedTime?: number | undefined;
}

/** Which failures are tried again, and how often. */
export interface RetryConfig {
  /** `none`: try once. Default `backoff`. */
  strategy?: "backoff" | "none" | undefined;
  backoff?: BackoffStrategy | undefined;
  /** Try again if no connection came about. Default true. */
  retryConnectionErrors?: boolean | undefined;
  /** Try again even if the failed call may have been billed, such as after a timeout. Default false. */
  retryBilled?: boolean | undefined;
  /** The most retries; default 2. A retry after a 429 that says how long to wait does not count. */
  maxRetries?: number | undefined;
}

/** Raises an EmbedwayError if `config`, the option of this name, has no meaning. */
export function checkRetries(name: string, config: RetryConfig | undefined): void {
  if (config === undefined) return;
  if (typeof config !== "object" || config === null) {
    throw new EmbedwayError(`${name} is ${config}. Give an object such as { maxRetries: 3 }.`);
  }
  const { strategy = "backoff" } = config;
  if (strategy !== "backoff" && strategy !== "none") {
    throw new EmbedwayError(`${name}.strategy is '${strategy}'. Give 'backoff' or 'none'.`);
  }
}

/** What is known of a call whose last try failed. */
export interface Tries {
  /** How many retries there were, not counting those that are free. */
  retries: number;
  /** The milliseconds since the first try began. */
  elapsedMs: number;
  /** Whether the call changes and costs nothing, such as a GET. */
  isSafe: boolean;
}

/** Another try of a call. */
export interface Retry {
  /** The milliseconds to wait before it. */
  waitMs: number;
  /** Whether it does not count: it follows a 429 that said how long to wait. */
  isFree: boolean;
}

/** Returns the next try of a failed call, or null to give up. */
export function nextRetry(config: RetryConfig, error: unknown, tries: Tries): Retry | null {
  const {
    initialInterval = 500,
    maxInterval = 8000,
    exponent = 2,
    maxElapsedTime = 120_000,
  } = config.backoff ?? {};
  if (config.strategy === "none" || !isRetried(config, error, tries.isSafe)) return null;
  // A server that asks for no wait would be asked in a loop.
  const askedMs = ((error instanceof APIError && error.retryAfterS) || 0) * 1000;
  const isFree = error instanceof RateLimitError && askedMs > 0;
  if (tries.retries >= (config.maxRetries ?? 2) && !isFree) return null;
  const grown = Math.min(initialInterval * exponent ** tries.retries, maxInterval);
  const waitMs = askedMs || grown * (1 - Math.random() / 2);
  return tries.elapsedMs + waitMs <= maxElapsedTime ? { waitMs, isFree } : null;
}

function isRetried(config: RetryConfig, error: unknown, isSafe: boolean): boolean {
  const isAPIError = error instanceof APIError;
  if (!isAPIError && !(error instanceof ConnectionError)) return false;
  if (error.mayBeBilled && !config.retryBilled && !isSafe) return false;
  if (!isAPIError) return error.mayBeBilled || (config.retryConnectionErrors ?? true);
  const advice = error.headers.get("x-should-retry");
  return advice === "true" || (advice !== "false" && RETRIED.includes(error.status));
}
