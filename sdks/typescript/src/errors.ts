/**
 * Every error that a call can raise:
 *
 *     EmbedwayError
 *     ├── APIError ................. the answer has an error status; these are told apart by it:
 *     │   ├── BadRequestError ...... 400  the request is wrong; `param` names the field
 *     │   ├── AuthenticationError .. 401  no key or token, or not a valid one
 *     │   ├── PermissionDeniedError  403  the key or token may not do this
 *     │   ├── NotFoundError ........ 404  no such model, or nothing of this id
 *     │   ├── RateLimitError ....... 429  a rate limit is full, or a budget is spent
 *     │   └── ServerError .......... 5xx  the gateway or every provider failed
 *     ├── ConnectionError .......... no answer: not connected, or the connection broke
 *     │   └── TimeoutError ......... no answer in time
 *     ├── InvalidResponseError ..... an answer of status 200 that is not what was asked for
 *     └── SpaceMismatchError ....... `embedMany` got vectors of two spaces
 *
 * An aborted call raises the reason of its `AbortSignal`, which is none of these.
 */

const BRAND = Symbol.for("@embedway/sdk");

/** The most characters of an unknown answer to quote in a message. */
const SHOWN_CHARACTERS = 200;

const NUMBER = /^\d+(\.\d+)?$/;

/** A call failed. The message says what is wrong and what to do. */
export class EmbedwayError extends Error {
  override get name(): string {
    return "EmbedwayError";
  }

  /** @internal */
  get [BRAND](): true {
    return true;
  }

  /** Whether the gateway may have done the work, and charged for it, although the call failed. */
  readonly mayBeBilled: boolean;
  /** The index of the first input of the request that failed; 0 outside `embedMany`. */
  firstIndex = 0;

  constructor(message: string, options: { cause?: unknown; mayBeBilled?: boolean } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.mayBeBilled = options.mayBeBilled ?? false;
  }

  /**
   * Tells kinds apart by name, so that `instanceof` also works for an error of another copy of this
   * package, such as its CommonJS build beside its ESM build.
   */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore-start lint/complexity/noThisInStatic: each subclass asks about itself
    if (super[Symbol.hasInstance](value)) return true;
    const kind = this.prototype;
    // biome-ignore-end lint/complexity/noThisInStatic: each subclass asks about itself
    if (!Object.hasOwn(kind, "name") || !(value instanceof Error && BRAND in value)) return false;
    for (let each = Object.getPrototypeOf(value); each; each = Object.getPrototypeOf(each)) {
      if (Object.hasOwn(each, "name") && each.name === kind.name) return true;
    }
    return false;
  }
}

/** The answer has an error status. The message is the server's. */
export class APIError extends EmbedwayError {
  override get name(): string {
    return "APIError";
  }

  /** The kind of error, such as `context_length_exceeded`; null if it has no name. */
  readonly code: string | null;
  /** The class of error, such as `invalid_request_error`. */
  readonly type: string | null;
  /** The field that is wrong, such as `input`; null if no single field is. */
  readonly param: string | null;

  constructor(
    message: string,
    /** The HTTP status. */
    readonly status: number,
    /** The headers of the answer. */
    readonly headers: Headers,
    /** The body of the answer: decoded JSON, or text if it is no JSON. */
    readonly body: unknown,
    mayBeBilled: boolean,
  ) {
    super(message, { mayBeBilled });
    const { code, type, param } = errorOf(body) ?? {};
    this.code = code ?? null;
    this.type = type ?? null;
    this.param = param ?? null;
  }

  /** The id under which the gateway logged the request. */
  get requestId(): string | null {
    return this.headers.get("x-request-id");
  }

  /** The seconds to wait before another try, as the server asks; null if it does not. */
  get retryAfterS(): number | null {
    const ms = this.headers.get("retry-after-ms") ?? "";
    if (NUMBER.test(ms)) return Number(ms) / 1000;
    const value = this.headers.get("retry-after") ?? "";
    if (NUMBER.test(value)) return Number(value);
    // Date.parse also makes a date of much that is none.
    const waitMs = value.endsWith("GMT") ? Date.parse(value) - Date.now() : Number.NaN;
    return Number.isNaN(waitMs) ? null : Math.max(0, waitMs / 1000);
  }
}

/** The request is wrong (400). `param` names the field. */
export class BadRequestError extends APIError {
  override get name(): string {
    return "BadRequestError";
  }
}

/** The key or token is missing or not valid (401). */
export class AuthenticationError extends APIError {
  override get name(): string {
    return "AuthenticationError";
  }
}

/** The key or token may not do this (403). */
export class PermissionDeniedError extends APIError {
  override get name(): string {
    return "PermissionDeniedError";
  }
}

/** There is no such model, or nothing of this id (404). */
export class NotFoundError extends APIError {
  override get name(): string {
    return "NotFoundError";
  }
}

/** A rate limit is full, or a budget is spent (429). `code` tells which. */
export class RateLimitError extends APIError {
  override get name(): string {
    return "RateLimitError";
  }
}

/** The gateway failed, or every provider that could answer (5xx). */
export class ServerError extends APIError {
  override get name(): string {
    return "ServerError";
  }
}

/** No answer came: there was no connection, or it broke. */
export class ConnectionError extends EmbedwayError {
  override get name(): string {
    return "ConnectionError";
  }
}

/** No answer came in time. */
export class TimeoutError extends ConnectionError {
  override get name(): string {
    return "TimeoutError";
  }
}

/** The answer has status 200 but is not what was asked for. */
export class InvalidResponseError extends EmbedwayError {
  override get name(): string {
    return "InvalidResponseError";
  }

  constructor(message: string, cause?: unknown) {
    super(message, { cause, mayBeBilled: true });
  }
}

/** Vectors of two spaces would be joined. Comparing them means nothing. */
export class SpaceMismatchError extends EmbedwayError {
  override get name(): string {
    return "SpaceMismatchError";
  }

  constructor(
    message: string,
    /** The spaces that were found. */
    readonly spaces: readonly string[],
  ) {
    super(message, { mayBeBilled: true });
  }
}

/** Returns the error that an answer of another status than 2xx stands for. */
export function apiError(status: number, headers: Headers, text: string): APIError {
  const Kind =
    {
      400: BadRequestError,
      401: AuthenticationError,
      403: PermissionDeniedError,
      404: NotFoundError,
      429: RateLimitError,
    }[status] ?? (status >= 500 ? ServerError : APIError);
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    // It stays text.
  }
  const error = errorOf(body);
  if (error) {
    // The gateway charges for answers of status 200 alone. If it does not know whether it has
    // charged, it advises against a retry.
    const isInDoubt = status >= 500 && headers.get("x-should-retry") === "false";
    return new Kind(String(error.message), status, headers, body, isInDoubt);
  }
  // A proxy's own answer: the gateway behind it may have answered, and charged.
  const message = `Status ${status}, and not as an Embedway gateway answers: ${quote(text)}`;
  return new Kind(message, status, headers, body, status >= 500);
}

/** Returns the first characters of a body that is not understood. */
export function quote(text: string): string {
  return text.slice(0, SHOWN_CHARACTERS).trim() || "nothing";
}

interface ErrorFields {
  message?: string;
  type?: string | null;
  param?: string | null;
  code?: string | null;
}

function errorOf(body: unknown): ErrorFields | undefined {
  const error = (body as { error?: unknown } | null)?.error;
  return typeof error === "object" && error !== null ? error : undefined;
}
