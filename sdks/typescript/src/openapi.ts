// Written by `npm run generate` from the gateway's OpenAPI description. Do not edit.

export interface paths {
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Models
         * @description List the models the key may use, `auto` and the aliases, each at its cheapest price.
         */
        get: operations["list_models"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/llm/embeddings/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Deployments
         * @description List the deployments that the key may use; with `model`, those with that name.
         *
         *     Each has its limits, price, location and health, and the space of its vectors, as far as
         *     proven.
         */
        get: operations["list_deployments_mka1"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/embeddings/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Deployments
         * @description List the deployments that the key may use; with `model`, those with that name.
         *
         *     Each has its limits, price, location and health, and the space of its vectors, as far as
         *     proven.
         */
        get: operations["list_deployments"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Model
         * @description Return one model, by any name that a request may use.
         */
        get: operations["retrieve_model"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Hub Models
         * @description List all models of a type. Needs no key; responses may be cached.
         */
        get: operations["list_hub_models"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/livez": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Liveness
         * @description Answer 200 as long as the event loop runs.
         */
        get: operations["get_liveness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Readiness
         * @description Answer 200 when ready; 503 while starting, draining or without a database.
         */
        get: operations["get_readiness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Metrics
         * @description Return all metrics, in Prometheus' text format.
         */
        get: operations["get_metrics"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/authentication/api-key/exchange-token": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Exchange Token
         * @description Exchange a key for a short-lived token for one end user.
         *
         *     The key needs the scope `tokens`. The token has no more rights than the key.
         */
        post: operations["exchange_token"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/oauth2/token": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Issue Client Token
         * @description Issue a token with the rights of a key, for its id and secret, as JSON, form or Basic.
         */
        post: operations["issue_client_token"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Projects
         * @description List all projects, oldest first. Needs an admin key.
         */
        get: operations["list_projects"];
        put?: never;
        /**
         * Create Project
         * @description Create a project: a tenant with keys, end users, limits and budgets of its own.
         */
        post: operations["create_project"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Project
         * @description Return one project, archived or not.
         */
        get: operations["retrieve_project"];
        put?: never;
        /**
         * Update Project
         * @description Change a project. Running servers apply the change within a second.
         */
        post: operations["update_project"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/archive": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Archive Project
         * @description Archive a project for good. Its keys stop working; its usage is kept.
         */
        post: operations["archive_project"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/api_keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Api Keys
         * @description List the keys of a project, oldest first. A key that issues keys sees those it issued.
         */
        get: operations["list_api_keys"];
        put?: never;
        /**
         * Create Api Key
         * @description Create a key. Its secret is in `value`, once: the gateway keeps only a hash.
         *
         *     A key with the scope `keys` may create keys too. They never have more rights than it has.
         */
        post: operations["create_api_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/api_keys/{key_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Api Key
         * @description Return one key, in any state.
         */
        get: operations["retrieve_api_key"];
        put?: never;
        /**
         * Update Api Key
         * @description Change a key. Running servers apply the change within a second.
         */
        post: operations["update_api_key"];
        /**
         * Revoke Api Key
         * @description Revoke a key and all keys it issued, for good.
         */
        delete: operations["revoke_api_key"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/api_keys/{key_id}/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Rotate Api Key
         * @description Give a key a new secret, in `value`. The old one works for `grace_seconds` more.
         *
         *     The key's id, rights, limits and budgets stay, and so does its usage of them.
         */
        post: operations["rotate_api_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/admin_api_keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Admin Api Keys
         * @description List the admin keys. Like all routes of admin keys, it needs one.
         */
        get: operations["list_admin_api_keys"];
        put?: never;
        /**
         * Create Admin Api Key
         * @description Create an admin key, which manages everything but cannot embed.
         *
         *     Its secret is in `value`, once.
         */
        post: operations["create_admin_api_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/admin_api_keys/{key_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Admin Api Key
         * @description Return one admin key, in any state.
         */
        get: operations["retrieve_admin_api_key"];
        put?: never;
        post?: never;
        /**
         * Revoke Admin Api Key
         * @description Revoke an admin key for good, even the last one: the command line can create others.
         */
        delete: operations["revoke_admin_api_key"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/admin_api_keys/{key_id}/rotate": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Rotate Admin Api Key
         * @description Give an admin key a new secret, in `value`. The old one works for `grace_seconds`.
         */
        post: operations["rotate_admin_api_key"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/end_users": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List End Users
         * @description List a project's end users that have a record, in order of their ids. Needs an admin key.
         *
         *     With `id`, list only that end user, even without a record.
         */
        get: operations["list_end_users"];
        put?: never;
        /**
         * Set End User
         * @description Block an end user, or give it limits and budgets of its own. Needs no record yet.
         */
        post: operations["set_end_user"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/projects/{project_id}/end_users/{end_user_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve End User
         * @description Return one end user and what it has spent of its budgets, even if it has no record.
         */
        get: operations["retrieve_end_user"];
        put?: never;
        /**
         * Update End User
         * @description Block an end user or set its limits and budgets, with the id in the path.
         */
        post: operations["update_end_user"];
        /**
         * Remove End User
         * @description Remove an end user's record, so the project's defaults apply again. Its usage is kept.
         */
        delete: operations["remove_end_user"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/audit_logs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Audit Events
         * @description List changes to projects, keys and end users, latest first. Needs an admin key.
         */
        get: operations["list_audit_events"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/configuration/reload": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Reload Configuration
         * @description Read the configuration of this replica again and use it. Needs an admin key.
         *
         *     With `dry_run=true`, nothing changes. Changes that need a restart are not applied, the
         *     others are. If anything is wrong, nothing is, and the error has all reasons.
         */
        post: operations["reload_configuration"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/usage/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Usage
         * @description Return requests, items and tokens by time and group.
         *
         *     A key with the scope `admin` sees all usage, one with the scope `usage` that of its project.
         */
        get: operations["get_usage"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/llm/usage/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Usage
         * @description Return requests, items and tokens by time and group.
         *
         *     A key with the scope `admin` sees all usage, one with the scope `usage` that of its project.
         */
        get: operations["get_usage_mka1"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/costs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Costs
         * @description Return costs, and what providers may charge, by time and group.
         *
         *     A key with the scope `admin` sees all costs, one with the scope `usage` those of its
         *     project.
         */
        get: operations["get_costs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/usage/refusals": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Refusals
         * @description Count embeddings requests that were answered with an error, by time, key and reason.
         *
         *     A key with the scope `admin` sees all of them, one with the scope `usage` those of its
         *     project.
         */
        get: operations["get_refusals"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/files": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Files
         * @description List the project's files, newest first.
         */
        get: operations["list_files"];
        put?: never;
        /**
         * Create File
         * @description Upload a file for a batch, as `multipart/form-data`: JSON lines of up to 200 MB.
         */
        post: operations["create_file"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/files/{file_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve File
         * @description Return what is known of a file.
         */
        get: operations["retrieve_file"];
        put?: never;
        post?: never;
        /**
         * Delete File
         * @description Delete a file.
         */
        delete: operations["delete_file"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/files/{file_id}/content": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download File
         * @description Return the content of a file.
         */
        get: operations["download_file"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/batches": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List Batches
         * @description List the project's batches, newest first.
         */
        get: operations["list_batches"];
        put?: never;
        /**
         * Create Batch
         * @description Embed the requests of an uploaded file in the background, within a day.
         *
         *     Each line is `{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {...}}`,
         *     with a body as for `POST /v1/embeddings`.
         */
        post: operations["create_batch"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/batches/{batch_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Retrieve Batch
         * @description Return a batch, and how far it has come.
         */
        get: operations["retrieve_batch"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/batches/{batch_id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel Batch
         * @description Send no more requests of a batch. Those under way are finished and charged.
         */
        post: operations["cancel_batch"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/organization/activity": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get Activity
         * @description Return what happened in the last seconds, and the state of this replica.
         *
         *     Usage and refused requests are those of all replicas. Needs an admin key.
         */
        get: operations["get_activity"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed texts
         * @description One vector for each item of `input`, in its order.
         */
        post: operations["embed"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/llm/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed texts
         * @description One vector for each item of `input`, in its order.
         */
        post: operations["embed_mka1"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/api/v1/models/serverless/embeddings": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Embed texts
         * @description One vector for each item of `input`, in its order.
         */
        post: operations["embed_cortecs"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * ActiveDeployment
         * @description A deployment that is in use or in trouble on this replica.
         */
        ActiveDeployment: {
            id: string;
            /** @enum {string} */
            health: "healthy" | "ejected" | "limited" | "full";
            /** @description Whether it is quarantined because its vectors drifted. */
            drifted: boolean;
            /** @description Calls in flight. */
            in_flight: number;
            /** @description Seconds until it may be called; 0 if it may be called now. */
            wait_s: number;
        };
        /**
         * Activity
         * @description The usage of all replicas in the last seconds, and the state of one replica.
         */
        Activity: {
            /**
             * @default organization.activity
             * @constant
             */
            object: "organization.activity";
            /** @description Unix seconds. Later than asked if there were more than 20,000 usage records. */
            start_time: number;
            end_time: number;
            /** @enum {string} */
            group_by: "model" | "provider" | "project_id" | "api_key_id" | "user_id";
            total: components["schemas"]["ActivityResult"];
            /** @description The 100 groups with the most requests. */
            results: components["schemas"]["ActivityResult"][];
            /** @description Whether there are more groups. */
            has_more: boolean;
            /** @description Since when `refusals` counts, in Unix seconds: the start of a quarter hour. */
            refusals_start_time: number;
            /** @description The 100 kinds of refusals with the most requests. */
            refusals: components["schemas"]["RefusedRequests"][];
            replica: components["schemas"]["ReplicaStatus"];
        };
        /**
         * ActivityResult
         * @description The usage of one group. The field that `group_by` names says which; the others are null.
         */
        ActivityResult: {
            project_id: string | null;
            project_name: string | null;
            api_key_id: string | null;
            api_key_name: string | null;
            user_id: string | null;
            model: string | null;
            provider: string | null;
            /** @description Requests that were answered with 200. */
            num_model_requests: number;
            /** @description Well-formed requests that failed. Refused requests are in `refusals`. */
            num_errors: number;
            num_items: number;
            input_tokens: number;
            amount: components["schemas"]["Amount"];
            /** @description Calls to providers, including retries. */
            num_calls: number;
            num_failed_calls: number;
            /** @description Half of the answered requests took no longer; null if none was answered. */
            latency_p50_ms: number | null;
            latency_p99_ms: number | null;
        };
        /**
         * AuditActor
         * @description The key or user that performed the action.
         */
        AuditActor: {
            /** @enum {string} */
            type: "api_key" | "session";
            api_key: components["schemas"]["AuditKey"] | null;
            session: components["schemas"]["AuditSession"] | null;
        };
        /**
         * AdminApiKey
         * @description An admin key.
         */
        AdminApiKey: {
            id: string;
            name: string;
            redacted_value: string;
            created_at: number;
            expires_at: number | null;
            previous_expires_at: number | null;
            /** @enum {string} */
            status: "active" | "expired" | "revoked";
            /**
             * @default organization.admin_api_key
             * @constant
             */
            object: "organization.admin_api_key";
            owner: components["schemas"]["AdminOwner"];
        };
        /**
         * AdminOwner
         * @description The owner of an admin key.
         */
        AdminOwner: {
            /**
             * @default service_account
             * @constant
             */
            type: "service_account";
            /**
             * @default organization.service_account
             * @constant
             */
            object: "organization.service_account";
            id: string;
            name: string;
            created_at: number;
            /**
             * @default owner
             * @constant
             */
            role: "owner";
        };
        /**
         * Amount
         * @description An exact amount of money.
         */
        Amount: {
            value: number;
            /**
             * @default usd
             * @constant
             */
            currency: "usd";
        };
        /**
         * AuditEvent
         * @description One audit event. A field named after its type says what was done, as OpenAI has it.
         */
        AuditEvent: {
            id: string;
            /**
             * @default organization.audit_log
             * @constant
             */
            object: "organization.audit_log";
            /** @enum {string} */
            type: "project.created" | "project.updated" | "project.archived" | "api_key.created" | "api_key.updated" | "api_key.rotated" | "api_key.deleted" | "end_user.created" | "end_user.updated" | "end_user.deleted" | "ledger.pruned" | "ledger.repaired" | "configuration.reloaded";
            effective_at: number;
            actor: components["schemas"]["AuditActor"];
            project: components["schemas"]["AuditObject"] | null;
            request_id: string | null;
            /** @description Of an update: each field that was changed, with `from` and `to`. */
            changes: {
                [key: string]: unknown;
            } | null;
        } & {
            [key: string]: unknown;
        };
        /**
         * AuditKey
         * @description The key, or the token of an outside issuer, that was used.
         */
        AuditKey: {
            id: string;
            /**
             * @default service_account
             * @constant
             */
            type: "service_account";
            service_account: components["schemas"]["AuditObject"];
        };
        /**
         * AuditObject
         * @description An object that an event names by its id.
         */
        AuditObject: {
            id: string;
        };
        /**
         * AuditSession
         * @description A session at the command line.
         */
        AuditSession: {
            /** @description The operating system user, as `cli:USER`. */
            user: components["schemas"]["AuditObject"];
        };
        /**
         * Batch
         * @description A batch. Times are Unix seconds, and null if it has not come to that.
         */
        Batch: {
            id: string;
            /**
             * @default batch
             * @constant
             */
            object: "batch";
            /**
             * @default /v1/embeddings
             * @constant
             */
            endpoint: "/v1/embeddings";
            errors: components["schemas"]["BatchErrors"] | null;
            input_file_id: string;
            /**
             * @default 24h
             * @constant
             */
            completion_window: "24h";
            /** @enum {string} */
            status: "validating" | "failed" | "in_progress" | "finalizing" | "completed" | "expired" | "cancelling" | "cancelled";
            /** @description The file of answers, once the batch has ended; null if there are none. */
            output_file_id: string | null;
            /** @description The file of requests without an answer, likewise. */
            error_file_id: string | null;
            created_at: number;
            in_progress_at: number | null;
            expires_at: number;
            finalizing_at: number | null;
            completed_at: number | null;
            failed_at: number | null;
            expired_at: number | null;
            cancelling_at: number | null;
            cancelled_at: number | null;
            request_counts: components["schemas"]["BatchRequestCounts"];
            usage: components["schemas"]["BatchUsage"];
            metadata: {
                [key: string]: string;
            } | null;
        };
        /**
         * BatchUsage
         * @description The tokens that a batch was charged so far.
         */
        BatchUsage: {
            input_tokens: number;
            /**
             * @default 0
             * @constant
             */
            output_tokens: 0;
            total_tokens: number;
        };
        /** CostsPage */
        CostsPage: {
            /**
             * @default page
             * @constant
             */
            object: "page";
            data: components["schemas"]["CostsBucket"][];
            has_more: boolean;
            next_page: string | null;
        };
        /** RefusalsPage */
        RefusalsPage: {
            /**
             * @default page
             * @constant
             */
            object: "page";
            data: components["schemas"]["RefusalsBucket"][];
            has_more: boolean;
            next_page: string | null;
        };
        /** UsagePage */
        UsagePage: {
            /**
             * @default page
             * @constant
             */
            object: "page";
            data: components["schemas"]["UsageBucket"][];
            has_more: boolean;
            next_page: string | null;
        };
        /**
         * BudgetInput
         * @description A budget for a calendar window in UTC. Weeks begin on Monday; `total` never ends.
         */
        BudgetInput: {
            /** @description USD, as a number or a string, with at most 9 decimals. If a change leaves it out, the budget of that window keeps its amount. */
            amount_usd?: number | string;
            /** @enum {string} */
            per: "day" | "week" | "month" | "total";
            /** @description Percentages of the budget at which the log warns. If a change leaves them out, the budget keeps its alerts. */
            alerts?: number[];
        };
        /**
         * Budget
         * @description A budget.
         */
        Budget: {
            amount_usd: number;
            /** @enum {string} */
            per: "day" | "week" | "month" | "total";
            alerts: number[];
        };
        /**
         * CallLimits
         * @description The limits of one call to a deployment, and how many calls of a request run at a time.
         */
        CallLimits: {
            max_items: number;
            max_tokens: number | null;
            max_parallel: number;
        };
        /**
         * ConfigurationChange
         * @description One difference between the configuration in force and the one that was read.
         *
         *     `before` and `after` are null where there is no value; a secret is only ever `changed`.
         */
        ConfigurationChange: {
            /** @enum {string} */
            kind: "setting" | "provider" | "deployment" | "model" | "alias" | "issuer" | "webhook" | "catalog";
            name: string;
            field: string | null;
            before: string | null;
            after: string | null;
            needs_restart: boolean;
        };
        /**
         * ClientToken
         * @description A token with the rights of a key.
         */
        ClientToken: {
            access_token: string;
            /**
             * @default bearer
             * @constant
             */
            token_type: "bearer";
            /** @description In seconds from now. */
            expires_in: number;
        };
        /**
         * CostsResult
         * @description The costs of one group in one bucket.
         */
        CostsResult: {
            project_id: string | null;
            project_name: string | null;
            api_key_id: string | null;
            api_key_name: string | null;
            /** @description The end user, from `X-On-Behalf-Of` or else from `user`. */
            user_id: string | null;
            model: string | null;
            provider: string | null;
            metadata: {
                [key: string]: string | null;
            } | null;
            /**
             * @default organization.costs.result
             * @constant
             */
            object: "organization.costs.result";
            amount: components["schemas"]["Amount"];
            amount_nano_usd: number;
            /** @description What providers may charge, including failed calls. */
            upstream_amount: components["schemas"]["Amount"];
            upstream_amount_nano_usd: number;
            /** @description The model, with `group_by=line_item`. */
            line_item: string | null;
            /** @description The number of tokens, with `group_by=line_item`. */
            quantity: number | null;
            quantity_unit: "tokens" | null;
        };
        /**
         * DeletionReceipt
         * @description Confirms a deletion.
         */
        DeletionReceipt: {
            id: string;
            object: string;
            /**
             * @default true
             * @constant
             */
            deleted: true;
        };
        /**
         * Deployment
         * @description A model at a provider as MKA1's clients know it, with what helps to choose one.
         */
        Deployment: {
            id: string;
            provider: string;
            model: string;
            upstream_model: string;
            declared: boolean;
            aliases: string[];
            description: string;
            licence: string;
            limits: components["schemas"]["EmbeddingLimits"];
            call_limits: components["schemas"]["CallLimits"];
            dimensions: number | null;
            native_dimensions: number | null;
            allowed_dimensions: number[] | ("any" | "unknown");
            tokenizer: string;
            pooling: string;
            normalised: boolean | null;
            prompts: {
                [key: string]: string;
            };
            space: string;
            home_space: string;
            shared_space: components["schemas"]["SharedSpace"] | null;
            /** @enum {string} */
            proof: "reference" | "proven" | "unproven" | "differs" | "drifted";
            proof_reason: string;
            price_per_mtok_usd: number | null;
            price_date: string | null;
            region: string;
            hq_country: string;
            eu_native: boolean;
            /** @enum {string} */
            quantisation: "fp32" | "bf16" | "fp16" | "fp8" | "int8" | "int4" | "binary" | "unknown";
            zero_data_retention: boolean;
            released: string | null;
            deprecated: string | null;
            retires: string | null;
            successor: string;
            dates_source: string;
            health: ("healthy" | "ejected" | "limited" | "full") | ("down" | "retired");
        };
        /**
         * DeploymentList
         * @description A list of deployments.
         */
        DeploymentList: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["Deployment"][];
        };
        /**
         * EmbeddingLimits
         * @description The limits of one request, which may be cut into several calls.
         */
        EmbeddingLimits: {
            max_batch_size: number;
            max_input_tokens: number | null;
            max_input_length: number;
        };
        /**
         * EndUser
         * @description An end user. Null for limits or budgets means that the project's apply.
         */
        EndUser: {
            id: string;
            /**
             * @default organization.project.end_user
             * @constant
             */
            object: "organization.project.end_user";
            project_id: string;
            /** @description Null if the end user has no record, and so the project's defaults. */
            created_at: number | null;
            blocked: boolean;
            blocked_at: number | null;
            limits: components["schemas"]["RateLimit"][] | null;
            budgets: components["schemas"]["Budget"][] | null;
            /** @description What is spent and left of its budgets, or of the project's budgets for each end user. */
            spending: components["schemas"]["BudgetSpending"][];
        };
        /**
         * EndUserChanges
         * @description Changes to an end user. Fields that are left out stay as they are.
         */
        EndUserChanges: {
            /**
             * @description Whether its requests are refused.
             * @default false
             */
            blocked?: boolean;
            /** @description Limits of its own; null for the project's. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets of its own; null for the project's. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
        };
        /**
         * ExchangedToken
         * @description A token for one end user.
         */
        ExchangedToken: {
            token: string;
            /** @description In Unix seconds. */
            expiresAt: number;
        };
        /**
         * File
         * @description A file.
         */
        File: {
            id: string;
            /**
             * @default file
             * @constant
             */
            object: "file";
            bytes: number;
            created_at: number;
            /** @description When it is deleted, in Unix seconds; null if only on demand. */
            expires_at: number | null;
            filename: string;
            /** @enum {string} */
            purpose: "batch" | "batch_output";
            /**
             * @description Files can be used as soon as they are there.
             * @default processed
             * @constant
             */
            status: "processed";
            status_details: null;
        };
        /**
         * HubModel
         * @description A model as AIHubMix's clients know it.
         */
        HubModel: {
            model_id: string;
            desc: string;
            /** @default embedding */
            types: string;
            /** @default  */
            features: string;
            /** @default text */
            input_modalities: string;
            /** @default 0 */
            max_output: number;
            context_length: number | null;
            pricing: components["schemas"]["HubModelPricing"];
        };
        /**
         * HubModelList
         * @description A list of models, in AIHubMix's shape.
         */
        HubModelList: {
            /**
             * @default true
             * @constant
             */
            success: true;
            /** @default  */
            message: string;
            data: components["schemas"]["HubModel"][];
        };
        /**
         * HubModelPricing
         * @description USD per million tokens.
         */
        HubModelPricing: {
            input: number | null;
            /** @default 0 */
            output: number;
        };
        /**
         * ApiKey
         * @description A key of a project.
         */
        ApiKey: {
            models: string[] | null;
            providers: string[] | null;
            limits: components["schemas"]["RateLimit"][];
            budgets: components["schemas"]["Budget"][];
            spending: components["schemas"]["BudgetSpending"][];
            id: string;
            name: string;
            redacted_value: string;
            created_at: number;
            expires_at: number | null;
            previous_expires_at: number | null;
            /** @enum {string} */
            status: "active" | "expired" | "revoked";
            /**
             * @default organization.project.api_key
             * @constant
             */
            object: "organization.project.api_key";
            owner: components["schemas"]["ProjectOwner"];
            /** @enum {string} */
            owner_project_access: "active" | "inactive";
            project_id: string;
            scopes: ("embeddings" | "on_behalf_of" | "tokens" | "usage" | "keys" | "admin")[];
            issued_by: string | null;
        };
        /**
         * ApiKeyChanges
         * @description Changes to a key. Fields that are left out stay as they are.
         */
        ApiKeyChanges: {
            /** @description Seconds until the key expires; null for never. */
            expires_in_seconds?: number | null;
            /** @description Alternatively, when the key expires, in Unix seconds. */
            expires_at?: number | null;
            /** @description The only model names that requests may use; null for any. */
            models?: string[] | null;
            /** @description The only providers that may serve requests; null for any. */
            providers?: string[] | null;
            /** @description Limits on the requests of this key and of the keys it issued, together. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for the same requests. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
            /** @default  */
            name?: string;
            scopes?: ("embeddings" | "on_behalf_of" | "tokens" | "usage" | "keys" | "admin")[];
        };
        /**
         * KeyServiceAccount
         * @description The owner of a key: each key is its own service account.
         */
        KeyServiceAccount: {
            id: string;
            name: string;
            created_at: number;
            /**
             * @default member
             * @constant
             */
            role: "member";
        };
        /**
         * RateLimit
         * @description A rate limit: at most `amount` in any interval of that length.
         */
        RateLimit: {
            /** @enum {string} */
            of: "requests" | "tokens";
            amount: number;
            /** @enum {string} */
            per: "second" | "minute" | "hour" | "day";
        };
        /** AdminApiKeyPage */
        AdminApiKeyPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["AdminApiKey"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** AuditEventPage */
        AuditEventPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["AuditEvent"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** BatchPage */
        BatchPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["Batch"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** EndUserPage */
        EndUserPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["EndUser"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** FilePage */
        FilePage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["File"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** ApiKeyPage */
        ApiKeyPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["ApiKey"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /** ProjectPage */
        ProjectPage: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["Project"][];
            first_id: string | null;
            /** @description The `after` of the next page. */
            last_id: string | null;
            has_more: boolean;
        };
        /**
         * HealthStatus
         * @description The response of a health check that passes.
         */
        HealthStatus: {
            status: string;
        };
        /**
         * Model
         * @description A model or an alias as OpenAI's clients know it, with cortecs' additions.
         */
        Model: {
            id: string;
            /**
             * @default model
             * @constant
             */
            object: "model";
            created: number;
            owned_by: string;
            description: string;
            pricing: components["schemas"]["ModelPricing"];
            providers: string[];
            context_size: number | null;
            tags: string[];
        };
        /**
         * ModelList
         * @description A list of models.
         */
        ModelList: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["Model"][];
        };
        /**
         * ModelPricing
         * @description Prices per million tokens, from the cheapest provider.
         */
        ModelPricing: {
            input_token: number | null;
            /** @default 0 */
            output_token: number;
            /** @default USD */
            currency: string;
        };
        /**
         * NewAdminApiKey
         * @description An admin key to create.
         */
        NewAdminApiKey: {
            /** @description Seconds until the key expires; null for never. */
            expires_in_seconds?: number | null;
            /** @description Alternatively, when the key expires, in Unix seconds. */
            expires_at?: number | null;
            name: string;
        };
        /**
         * AdminApiKeyWithSecret
         * @description An admin key, with its secret.
         */
        AdminApiKeyWithSecret: {
            id: string;
            name: string;
            redacted_value: string;
            created_at: number;
            expires_at: number | null;
            previous_expires_at: number | null;
            /** @enum {string} */
            status: "active" | "expired" | "revoked";
            /**
             * @default organization.admin_api_key
             * @constant
             */
            object: "organization.admin_api_key";
            owner: components["schemas"]["AdminOwner"];
            value: string;
        };
        /**
         * NewBatch
         * @description A batch to create.
         */
        NewBatch: {
            input_file_id: string;
            /** @constant */
            endpoint: "/v1/embeddings";
            /** @constant */
            completion_window: "24h";
            metadata?: {
                [key: string]: string;
            } | null;
            output_expires_after?: components["schemas"]["OutputExpiresAfter"] | null;
        };
        /**
         * NewEndUser
         * @description An end user's record to create or change.
         */
        NewEndUser: {
            /**
             * @description Whether its requests are refused.
             * @default false
             */
            blocked?: boolean;
            /** @description Limits of its own; null for the project's. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets of its own; null for the project's. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
            id: string;
        };
        /**
         * NewApiKey
         * @description A key to create.
         */
        NewApiKey: {
            /** @description Seconds until the key expires; null for never. */
            expires_in_seconds?: number | null;
            /** @description Alternatively, when the key expires, in Unix seconds. */
            expires_at?: number | null;
            /** @description The only model names that requests may use; null for any. */
            models?: string[] | null;
            /** @description The only providers that may serve requests; null for any. */
            providers?: string[] | null;
            /** @description Limits on the requests of this key and of the keys it issued, together. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for the same requests. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
            name: string;
            /** @description What the key may do. By default, embed and name end users, as far as the key that issues it may. */
            scopes?: ("embeddings" | "on_behalf_of" | "tokens" | "usage" | "keys" | "admin")[];
        };
        /**
         * ApiKeyWithSecret
         * @description A key of a project, with its secret.
         */
        ApiKeyWithSecret: {
            models: string[] | null;
            providers: string[] | null;
            limits: components["schemas"]["RateLimit"][];
            budgets: components["schemas"]["Budget"][];
            spending: components["schemas"]["BudgetSpending"][];
            id: string;
            name: string;
            redacted_value: string;
            created_at: number;
            expires_at: number | null;
            previous_expires_at: number | null;
            /** @enum {string} */
            status: "active" | "expired" | "revoked";
            /**
             * @default organization.project.api_key
             * @constant
             */
            object: "organization.project.api_key";
            owner: components["schemas"]["ProjectOwner"];
            /** @enum {string} */
            owner_project_access: "active" | "inactive";
            project_id: string;
            scopes: ("embeddings" | "on_behalf_of" | "tokens" | "usage" | "keys" | "admin")[];
            issued_by: string | null;
            value: string;
        };
        /**
         * NewProject
         * @description A project to create.
         */
        NewProject: {
            /** @description The only model names that requests may use; null for any. */
            models?: string[] | null;
            /** @description The only providers that may serve requests; null for any. */
            providers?: string[] | null;
            /**
             * @description Whether every request is served as if it had `eu_native`.
             * @default false
             */
            eu_native?: boolean;
            /**
             * @description Whether only deployments that keep no data serve requests.
             * @default false
             */
            zero_data_retention?: boolean;
            /**
             * @description Whether quantised weights may serve requests.
             * @default true
             */
            allow_quantization?: boolean;
            /** @description Limits on all requests of the project together. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for all requests of the project together. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
            /** @description Limits on each end user without limits of its own. */
            user_limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for each end user without budgets of its own. */
            user_budgets?: components["schemas"]["BudgetInput"][] | null;
            name: string;
        };
        /**
         * OutputExpiresAfter
         * @description When the files of results are deleted.
         */
        OutputExpiresAfter: {
            /** @constant */
            anchor: "created_at";
            seconds: number;
        };
        /**
         * BatchError
         * @description Why a batch failed.
         */
        BatchError: {
            code: string;
            message: string;
            param: string | null;
            /** @description The line of the input file at fault, from 1. */
            line: number | null;
        };
        /**
         * BatchErrors
         * @description Why a batch failed.
         */
        BatchErrors: {
            /**
             * @default list
             * @constant
             */
            object: "list";
            data: components["schemas"]["BatchError"][];
        };
        /**
         * Project
         * @description A project. `spending` is of `budgets`.
         */
        Project: {
            id: string;
            models: string[] | null;
            providers: string[] | null;
            limits: components["schemas"]["RateLimit"][];
            budgets: components["schemas"]["Budget"][];
            spending: components["schemas"]["BudgetSpending"][];
            /**
             * @default organization.project
             * @constant
             */
            object: "organization.project";
            name: string;
            created_at: number;
            archived_at: number | null;
            /** @enum {string} */
            status: "active" | "archived";
            eu_native: boolean;
            zero_data_retention: boolean;
            allow_quantization: boolean;
            user_limits: components["schemas"]["RateLimit"][];
            user_budgets: components["schemas"]["Budget"][];
        };
        /**
         * ProjectChanges
         * @description Changes to a project. Fields that are left out stay as they are.
         */
        ProjectChanges: {
            /** @description The only model names that requests may use; null for any. */
            models?: string[] | null;
            /** @description The only providers that may serve requests; null for any. */
            providers?: string[] | null;
            /**
             * @description Whether every request is served as if it had `eu_native`.
             * @default false
             */
            eu_native?: boolean;
            /**
             * @description Whether only deployments that keep no data serve requests.
             * @default false
             */
            zero_data_retention?: boolean;
            /**
             * @description Whether quantised weights may serve requests.
             * @default true
             */
            allow_quantization?: boolean;
            /** @description Limits on all requests of the project together. */
            limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for all requests of the project together. */
            budgets?: components["schemas"]["BudgetInput"][] | null;
            /** @description Limits on each end user without limits of its own. */
            user_limits?: components["schemas"]["RateLimit"][] | null;
            /** @description Budgets for each end user without budgets of its own. */
            user_budgets?: components["schemas"]["BudgetInput"][] | null;
            /** @default  */
            name?: string;
        };
        /**
         * ProjectOwner
         * @description The owner of a project's key.
         */
        ProjectOwner: {
            /**
             * @default service_account
             * @constant
             */
            type: "service_account";
            service_account: components["schemas"]["KeyServiceAccount"];
        };
        /**
         * RefusalsResult
         * @description The refused requests of one group in one bucket.
         */
        RefusalsResult: {
            project_id: string | null;
            project_name: string | null;
            api_key_id: string | null;
            api_key_name: string | null;
            /**
             * @default organization.usage.refusals.result
             * @constant
             */
            object: "organization.usage.refusals.result";
            /** @description The reason, as listed in `docs/errors.md`. */
            reason: string | null;
            num_requests: number;
        };
        /**
         * RefusedRequests
         * @description The refused requests of one key for one reason. An unrecognised key has no id.
         */
        RefusedRequests: {
            project_id: string | null;
            project_name: string | null;
            api_key_id: string | null;
            api_key_name: string | null;
            /** @description The reason, as listed in `docs/errors.md`. */
            reason: string;
            num_requests: number;
        };
        /**
         * ConfigurationReload
         * @description The result of a reload.
         */
        ConfigurationReload: {
            /**
             * @default organization.configuration.reload
             * @constant
             */
            object: "organization.configuration.reload";
            dry_run: boolean;
            changes: components["schemas"]["ConfigurationChange"][];
        };
        /**
         * ReplicaStatus
         * @description The state of the process that answered this request.
         */
        ReplicaStatus: {
            /** @description The name of its machine. */
            host: string;
            process_id: number;
            /** @description Each gauge of `/metrics` that has no labels, without the prefix `embedway_`. */
            gauges: {
                [key: string]: number;
            };
            deployments: components["schemas"]["ActiveDeployment"][];
        };
        /**
         * BatchRequestCounts
         * @description How many requests of a batch have come how far.
         */
        BatchRequestCounts: {
            total: number;
            completed: number;
            failed: number;
        };
        /**
         * ApiKeyRotation
         * @description How to rotate a key.
         */
        ApiKeyRotation: {
            /**
             * @description How long the old secret still works; 0 to end it at once.
             * @default 86400
             */
            grace_seconds?: number;
        };
        /**
         * SharedSpace
         * @description A space that several models share, as their makers say.
         */
        SharedSpace: {
            model: string;
            models: string[];
            /** @enum {string} */
            proof: "reference" | "proven" | "unproven" | "differs";
            proof_reason: string;
        };
        /**
         * BudgetSpending
         * @description What is spent and left of a budget in its current window.
         */
        BudgetSpending: {
            /** @enum {string} */
            per: "day" | "week" | "month" | "total";
            amount_usd: number;
            spent_usd: number;
            /** @description What is not spent yet. Some of it may be reserved for requests in progress. */
            left_usd: number;
            /** @description When the next window begins, in Unix seconds; null if never. */
            resets_at: number | null;
        };
        /** CostsBucket */
        CostsBucket: {
            /**
             * @default bucket
             * @constant
             */
            object: "bucket";
            start_time: number;
            end_time: number;
            results: components["schemas"]["CostsResult"][];
        };
        /** RefusalsBucket */
        RefusalsBucket: {
            /**
             * @default bucket
             * @constant
             */
            object: "bucket";
            start_time: number;
            end_time: number;
            results: components["schemas"]["RefusalsResult"][];
        };
        /** UsageBucket */
        UsageBucket: {
            /**
             * @default bucket
             * @constant
             */
            object: "bucket";
            start_time: number;
            end_time: number;
            results: components["schemas"]["UsageResult"][];
        };
        /**
         * UsageResult
         * @description The usage of one group in one bucket.
         */
        UsageResult: {
            project_id: string | null;
            project_name: string | null;
            api_key_id: string | null;
            api_key_name: string | null;
            /** @description The end user, from `X-On-Behalf-Of` or else from `user`. */
            user_id: string | null;
            model: string | null;
            provider: string | null;
            metadata: {
                [key: string]: string | null;
            } | null;
            /**
             * @default organization.usage.embeddings.result
             * @constant
             */
            object: "organization.usage.embeddings.result";
            input_tokens: number;
            /** @description Requests that were answered with 200. */
            num_model_requests: number;
            input_cached_tokens: number;
            /** @description Tokens that were estimated rather than reported or counted. */
            estimated_tokens: number;
            /** @description Tokens without a known price. They cost nothing. */
            unpriced_tokens: number;
            num_items: number;
            /** @description Requests that were refused or failed. */
            num_errors: number;
            /** @description Calls to providers, including retries. */
            num_calls: number;
            num_failed_calls: number;
        };
        /**
         * EmbeddingsRequest
         * @description One request to embed one or more items.
         */
        EmbeddingsRequest: {
            /** @description The text or texts to embed: a string or a list of strings, each of 1 to 100,000 characters; or token ids, as one list or a list of lists. At most 2,048 items. */
            input: string | string[] | number[] | number[][];
            /**
             * @description `provider:model`, a bare model id, or `auto`, the model this gateway is configured for. See `GET /v1/models`.
             * @default auto
             */
            model?: string | null;
            /**
             * @description `float`: arrays of numbers. `base64`: the little-endian float32 bytes of each vector.
             * @default float
             */
            encoding_format?: ("base64" | "float") | null;
            /**
             * @description Shorten the vectors; only for models that were trained for it. The model's own width is always possible.
             * @default null
             */
            dimensions?: number | null;
            /**
             * @description Your end user's id, kept with the usage record.
             * @default null
             */
            user?: string | null;
            /**
             * @description Up to 16 pairs kept with the usage record and never forwarded; keys of at most 64 characters, values of at most 512.
             * @default {}
             */
            metadata?: {
                [key: string]: string;
            } | null;
            /**
             * @description Parameters for the provider, merged into what it is sent. Any unknown top-level field is treated the same, unless its name is nearly that of a field here. Local models take none.
             * @default {}
             */
            extra_body?: Record<string, unknown> | null;
            /**
             * @description What to favour where several deployments could serve the request.
             * @default balanced
             */
            preference?: ("balanced" | "cost" | "speed") | null;
            /**
             * @description Use only these providers; `null` for any.
             * @default null
             */
            allowed_providers?: string[] | null;
            /**
             * @description Use only deployments based and regulated in the EU.
             * @default false
             */
            eu_native?: boolean | null;
            /**
             * @description `false`: only deployments that declare unquantised weights.
             * @default true
             */
            allow_quantization?: boolean | null;
            /**
             * @description `true`: only deployments that keep none of your data.
             * @default false
             */
            allow_zero_data_retention?: boolean | null;
            /**
             * @description Short for `allow_zero_data_retention`.
             * @default false
             */
            zdr?: boolean | null;
            /**
             * @description Allow the models in `fallbacks` if the first cannot answer.
             * @default true
             */
            enable_model_fallback?: boolean | null;
            /**
             * @description Models to try next. Each must serve the same vector space as `model`.
             * @default []
             */
            fallbacks?: string[] | null;
            /**
             * @description What the vectors are for, where a model tells these apart.
             * @default null
             */
            input_type?: ("classification" | "clustering" | "document" | "query") | null;
            /**
             * @description What to do with an item longer than the model takes: `none` refuses it, `end` drops tokens from its end, `start` from its start.
             * @default none
             */
            truncate?: ("end" | "none" | "start") | null;
        };
        /**
         * DryRun
         * @description The answer to a dry run.
         */
        DryRun: {
            /**
             * @default embedding.dry_run
             * @enum {unknown}
             */
            object: "embedding.dry_run";
            model: string;
            space: string;
            items: number;
            tokens: number | null;
            tokens_estimated: boolean;
            preference: string;
            candidates: components["schemas"]["DryRunCandidate"][];
            unproven: components["schemas"]["DryRunExclusion"][];
            removed: components["schemas"]["DryRunExclusion"][];
        };
        /**
         * DryRunCandidate
         * @description A deployment that may serve the request.
         */
        DryRunCandidate: {
            id: string;
            provider: string;
            model: string;
            upstream_model: string;
            tokens: number;
            calls: number;
            price_per_mtok_usd: number | null;
            cost_usd: string | null;
            latency_s: number;
            quantisation: string;
            region: string;
            eu_native: boolean;
            zero_data_retention: boolean;
            health: string;
            reason: string;
        };
        /**
         * DryRunExclusion
         * @description A deployment that may not serve the request.
         */
        DryRunExclusion: {
            id: string;
            filter: string;
            reason: string;
        };
        EmbeddingsResponse: {
            /** @constant */
            object: "list";
            /** @description One entry for each item of the input, in its order. */
            data: components["schemas"]["Embedding"][];
            /** @description The model as requested; x-embedway-model has its id. */
            model: string;
            usage: components["schemas"]["EmbeddingsUsage"];
            /** @description `embd_...`, also the id of the usage record. */
            id: string;
            /** @description Unix time in seconds. */
            created: number;
            provider: string;
        };
        Embedding: {
            /** @constant */
            object: "embedding";
            index: number;
            embedding: number[] | string;
        };
        EmbeddingsUsage: {
            prompt_tokens: number;
            total_tokens: number;
            /** @description Always 0; only on cortecs' path. */
            completion_tokens?: number;
        };
        Error: {
            error: components["schemas"]["ErrorDetails"];
        };
        ErrorDetails: {
            /** @description What is wrong, with the value, and what to do. */
            message: string;
            type: string;
            /** @description The field at fault. */
            param: string | null;
            code: string | null;
        };
        /**
         * TokenExchange
         * @description A request of MKA1's clients for a token for one end user.
         */
        TokenExchange: {
            /** @description The token's audience, such as 'embedway'. */
            audience: string;
            externalUserId: string;
            /**
             * @description The token's lifetime in seconds.
             * @default 3600
             */
            expiresIn?: number | null;
            /**
             * @default [
             *       "embeddings"
             *     ]
             */
            permissions?: string[] | null;
        };
        /**
         * ClientCredentials
         * @description A request of an OAuth client for a token.
         */
        ClientCredentials: {
            /** @constant */
            grant_type: "client_credentials";
            /** @description A key's id, `key_...`. */
            client_id?: string | null;
            /** @description The key itself. */
            client_secret?: string | null;
        };
        /** FileUpload */
        FileUpload: {
            /**
             * Format: binary
             * @description JSON lines, one for each request of the batch.
             */
            file: string;
            /** @constant */
            purpose: "batch";
            /** @constant */
            "expires_after[anchor]"?: "created_at";
            "expires_after[seconds]"?: number;
        };
        /** @description The fields of an embeddings request in camel case, for TypeScript alone. */
        EmbeddingsFields: {
            /** @description The text or texts to embed: a string or a list of strings, each of 1 to 100,000 characters; or token ids, as one list or a list of lists. At most 2,048 items. */
            input: string | string[] | number[] | number[][];
            /**
             * @description `provider:model`, a bare model id, or `auto`, the model this gateway is configured for. See `GET /v1/models`.
             * @default auto
             */
            model?: string | null;
            /**
             * @description `float`: arrays of numbers. `base64`: the little-endian float32 bytes of each vector.
             * @default float
             */
            encodingFormat?: ("base64" | "float") | null;
            /**
             * @description Shorten the vectors; only for models that were trained for it. The model's own width is always possible.
             * @default null
             */
            dimensions?: number | null;
            /**
             * @description Your end user's id, kept with the usage record.
             * @default null
             */
            user?: string | null;
            /**
             * @description Up to 16 pairs kept with the usage record and never forwarded; keys of at most 64 characters, values of at most 512.
             * @default {}
             */
            metadata?: {
                [key: string]: string;
            } | null;
            /**
             * @description Parameters for the provider, merged into what it is sent. Any unknown top-level field is treated the same, unless its name is nearly that of a field here. Local models take none.
             * @default {}
             */
            extraBody?: Record<string, unknown> | null;
            /**
             * @description What to favour where several deployments could serve the request.
             * @default balanced
             */
            preference?: ("balanced" | "cost" | "speed") | null;
            /**
             * @description Use only these providers; `null` for any.
             * @default null
             */
            allowedProviders?: string[] | null;
            /**
             * @description Use only deployments based and regulated in the EU.
             * @default false
             */
            euNative?: boolean | null;
            /**
             * @description `false`: only deployments that declare unquantised weights.
             * @default true
             */
            allowQuantization?: boolean | null;
            /**
             * @description `true`: only deployments that keep none of your data.
             * @default false
             */
            allowZeroDataRetention?: boolean | null;
            /**
             * @description Short for `allow_zero_data_retention`.
             * @default false
             */
            zdr?: boolean | null;
            /**
             * @description Allow the models in `fallbacks` if the first cannot answer.
             * @default true
             */
            enableModelFallback?: boolean | null;
            /**
             * @description Models to try next. Each must serve the same vector space as `model`.
             * @default []
             */
            fallbacks?: string[] | null;
            /**
             * @description What the vectors are for, where a model tells these apart.
             * @default null
             */
            inputType?: ("classification" | "clustering" | "document" | "query") | null;
            /**
             * @description What to do with an item longer than the model takes: `none` refuses it, `end` drops tokens from its end, `start` from its start.
             * @default none
             */
            truncate?: ("end" | "none" | "start") | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    list_models: {
        parameters: {
            query?: {
                tag?: string | null;
                currency?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ModelList"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_deployments_mka1: {
        parameters: {
            query?: {
                model?: string | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeploymentList"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_deployments: {
        parameters: {
            query?: {
                model?: string | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeploymentList"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_model: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Model"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_hub_models: {
        parameters: {
            query?: {
                type?: "llm" | "image_generation" | "video" | "tts" | "stt" | "embedding" | "rerank";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["HubModelList"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_liveness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["HealthStatus"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_readiness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["HealthStatus"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_metrics: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    exchange_token: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TokenExchange"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ExchangedToken"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    issue_client_token: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ClientCredentials"];
                "application/x-www-form-urlencoded": components["schemas"]["ClientCredentials"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ClientToken"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_projects: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                include_archived?: boolean;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ProjectPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_project: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NewProject"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Project"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_project: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Project"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    update_project: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ProjectChanges"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Project"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    archive_project: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Project"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_api_keys: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                include_revoked?: boolean;
            };
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKeyPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NewApiKey"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKeyWithSecret"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                key_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKey"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    update_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                key_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ApiKeyChanges"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKey"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    revoke_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                key_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionReceipt"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    rotate_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                key_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ApiKeyRotation"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ApiKeyWithSecret"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_admin_api_keys: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                order?: "asc" | "desc";
                include_revoked?: boolean;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AdminApiKeyPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_admin_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NewAdminApiKey"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AdminApiKeyWithSecret"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_admin_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                key_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AdminApiKey"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    revoke_admin_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                key_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionReceipt"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    rotate_admin_api_key: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                key_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ApiKeyRotation"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AdminApiKeyWithSecret"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_end_users: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                /** @description List only the end user with this id. */
                id?: string | null;
            };
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndUserPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    set_end_user: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NewEndUser"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndUser"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_end_user: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                end_user_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndUser"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    update_end_user: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                end_user_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EndUserChanges"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndUser"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    remove_end_user: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                project_id: string;
                end_user_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionReceipt"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_audit_events: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                "event_types[]"?: ("project.created" | "project.updated" | "project.archived" | "api_key.created" | "api_key.updated" | "api_key.rotated" | "api_key.deleted" | "end_user.created" | "end_user.updated" | "end_user.deleted" | "ledger.pruned" | "ledger.repaired" | "configuration.reloaded")[];
                "project_ids[]"?: string[];
                "actor_ids[]"?: string[];
                "resource_ids[]"?: string[];
                "effective_at[gte]"?: number | null;
                "effective_at[gt]"?: number | null;
                "effective_at[lte]"?: number | null;
                "effective_at[lt]"?: number | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AuditEventPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    reload_configuration: {
        parameters: {
            query?: {
                dry_run?: boolean;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ConfigurationReload"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_usage: {
        parameters: {
            query: {
                /** @description Start of the report in Unix seconds, inclusive. Required. */
                start_time: number;
                /** @description End of the report in Unix seconds, exclusive; default now. */
                end_time?: number | null;
                /** @description `1m`, `1h` or `1d`; default `1d`. */
                bucket_width?: "1m" | "1h" | "1d";
                /** @description How many buckets a page has. */
                limit?: number | null;
                /** @description `next_page` of the previous page. Keep all other parameters the same. */
                page?: string | null;
                /** @description The time zone of days and hours, such as `Europe/Berlin`; default `UTC`. */
                time_zone?: string;
                /** @description One or more of project_id, user_id, api_key_id, model, provider, and `metadata.` with a key of requests' metadata. */
                group_by?: string[];
                /** @description Only usage whose project_id is one of these. */
                project_ids?: string[];
                /** @description Only usage whose api_key_id is one of these. */
                api_key_ids?: string[];
                /** @description Only usage whose user_id is one of these. */
                user_ids?: string[];
                /** @description Only usage whose model is one of these. */
                models?: string[];
                /** @description Only usage whose provider is one of these. */
                providers?: string[];
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["UsagePage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_usage_mka1: {
        parameters: {
            query: {
                /** @description Start of the report in Unix seconds, inclusive. Required. */
                start_time: number;
                /** @description End of the report in Unix seconds, exclusive; default now. */
                end_time?: number | null;
                /** @description `1m`, `1h` or `1d`; default `1d`. */
                bucket_width?: "1m" | "1h" | "1d";
                /** @description How many buckets a page has. */
                limit?: number | null;
                /** @description `next_page` of the previous page. Keep all other parameters the same. */
                page?: string | null;
                /** @description The time zone of days and hours, such as `Europe/Berlin`; default `UTC`. */
                time_zone?: string;
                /** @description One or more of project_id, user_id, api_key_id, model, provider, and `metadata.` with a key of requests' metadata. */
                group_by?: string[];
                /** @description Only usage whose project_id is one of these. */
                project_ids?: string[];
                /** @description Only usage whose api_key_id is one of these. */
                api_key_ids?: string[];
                /** @description Only usage whose user_id is one of these. */
                user_ids?: string[];
                /** @description Only usage whose model is one of these. */
                models?: string[];
                /** @description Only usage whose provider is one of these. */
                providers?: string[];
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["UsagePage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_costs: {
        parameters: {
            query: {
                /** @description Start of the report in Unix seconds, inclusive. Required. */
                start_time: number;
                /** @description End of the report in Unix seconds, exclusive; default now. */
                end_time?: number | null;
                /** @description `1m`, `1h` or `1d`; default `1d`. */
                bucket_width?: "1m" | "1h" | "1d";
                /** @description How many buckets a page has. */
                limit?: number | null;
                /** @description `next_page` of the previous page. Keep all other parameters the same. */
                page?: string | null;
                /** @description The time zone of days and hours, such as `Europe/Berlin`; default `UTC`. */
                time_zone?: string;
                /** @description One or more of project_id, user_id, api_key_id, model, provider, line_item, and `metadata.` with a key of requests' metadata. */
                group_by?: string[];
                /** @description Only usage whose project_id is one of these. */
                project_ids?: string[];
                /** @description Only usage whose api_key_id is one of these. */
                api_key_ids?: string[];
                /** @description Only usage whose user_id is one of these. */
                user_ids?: string[];
                /** @description Only usage whose model is one of these. */
                models?: string[];
                /** @description Only usage whose provider is one of these. */
                providers?: string[];
                /** @description Only usage whose line_item is one of these. */
                line_items?: string[];
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CostsPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_refusals: {
        parameters: {
            query: {
                /** @description Start of the report in Unix seconds, inclusive. Required. */
                start_time: number;
                /** @description End of the report in Unix seconds, exclusive; default now. */
                end_time?: number | null;
                /** @description `1m`, `1h` or `1d`; default `1d`. */
                bucket_width?: "1m" | "1h" | "1d";
                /** @description How many buckets a page has. */
                limit?: number | null;
                /** @description `next_page` of the previous page. Keep all other parameters the same. */
                page?: string | null;
                /** @description The time zone of days and hours, such as `Europe/Berlin`; default `UTC`. */
                time_zone?: string;
                /** @description One or more of project_id, api_key_id, reason. */
                group_by?: string[];
                /** @description Only usage whose project_id is one of these. */
                project_ids?: string[];
                /** @description Only usage whose api_key_id is one of these. */
                api_key_ids?: string[];
                /** @description Only usage whose reason is one of these. */
                reasons?: string[];
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RefusalsPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_files: {
        parameters: {
            query?: {
                purpose?: string | null;
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
                order?: "asc" | "desc";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FilePage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_file: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "multipart/form-data": components["schemas"]["FileUpload"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["File"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_file: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                file_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["File"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    delete_file: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                file_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeletionReceipt"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    download_file: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                file_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    list_batches: {
        parameters: {
            query?: {
                /** @description The most entries to return, up to 100. */
                limit?: number;
                /** @description The `last_id` of the previous page; leave it out for the first page. */
                after?: string | null;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BatchPage"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    create_batch: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["NewBatch"];
            };
        };
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Batch"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    retrieve_batch: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                batch_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Batch"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    cancel_batch: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                batch_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Batch"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    get_activity: {
        parameters: {
            query?: {
                /** @description How far to look back: 10, 60, 300 or 900 seconds. */
                seconds?: 10 | 60 | 300 | 900;
                /** @description What to group by. */
                group_by?: "model" | "provider" | "project_id" | "api_key_id" | "user_id";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Successful Response */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Activity"];
                };
            };
            /** @description The request cannot be honoured. */
            "4XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway cannot answer now. */
            "5XX": {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    embed: {
        parameters: {
            query?: {
                /** @description `true` to list the deployments that would be tried, in order and with prices, without calling any. It is free, but counts as a request. */
                dry_run?: boolean;
            };
            header?: {
                /** @description Your end user, for whom limits, budgets and usage count; 1 to 150 printable ASCII characters. The key needs the scope on_behalf_of. */
                "X-On-Behalf-Of"?: string;
                /** @description Your own id for this request; the response repeats it. */
                "X-Request-Id"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "model": "auto",
                 *       "input": [
                 *         "The quick brown fox."
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["EmbeddingsRequest"];
            };
        };
        responses: {
            /** @description The vectors; with `dry_run=true` the plan, without most headers. */
            200: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Milliseconds from receiving the request to answering it. */
                    "openai-processing-ms"?: string;
                    /** @description The model that answered. */
                    "x-embedway-model"?: string;
                    /** @description The provider that answered; several are separated by commas. */
                    "x-embedway-provider"?: string;
                    /** @description The vector space. Compare only vectors of the same space. */
                    "x-embedway-space"?: string;
                    /** @description The cost of the request in USD. */
                    "x-embedway-cost-usd"?: string;
                    /** @description Milliseconds spent in the gateway, without the provider or model. */
                    "x-embedway-overhead-ms"?: string;
                    /** @description Since when the model is deprecated at its provider (RFC 9745). */
                    deprecation?: string;
                    /** @description When its provider stops serving it, if that is soon (RFC 8594). */
                    sunset?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EmbeddingsResponse"] | components["schemas"]["DryRun"];
                };
            };
            /** @description The request is invalid; `param` names the field. */
            400: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The key is missing or invalid. */
            401: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The kind of credential to send, `Bearer`. */
                    "www-authenticate"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The credential lacks the right (`insufficient_permissions`), its end user is blocked, or the key may not use this model or its providers (`model_not_found`). */
            403: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is no such model; the message suggests similar names. */
            404: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body did not arrive in time. */
            408: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body has a content encoding. */
            415: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description A rate limit of the key, the project or the end user is reached, or every provider limits this gateway's rate (`rate_limit_exceeded`); or a budget is spent or reserved (`insufficient_quota`). Nothing is billed. `Retry-After` says when to retry. */
            429: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway has a defect. */
            500: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The model or its provider failed. */
            502: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway is overloaded, or its database is unavailable; see `Retry-After`. */
            503: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The provider did not answer in time. */
            504: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    embed_mka1: {
        parameters: {
            query?: {
                /** @description `true` to list the deployments that would be tried, in order and with prices, without calling any. It is free, but counts as a request. */
                dry_run?: boolean;
            };
            header?: {
                /** @description Your end user, for whom limits, budgets and usage count; 1 to 150 printable ASCII characters. The key needs the scope on_behalf_of. */
                "X-On-Behalf-Of"?: string;
                /** @description Your own id for this request; the response repeats it. */
                "X-Request-Id"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "model": "auto",
                 *       "input": [
                 *         "The quick brown fox."
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["EmbeddingsRequest"];
            };
        };
        responses: {
            /** @description The vectors; with `dry_run=true` the plan, without most headers. */
            200: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Milliseconds from receiving the request to answering it. */
                    "openai-processing-ms"?: string;
                    /** @description The model that answered. */
                    "x-embedway-model"?: string;
                    /** @description The provider that answered; several are separated by commas. */
                    "x-embedway-provider"?: string;
                    /** @description The vector space. Compare only vectors of the same space. */
                    "x-embedway-space"?: string;
                    /** @description The cost of the request in USD. */
                    "x-embedway-cost-usd"?: string;
                    /** @description Milliseconds spent in the gateway, without the provider or model. */
                    "x-embedway-overhead-ms"?: string;
                    /** @description Since when the model is deprecated at its provider (RFC 9745). */
                    deprecation?: string;
                    /** @description When its provider stops serving it, if that is soon (RFC 8594). */
                    sunset?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EmbeddingsResponse"] | components["schemas"]["DryRun"];
                };
            };
            /** @description The request is invalid; `param` names the field. */
            400: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The key is missing or invalid. */
            401: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The kind of credential to send, `Bearer`. */
                    "www-authenticate"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The credential lacks the right (`insufficient_permissions`), its end user is blocked, or the key may not use this model or its providers (`model_not_found`). */
            403: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is no such model; the message suggests similar names. */
            404: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body did not arrive in time. */
            408: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body has a content encoding. */
            415: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description A rate limit of the key, the project or the end user is reached, or every provider limits this gateway's rate (`rate_limit_exceeded`); or a budget is spent or reserved (`insufficient_quota`). Nothing is billed. `Retry-After` says when to retry. */
            429: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway has a defect. */
            500: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The model or its provider failed. */
            502: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway is overloaded, or its database is unavailable; see `Retry-After`. */
            503: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The provider did not answer in time. */
            504: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
    embed_cortecs: {
        parameters: {
            query?: {
                /** @description `true` to list the deployments that would be tried, in order and with prices, without calling any. It is free, but counts as a request. */
                dry_run?: boolean;
            };
            header?: {
                /** @description Your end user, for whom limits, budgets and usage count; 1 to 150 printable ASCII characters. The key needs the scope on_behalf_of. */
                "X-On-Behalf-Of"?: string;
                /** @description Your own id for this request; the response repeats it. */
                "X-Request-Id"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                /**
                 * @example {
                 *       "model": "auto",
                 *       "input": [
                 *         "The quick brown fox."
                 *       ]
                 *     }
                 */
                "application/json": components["schemas"]["EmbeddingsRequest"];
            };
        };
        responses: {
            /** @description The vectors; with `dry_run=true` the plan, without most headers. */
            200: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Milliseconds from receiving the request to answering it. */
                    "openai-processing-ms"?: string;
                    /** @description The model that answered. */
                    "x-embedway-model"?: string;
                    /** @description The provider that answered; several are separated by commas. */
                    "x-embedway-provider"?: string;
                    /** @description The vector space. Compare only vectors of the same space. */
                    "x-embedway-space"?: string;
                    /** @description The cost of the request in USD. */
                    "x-embedway-cost-usd"?: string;
                    /** @description Milliseconds spent in the gateway, without the provider or model. */
                    "x-embedway-overhead-ms"?: string;
                    /** @description Since when the model is deprecated at its provider (RFC 9745). */
                    deprecation?: string;
                    /** @description When its provider stops serving it, if that is soon (RFC 8594). */
                    sunset?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EmbeddingsResponse"] | components["schemas"]["DryRun"];
                };
            };
            /** @description The request is invalid; `param` names the field. */
            400: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The key is missing or invalid. */
            401: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The kind of credential to send, `Bearer`. */
                    "www-authenticate"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The credential lacks the right (`insufficient_permissions`), its end user is blocked, or the key may not use this model or its providers (`model_not_found`). */
            403: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description There is no such model; the message suggests similar names. */
            404: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body did not arrive in time. */
            408: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The body has a content encoding. */
            415: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description A rate limit of the key, the project or the end user is reached, or every provider limits this gateway's rate (`rate_limit_exceeded`); or a budget is spent or reserved (`insufficient_quota`). Nothing is billed. `Retry-After` says when to retry. */
            429: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description The limit on requests that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-requests"?: string;
                    /** @description How many requests it still allows. */
                    "x-ratelimit-remaining-requests"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-requests"?: string;
                    /** @description The limit on tokens that is closest to its end; absent if none applies. */
                    "x-ratelimit-limit-tokens"?: string;
                    /** @description How many tokens it still allows. */
                    "x-ratelimit-remaining-tokens"?: string;
                    /** @description The time until all of it is available again, such as `1m2.5s`. */
                    "x-ratelimit-reset-tokens"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway has a defect. */
            500: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The model or its provider failed. */
            502: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The gateway is overloaded, or its database is unavailable; see `Retry-After`. */
            503: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    /** @description Seconds to wait before retrying. */
                    "retry-after"?: string;
                    /** @description The same in milliseconds. */
                    "retry-after-ms"?: string;
                    /** @description `false` if waiting does not help, or the request may have been charged; there is no `retry-after` then. */
                    "x-should-retry"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
            /** @description The provider did not answer in time. */
            504: {
                headers: {
                    /** @description The request's id; your own if you sent one. */
                    "x-request-id"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Error"];
                };
            };
        };
    };
}
