/** One function for those who only embed: a fraction of the SDK's size in a browser. */

import {
  type EmbeddingsRequest,
  type EmbeddingsResponse,
  type EncodingFormat,
  embedWith,
  type Vector,
} from "./embeddings.js";
import { type CallOptions, type SDKOptions, settingsOf } from "./settings.js";

export {
  APIError,
  AuthenticationError,
  BadRequestError,
  ConnectionError,
  EmbedwayError,
  InvalidResponseError,
  NotFoundError,
  PermissionDeniedError,
  RateLimitError,
  ServerError,
  TimeoutError,
} from "./errors.js";
export type { EmbeddingsRequest, EmbeddingsResponse, EncodingFormat, Vector };

/** A request with all options of an SDK. What a call of an SDK takes as `retries` is `retryConfig`. */
export type EmbedOptions<Format extends EncodingFormat | undefined = undefined> =
  EmbeddingsRequest<Format> &
    SDKOptions &
    Pick<CallOptions, "signal"> & {
      /** Your end user, for whom limits, budgets and usage count. */
      onBehalfOf?: string | undefined;
    };

/** Sends a request and returns its vectors, one for each item of the input. */
export async function embed<Format extends EncodingFormat | undefined = undefined>(
  options: EmbedOptions<Format>,
): Promise<EmbeddingsResponse<Vector<Format>>> {
  const {
    bearerAuth,
    serverURL,
    timeoutMs,
    retryConfig,
    httpHeaders,
    fetch,
    debugLogger,
    hooks,
    signal,
    onBehalfOf,
    ...request
  } = options;
  const fields = request as unknown as EmbeddingsRequest<Format>;
  return embedWith(settingsOf(options), fields, onBehalfOf, { signal });
}
