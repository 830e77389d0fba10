/** The client: one object with all operations of a gateway. */

import { Authentication } from "./authentication.js";
import {
  callOf,
  type EmbeddingsRequest,
  type EmbeddingsResponse,
  type EncodingFormat,
  embedWith,
  type Vector,
} from "./embeddings.js";
import { EmbedMany, type EmbedManyOptions } from "./embedMany.js";
import { EmbedwayError } from "./errors.js";
import { type Call, send } from "./http.js";
import { jsonOf, listOf, type Query, Resource, type Schemas } from "./operations.js";
import { Organization } from "./organization.js";
import type { Input } from "./pieces.js";
import { type CallOptions, type SDKOptions, settingsOf } from "./settings.js";

/** What to embed, and for whom. */
export interface EmbedArguments<Format extends EncodingFormat | undefined = undefined> {
  embeddingsRequest: EmbeddingsRequest<Format>;
  /** Your end user, for whom limits, budgets and usage count. The key needs the scope `on_behalf_of`. */
  onBehalfOf?: string | undefined;
}

/** Embeds texts. */
export class Embeddings extends Resource {
  /** Returns one vector for each item of the input, in its order. */
  async embed<Format extends EncodingFormat | undefined = undefined>(
    args: EmbedArguments<Format>,
    options: CallOptions = {},
  ): Promise<EmbeddingsResponse<Vector<Format>>> {
    const { embeddingsRequest, onBehalfOf } = checked("embed", args);
    return embedWith(this.settings, embeddingsRequest, onBehalfOf, options);
  }

  /**
   * Embeds any number of texts or lists of token ids, in many requests, several at a time.
   *
   * Nothing is sent before the result is iterated, or read with `matrix()`. A request that fails is
   * tried again alone. Vectors of two spaces raise a SpaceMismatchError.
   */
  embedMany(
    inputs: Iterable<Input> | AsyncIterable<Input>,
    options: EmbedManyOptions = {},
  ): EmbedMany {
    return new EmbedMany(this.settings, inputs, options);
  }

  /** Shows what would happen to a request: tokens, price, and the deployments it would try. */
  async dryRun(
    args: EmbedArguments<EncodingFormat | undefined>,
    options: CallOptions = {},
  ): Promise<Schemas["DryRun"]> {
    const { embeddingsRequest, onBehalfOf } = checked("dryRun", args);
    const call = {
      ...callOf(embeddingsRequest, onBehalfOf),
      query: { dry_run: true },
      isSafe: true,
    };
    return send(this.settings, call, options, jsonOf<Schemas["DryRun"]>);
  }

  /** Lists the deployments that the key may use, or those of one model. */
  listModels(
    query: Query<"list_deployments"> = {},
    options: CallOptions = {},
  ): Promise<Schemas["DeploymentList"]> {
    const call: Call = { method: "GET", path: "/v1/embeddings/models", query };
    return send(this.settings, call, options, listOf<Schemas["DeploymentList"]>);
  }
}

function checked<Args extends EmbedArguments<EncodingFormat | undefined>>(
  name: string,
  args: Args,
): Args {
  if (typeof args?.embeddingsRequest !== "object") {
    throw new EmbedwayError(`${name} needs { embeddingsRequest: { input, model } }.`);
  }
  return args;
}

/** All options of an SDK. */
const OPTIONS: Record<keyof SDKOptions, true> = {
  bearerAuth: true,
  serverURL: true,
  timeoutMs: true,
  retryConfig: true,
  httpHeaders: true,
  fetch: true,
  debugLogger: true,
  hooks: true,
};

/** A client of one gateway. */
export class SDK {
  readonly llm: { readonly embeddings: Embeddings };
  readonly authentication: Authentication;
  readonly organization: Organization;

  /** Raises an EmbedwayError if an option has no meaning. */
  constructor(options: SDKOptions = {}) {
    const unknown = Object.keys(options).find((name) => !Object.hasOwn(OPTIONS, name));
    if (unknown !== undefined) {
      const known = Object.keys(OPTIONS).join(", ");
      throw new EmbedwayError(`SDK has no option '${unknown}'. Its options are ${known}.`);
    }
    const settings = settingsOf(options);
    this.llm = { embeddings: new Embeddings(settings) };
    this.authentication = new Authentication(settings);
    this.organization = new Organization(settings);
  }
}
