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
import { send } from "./http.js";
import { type Query, Resource, type Schemas } from "./operations.js";
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
  embed<Format extends EncodingFormat | undefined = undefined>(
    { embeddingsRequest, onBehalfOf }: EmbedArguments<Format>,
    options: CallOptions = {},
  ): Promise<EmbeddingsResponse<Vector<Format>>> {
    return embedWith(this.settings, embeddingsRequest, onBehalfOf, options);
  }

  /**
   * Embeds any number of texts or lists of token ids, in pieces, several at a time.
   *
   * Nothing is sent before the result is iterated, or read with `matrix()`. A piece that fails is
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
    { embeddingsRequest, onBehalfOf }: EmbedArguments<EncodingFormat | undefined>,
    options: CallOptions = {},
  ): Promise<Schemas["DryRun"]> {
    const call = callOf(embeddingsRequest, onBehalfOf);
    const { body } = await send(
      this.settings,
      { ...call, query: { dry_run: true }, isSafe: true },
      options,
    );
    return body as Schemas["DryRun"];
  }

  /** Lists the deployments that the key may use, or those of one model. */
  async listModels(
    query: Query<"list_deployments"> = {},
    options: CallOptions = {},
  ): Promise<Schemas["DeploymentList"]> {
    const path = "/v1/embeddings/models";
    const { body } = await send(this.settings, { method: "GET", path, query }, options);
    return body as Schemas["DeploymentList"];
  }
}

/** A client of one gateway. */
export class SDK {
  readonly llm: { readonly embeddings: Embeddings };
  readonly authentication: Authentication;
  readonly organization: Organization;

  /** Raises an EmbedwayError if an option has no meaning. */
  constructor(options: SDKOptions = {}) {
    const settings = settingsOf(options);
    this.llm = { embeddings: new Embeddings(settings) };
    this.authentication = new Authentication(settings);
    this.organization = new Organization(settings);
  }
}
