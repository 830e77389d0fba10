/** The TypeScript client of Embedway, an OpenAI-compatible embeddings gateway. */

export type { Authentication, TokenRequest } from "./authentication.js";
export type {
  Embedding,
  EmbeddingsInput,
  EmbeddingsRequest,
  EmbeddingsResponse,
  EncodingFormat,
  Usage,
  Vector,
} from "./embeddings.js";
export type { EmbedMany, EmbedManyOptions, IndexedEmbedding, Progress } from "./embedMany.js";
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
  SpaceMismatchError,
  TimeoutError,
} from "./errors.js";
export type { Query, Schemas } from "./operations.js";
export type {
  AdminApiKeys,
  AuditLogs,
  EndUsers,
  MetadataFilter,
  Organization,
  ProjectApiKeys,
  Projects,
  UsageReports,
} from "./organization.js";
export type { Page } from "./paging.js";
export type { Input } from "./pieces.js";
export type { BackoffStrategy, RetryConfig } from "./retries.js";
export { type EmbedArguments, type Embeddings, SDK } from "./sdk.js";
export type { CallOptions, DebugLogger, Fetch, Hooks, SDKOptions } from "./settings.js";
export type { Matrix } from "./vectors.js";
