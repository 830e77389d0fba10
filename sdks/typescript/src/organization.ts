/** The admin API: projects, keys, end users, usage, costs and the audit log. */

import { path, type Query, Resource, type Schemas } from "./operations.js";
import type { Page } from "./paging.js";
import type { CallOptions, Settings } from "./settings.js";

/** Keeps only usage with these values of requests' metadata: `{ "metadata.team": ["search"] }`. */
export type MetadataFilter = { [key: `metadata.${string}`]: readonly string[] };

/** What an admin key manages. */
export class Organization {
  readonly usage: UsageReports;
  readonly projects: Projects;
  readonly adminApiKeys: AdminApiKeys;
  readonly auditLogs: AuditLogs;

  /** @internal */
  constructor(settings: Settings) {
    this.usage = new UsageReports(settings);
    this.projects = new Projects(settings);
    this.adminApiKeys = new AdminApiKeys(settings);
    this.auditLogs = new AuditLogs(settings);
  }
}

/** Reports for a span of time, one entry for each bucket of it. */
export class UsageReports extends Resource {
  /** Reports requests, items, tokens and cost. */
  embeddings(
    query: Query<"get_usage"> & MetadataFilter,
    options?: CallOptions,
  ): Promise<Page<Schemas["UsageBucket"]>> {
    return this.pages<"get_usage">("/v1/organization/usage/embeddings", query, options);
  }

  /** Reports costs. */
  costs(
    query: Query<"get_costs"> & MetadataFilter,
    options?: CallOptions,
  ): Promise<Page<Schemas["CostsBucket"]>> {
    return this.pages<"get_costs">("/v1/organization/costs", query, options);
  }

  /** Reports refused requests, by reason. */
  refusals(
    query: Query<"get_refusals">,
    options?: CallOptions,
  ): Promise<Page<Schemas["RefusalsBucket"]>> {
    return this.pages<"get_refusals">("/v1/organization/usage/refusals", query, options);
  }
}

/** Projects, which keys, end users, limits and budgets belong to. */
export class Projects extends Resource {
  readonly apiKeys = new ProjectApiKeys(this.settings);
  readonly endUsers = new EndUsers(this.settings);

  /** Lists projects. */
  list(query?: Query<"list_projects">, options?: CallOptions): Promise<Page<Schemas["Project"]>> {
    return this.pages<"list_projects">("/v1/organization/projects", query, options);
  }

  /** Creates a project. */
  create(body: Schemas["NewProject"], options?: CallOptions): Promise<Schemas["Project"]> {
    return this.send<"create_project">("POST", "/v1/organization/projects", body, options);
  }

  /** Returns a project. */
  get(projectId: string, options?: CallOptions): Promise<Schemas["Project"]> {
    return this.send<"retrieve_project">(
      "GET",
      path`/v1/organization/projects/${projectId}`,
      undefined,
      options,
    );
  }

  /** Changes the fields of a project that `body` has. */
  update(
    projectId: string,
    body: Schemas["ProjectChanges"],
    options?: CallOptions,
  ): Promise<Schemas["Project"]> {
    return this.send<"update_project">(
      "POST",
      path`/v1/organization/projects/${projectId}`,
      body,
      options,
    );
  }

  /** Archives a project for good. Its keys stop working. */
  archive(projectId: string, options?: CallOptions): Promise<Schemas["Project"]> {
    return this.send<"archive_project">(
      "POST",
      path`/v1/organization/projects/${projectId}/archive`,
      undefined,
      options,
    );
  }
}

/** The keys of a project. */
export class ProjectApiKeys extends Resource {
  /** Lists the keys of a project. */
  list(
    projectId: string,
    query?: Query<"list_api_keys">,
    options?: CallOptions,
  ): Promise<Page<Schemas["ApiKey"]>> {
    return this.pages<"list_api_keys">(
      path`/v1/organization/projects/${projectId}/api_keys`,
      query,
      options,
    );
  }

  /** Creates a key. Only this answer has its secret, in `value`. */
  create(
    projectId: string,
    body: Schemas["NewApiKey"],
    options?: CallOptions,
  ): Promise<Schemas["ApiKeyWithSecret"]> {
    return this.send<"create_api_key">(
      "POST",
      path`/v1/organization/projects/${projectId}/api_keys`,
      body,
      options,
    );
  }

  /** Returns a key, without its secret. */
  get(projectId: string, keyId: string, options?: CallOptions): Promise<Schemas["ApiKey"]> {
    return this.send<"retrieve_api_key">(
      "GET",
      path`/v1/organization/projects/${projectId}/api_keys/${keyId}`,
      undefined,
      options,
    );
  }

  /** Changes the fields of a key that `body` has. */
  update(
    projectId: string,
    keyId: string,
    body: Schemas["ApiKeyChanges"],
    options?: CallOptions,
  ): Promise<Schemas["ApiKey"]> {
    return this.send<"update_api_key">(
      "POST",
      path`/v1/organization/projects/${projectId}/api_keys/${keyId}`,
      body,
      options,
    );
  }

