/** Sends the operations of the gateway's OpenAPI description, with the types that it states. */

import { EmbedwayError, InvalidResponseError } from "./errors.js";
import { type Answer, type Call, send } from "./http.js";
import type { components, operations } from "./openapi.js";
import { Page, type WirePage } from "./paging.js";
import type { CallOptions, Settings } from "./settings.js";

/** The objects of the API, by name. Their fields are the gateway's, in snake case. */
export type Schemas = components["schemas"];

type Operation = keyof operations;

/** The query of an operation. */
export type Query<Name extends Operation> = NonNullable<operations[Name]["parameters"]["query"]>;

type Sent<Name extends Operation> = operations[Name] extends {
  requestBody: { content: { "application/json": infer Json } };
}
  ? Json
  : undefined;

type Answered<Name extends Operation> = operations[Name] extends {
  responses: { 200: { content: { "application/json": infer Json } } };
}
  ? Json
  : never;

type Item<Name extends Operation> = Answered<Name> extends { data: (infer Each)[] } ? Each : never;

/** Operations with what they need: the settings of an SDK. */
export abstract class Resource {
  // Private, so that an SDK that is printed does not show the key.
  readonly #settings: Settings;

  /** @internal */
  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** @internal */
  protected get settings(): Settings {
    return this.#settings;
  }

  /**
   * Sends an operation and returns the JSON of its answer.
   *
   * @internal
   */
  protected send<Name extends Operation>(
    method: Call["method"],
    path: string,
    body: Sent<Name>,
    options: CallOptions = {},
  ): Promise<Answered<Name>> {
    return send(this.settings, { method, path, body }, options, jsonOf<Answered<Name>>);
  }

  /**
   * Sends an operation that answers a list and returns its first page.
   *
   * @internal
   */
  protected pages<Name extends Operation>(
    path: string,
    query: object = {},
    options: CallOptions = {},
  ): Promise<Page<Item<Name>>> {
    return Page.fetch(query, (each) =>
      send(
        this.settings,
        { method: "GET", path, query: each },
        options,
        listOf<WirePage<Item<Name>>>,
      ),
    );
  }
}

/** Returns the JSON of an answer. Raises an InvalidResponseError if it is no object. */
export function jsonOf<Json>({ body }: Answer): Json {
  if (typeof body !== "object" || body === null) {
    throw new InvalidResponseError(`The answer is no object but ${body}.`);
  }
  return body as Json;
}

/** Returns the JSON of an answer with a list. Raises an InvalidResponseError if it has none. */
export function listOf<List extends { data: unknown[] }>(answer: Answer): List {
  const list = jsonOf<List>(answer);
  if (!Array.isArray(list.data)) {
    throw new InvalidResponseError("The answer has no list in `data`.");
  }
  return list;
}

/** Builds a path with ids in it. Raises an EmbedwayError if an id cannot be part of a path. */
export function path(texts: TemplateStringsArray, ...ids: string[]): string {
  const encoded = ids.map((id) => {
    // Addresses drop these, so the request would go to another path.
    if (/^\.{0,2}$/.test(id)) throw new EmbedwayError(`'${id}' is not an id.`);
    return encodeURIComponent(id);
  });
  return String.raw({ raw: texts }, ...encoded);
}
