/** Exchanges a key for tokens. */

import { type Call, send } from "./http.js";
import { jsonOf, Resource, type Schemas } from "./operations.js";
import type { CallOptions } from "./settings.js";

/** Whom a token is for, and what it may do. */
export type TokenRequest = Omit<Schemas["TokenExchange"], "audience"> & {
  /** An audience that the gateway accepts. Default `embedway`. */
  audience?: string | undefined;
};

/** Makes tokens for end users, who must not have the key. */
export class Authentication extends Resource {
  /** Exchanges the key for a token of one end user. The key needs the scope `tokens`. */
  exchangeToken(
    token: TokenRequest,
    options: CallOptions = {},
  ): Promise<Schemas["ExchangedToken"]> {
    const body = { ...token, audience: token.audience ?? "embedway" };
    const path = "/api/v1/authentication/api-key/exchange-token";
    const call: Call = { method: "POST", path, body, isSafe: true };
    return send(this.settings, call, options, jsonOf<Schemas["ExchangedToken"]>);
  }
}