  /** Revokes a key. */
  delete(
    projectId: string,
    keyId: string,
    options?: CallOptions,
  ): Promise<Schemas["DeletionReceipt"]> {
    return this.send<"revoke_api_key">(
      "DELETE",
      path`/v1/organization/projects/${projectId}/api_keys/${keyId}`,
      undefined,
      options,
    );
  }

  /** Gives a key a new secret. Only this answer has it, in `value`. */
  rotate(
    projectId: string,
    keyId: string,
    body: Schemas["ApiKeyRotation"] = {},
    options?: CallOptions,
  ): Promise<Schemas["ApiKeyWithSecret"]> {
    return this.send<"rotate_api_key">(
      "POST",
      path`/v1/organization/projects/${projectId}/api_keys/${keyId}/rotate`,
      body,
      options,
    );
  }
}

/** The end users of a project. */
export class EndUsers extends Resource {
  /** Lists the end users of a project. */
  list(
    projectId: string,
    query?: Query<"list_end_users">,
    options?: CallOptions,
  ): Promise<Page<Schemas["EndUser"]>> {
    return this.pages<"list_end_users">(
      path`/v1/organization/projects/${projectId}/end_users`,
      query,
      options,
    );
  }

  /** Sets the limits and budgets of an end user, or blocks them. */
  set(
    projectId: string,
    body: Schemas["NewEndUser"],
    options?: CallOptions,
  ): Promise<Schemas["EndUser"]> {
    return this.send<"set_end_user">(
      "POST",
      path`/v1/organization/projects/${projectId}/end_users`,
      body,
      options,
    );
  }

  /** Returns an end user. */
  get(projectId: string, endUserId: string, options?: CallOptions): Promise<Schemas["EndUser"]> {
    return this.send<"retrieve_end_user">(
      "GET",
      path`/v1/organization/projects/${projectId}/end_users/${endUserId}`,
      undefined,
      options,
    );
  }

  /** Changes the fields of an end user that `body` has. */
  update(
    projectId: string,
    endUserId: string,
    body: Schemas["EndUserChanges"],
    options?: CallOptions,
  ): Promise<Schemas["EndUser"]> {
    return this.send<"update_end_user">(
      "POST",
      path`/v1/organization/projects/${projectId}/end_users/${endUserId}`,
      body,
      options,
    );
  }

  /** Removes what was set for an end user. */
  delete(
    projectId: string,
    endUserId: string,
    options?: CallOptions,
  ): Promise<Schemas["DeletionReceipt"]> {
    return this.send<"remove_end_user">(
      "DELETE",
      path`/v1/organization/projects/${projectId}/end_users/${endUserId}`,
      undefined,
      options,
    );
  }
}

/** Admin keys, which belong to no project and manage everything. */
export class AdminApiKeys extends Resource {
  /** Lists admin keys. */
  list(
    query?: Query<"list_admin_api_keys">,
    options?: CallOptions,
  ): Promise<Page<Schemas["AdminApiKey"]>> {
    return this.pages<"list_admin_api_keys">("/v1/organization/admin_api_keys", query, options);
  }

  /** Creates an admin key. Only this answer has its secret, in `value`. */
  create(
    body: Schemas["NewAdminApiKey"],
    options?: CallOptions,
  ): Promise<Schemas["AdminApiKeyWithSecret"]> {
    return this.send<"create_admin_api_key">(
      "POST",
      "/v1/organization/admin_api_keys",
      body,
      options,
    );
  }

  /** Returns an admin key, without its secret. */
  get(keyId: string, options?: CallOptions): Promise<Schemas["AdminApiKey"]> {
    return this.send<"retrieve_admin_api_key">(
      "GET",
      path`/v1/organization/admin_api_keys/${keyId}`,
      undefined,
      options,
    );
  }

  /** Revokes an admin key. */
  delete(keyId: string, options?: CallOptions): Promise<Schemas["DeletionReceipt"]> {
    return this.send<"revoke_admin_api_key">(
      "DELETE",
      path`/v1/organization/admin_api_keys/${keyId}`,
      undefined,
      options,
    );
  }

  /** Gives an admin key a new secret. Only this answer has it, in `value`. */
  rotate(
    keyId: string,
    body: Schemas["ApiKeyRotation"] = {},
    options?: CallOptions,
  ): Promise<Schemas["AdminApiKeyWithSecret"]> {
    return this.send<"rotate_admin_api_key">(
      "POST",
      path`/v1/organization/admin_api_keys/${keyId}/rotate`,
      body,
      options,
    );
  }
}

/** The record of every change. */
export class AuditLogs extends Resource {
  /** Lists events, newest first. */
  list(
    query?: Query<"list_audit_events">,
    options?: CallOptions,
  ): Promise<Page<Schemas["AuditEvent"]>> {
    return this.pages<"list_audit_events">("/v1/organization/audit_logs", query, options);
  }
}
