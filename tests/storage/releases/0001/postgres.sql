CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.audit (
    id text NOT NULL,
    at_ms bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    project_id text,
    target text NOT NULL,
    details json NOT NULL,
    request_id text
);
CREATE TABLE public.budget_alerts (
    subject text NOT NULL,
    per text NOT NULL,
    window_ms bigint NOT NULL,
    amount_nano_usd bigint NOT NULL,
    percent integer NOT NULL,
    at_ms bigint NOT NULL
);
CREATE TABLE public.end_users (
    project_id text NOT NULL,
    id text NOT NULL,
    created_ms bigint NOT NULL,
    blocked_ms bigint,
    limits json,
    budgets json
);
CREATE TABLE public.holds (
    subject text NOT NULL,
    process text NOT NULL,
    amount_nano_usd bigint NOT NULL,
    expires_ms bigint NOT NULL
);
CREATE TABLE public.installation (
    name text NOT NULL,
    value text NOT NULL
);
CREATE TABLE public.keys (
    id text NOT NULL,
    name text NOT NULL,
    digest bytea NOT NULL,
    hint text NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint,
    revoked_ms bigint,
    models json,
    providers json,
    project_id text,
    scopes json DEFAULT '["embeddings", "on_behalf_of"]'::json NOT NULL,
    issued_by text,
    limits json DEFAULT '[]'::json NOT NULL,
    budgets json DEFAULT '[]'::json NOT NULL,
    previous_digest bytea,
    previous_expires_ms bigint
);
CREATE TABLE public.projects (
    id text NOT NULL,
    name text NOT NULL,
    created_ms bigint NOT NULL,
    archived_ms bigint,
    models json,
    providers json,
    eu_native boolean NOT NULL,
    zero_data_retention boolean NOT NULL,
    allow_quantization boolean NOT NULL,
    limits json NOT NULL,
    budgets json NOT NULL,
    user_limits json NOT NULL,
    user_budgets json NOT NULL
);
CREATE TABLE public.refusals (
    at_ms bigint NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    reason text NOT NULL,
    requests bigint NOT NULL
);
CREATE TABLE public.space_proofs (
    deployment text NOT NULL,
    input_type text NOT NULL,
    state text NOT NULL,
    revision text NOT NULL,
    home text NOT NULL,
    cosine double precision,
    norm_deviation double precision,
    reason text NOT NULL,
    fingerprint text NOT NULL,
    models json NOT NULL,
    at_ms bigint NOT NULL,
    since_ms bigint NOT NULL
);
CREATE TABLE public.space_references (
    model text NOT NULL,
    revision text NOT NULL,
    input_type text NOT NULL,
    texts text NOT NULL,
    count integer NOT NULL,
    vectors bytea NOT NULL,
    made_by text NOT NULL,
    made_ms bigint NOT NULL
);
CREATE TABLE public.usage (
    id text NOT NULL,
    line integer NOT NULL,
    at_ms bigint NOT NULL,
    request_id text NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    on_behalf_of text,
    "user" text,
    end_user text NOT NULL,
    metadata json NOT NULL,
    model text NOT NULL,
    asked text NOT NULL,
    provider text NOT NULL,
    items integer NOT NULL,
    tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated boolean NOT NULL,
    priced boolean NOT NULL,
    cost_nano_usd bigint NOT NULL,
    upstream_cost_nano_usd bigint NOT NULL,
    calls integer NOT NULL,
    failed_calls integer NOT NULL,
    latency_us bigint NOT NULL,
    status integer NOT NULL
);
CREATE TABLE public.usage_days (
    at_ms bigint NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    items bigint NOT NULL,
    tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    unpriced_tokens bigint NOT NULL,
    cost_nano_usd bigint NOT NULL,
    upstream_cost_nano_usd bigint NOT NULL,
    calls bigint NOT NULL,
    failed_calls bigint NOT NULL
);
CREATE TABLE public.usage_hours (
    at_ms bigint NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    items bigint NOT NULL,
    tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    unpriced_tokens bigint NOT NULL,
    cost_nano_usd bigint NOT NULL,
    upstream_cost_nano_usd bigint NOT NULL,
    calls bigint NOT NULL,
    failed_calls bigint NOT NULL
);
CREATE TABLE public.usage_user_days (
    at_ms bigint NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    end_user text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    items bigint NOT NULL,
    tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    unpriced_tokens bigint NOT NULL,
    cost_nano_usd bigint NOT NULL,
    upstream_cost_nano_usd bigint NOT NULL,
    calls bigint NOT NULL,
    failed_calls bigint NOT NULL
);
CREATE TABLE public.usage_user_hours (
    at_ms bigint NOT NULL,
    project_id text NOT NULL,
    key_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    end_user text NOT NULL,
    requests bigint NOT NULL,
    errors bigint NOT NULL,
    items bigint NOT NULL,
    tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    estimated_tokens bigint NOT NULL,
    unpriced_tokens bigint NOT NULL,
    cost_nano_usd bigint NOT NULL,
    upstream_cost_nano_usd bigint NOT NULL,
    calls bigint NOT NULL,
    failed_calls bigint NOT NULL
);
INSERT INTO public.alembic_version VALUES ('0001_initial');
INSERT INTO public.audit VALUES ('audit_0000000000000001', 1795965454757, 'cli:root', 'project.created', 'proj_4fd26ec7a781f5c1', 'proj_4fd26ec7a781f5c1', '{"name": "web", "budgets": [{"amount_usd": 0.01, "per": "total", "alerts": [1]}]}', NULL);
INSERT INTO public.audit VALUES ('audit_0000000000000002', 1795965455382, 'cli:root', 'end_user.created', 'proj_4fd26ec7a781f5c1', 'alice', '{"budgets": [{"amount_usd": 2.0, "per": "day", "alerts": []}]}', NULL);
INSERT INTO public.audit VALUES ('audit_0000000000000003', 1795965456093, 'cli:root', 'api_key.created', 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', '{"name": "shop", "scopes": ["embeddings", "on_behalf_of"], "budgets": [{"amount_usd": 25.0, "per": "month", "alerts": []}]}', NULL);
INSERT INTO public.end_users VALUES ('proj_4fd26ec7a781f5c1', 'alice', 1795965455382, NULL, NULL, '[{"amount_nano_usd": 2000000000, "per": "day", "alerts": []}]');
INSERT INTO public.installation VALUES ('pepper', '12aef15dc5bbabfe1fb772447f05c755');
INSERT INTO public.keys VALUES ('key_7ecc4c69f8e511ec', 'tests', '\x689ddb9c566f5cb3026c62089ea16cfeb61e6ac8ff83149756512d35423c7f99', 'sk-gateway-de8t', 1795965447179, NULL, NULL, NULL, NULL, 'proj_default', '["embeddings", "on_behalf_of"]', NULL, '[]', '[]', NULL, NULL);
INSERT INTO public.keys VALUES ('key_8e89140168f7f19c', 'shop', '\xb74ee55be894c508dd352d2fd95f9003cf216c55e8d7993bfb8e3c46c70b717a', 'sk-gateway-iMtB', 1795965456093, NULL, NULL, NULL, NULL, 'proj_4fd26ec7a781f5c1', '["embeddings", "on_behalf_of"]', NULL, '[]', '[{"amount_nano_usd": 25000000000, "per": "month", "alerts": []}]', NULL, NULL);
INSERT INTO public.projects VALUES ('proj_default', 'default', 1795965446966, NULL, NULL, NULL, false, false, true, '[]', '[]', '[]', '[]');
INSERT INTO public.projects VALUES ('proj_4fd26ec7a781f5c1', 'web', 1795965454756, NULL, NULL, NULL, false, false, true, '[]', '[{"amount_nano_usd": 10000000, "per": "total", "alerts": [1]}]', '[]', '[]');
INSERT INTO public.refusals VALUES (1795965300000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'insufficient_quota', 1);
INSERT INTO public.refusals VALUES (1795965300000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'model_not_found', 1);
INSERT INTO public.space_proofs VALUES ('one:m', 'none', 'reference', 'one', 'one', 0.9999999999999999, 0, '', '4803451d281c', '["m"]', 1795965460294, 1795965460294);
INSERT INTO public.space_proofs VALUES ('two:m', 'none', 'proven', 'one', 'one', 0.9999999999999999, 0, '', '4803451d281c', '["m"]', 1795965460420, 1795965460420);
INSERT INTO public.space_references VALUES ('m', 'one', 'none', '91b85b4581a4', 8, '\xe0d7c63dc60638be261d18be6225913c3bedd1bdb87c9e3de9e3a5bdb58c2e3eec60ff3d2f3b22bd01a275bd588559bdc4803c3d3aaa2d3e6513273efd4ed9bb067685bdbaeae0bd9d9356bdf0162ebeac42663dfa7e243dfc2114bddabc443e14273cbec2d85e3e8cc537beca57adbcc06f0a3cb401453e64c1383efaa4073e504601be8dfc583ed7c22bbe377e7b3d17c3e3bdce06943d9ba8d43da2354d3e6ec1613eab6f91bda0747cbd1ac357be77d8d6bc39474e3e982a8e3d54558c3c9da78e3ca0974b3d5558ed3ddf732d3e01cfa03d364eefbc17ea333e8a56083e53e13bbd83cc233ebb7cdf3d4fa6a53d0d77f43db8781d3ed07cd83c37b101be16b6a53d5a9a443eb7f1e93d20763a3e568992bd1889babd2a0c45be59e64bbd0b10523e274fdd3c1c33273dc9eb16be38357e3d69a1cabd5ab182bc8060f3bd2bc8143e32a5153e19502e3d4876f2bd7a749fbc5ece84bcb7234b3c6b3f313e10ce1b3e164b023db7457e3c853138be8afa25be1c373b3e26b6363e30392b3e5f501cbe4132c73c611fd33d01d21e3e40e1493ecaf3d93d0cb90bbefa66d1bc949429bec36a1cbe75e4f33da2aa313ec2b2453e29ed43be415cec3c10a0183ca7e619bd886c08beca80fabd6eb3a83d6a8b1d3e15693c3d298a12bede234d3e585c0c3e9178093cd7a9e23ddb03b4bdb5fc573d8c4f9cbc0c92e9bdba79083e4960fd3d8482ef3c643a423c00ad5e3dc2cc0ebe7d81c13debfac3bdb466fa3dc16790bdbcd8453dad8eb0bd5b3c21bec3e98a3dfa95b63c0894513e6573cfbdfd9e0ebee6d4ef3df82f043e0dd6b6bd053ca9bd9bc7cfbdae525fbedb4b30be516ba8bdc2589b3d7712b7b802ed24bed80b6abcbaadc2bd4e6c16be13e2183e0639653e14db5cbe65cc1cbd7d197f3cc328fb3dc51bdc3d932dc2bdb619c9bde02468bde36c673ee7923b3ec186aebd6508373e96f51c3e0ea340bec3f9b3bdfdb1c4bd36f9a53dfcf5053e3f1c7c3d2652023e518bb13d4ce055be5bec2e3ed2cf55beb8b2713d689fbd3c26da16be39e857be05d41d3da86f983cf0792e3dc92f6abdc76e36befc96553daa0e263e730ddebd2f5fb93c5cb9493ea7cb25bd3210083e4fb15a3c693d183e35a0413e7f38193eb16587bd927e39be224a98bc3a32393e336057be0a9a363d286854beba0c383ed42b23bde53c543d63c4493d60273a3d4185083eaf4dd33de5ffa3bde001b9bd271a3c3b4a74083eb301383df83716be41cb583e4f5afebdadb80b3e2fe534bed5657c3db5cf413eeec649be9e4d0abea22925bef371eabd2d20cbbdffdc2c3e6497e13d8c9ea93de33ecc3c3f759c3d6105cd3d96fb36be734349bdc1d31e3e462178bdc9390dbeb65fbcbd92ece3bd324418be8d9977bdb31141be7c8101bd6e48b53d0bd6ea3cb202b4bdde7142bed4cdc9bb5d6b43be6ddc2dbcfe743f3eb151eebda3d545bd8297963dc74df7bc35331ebe5e9d133e28fb133db4d20f3e6a5b963b7694493e3d0254be8d3b0f3e68e4fb3d3f99633d16bc003ebc7c843ab01811bea79df2bdd7ff123c8fc6bb3c78639ebd815b383eebc23bbdc286f33de4512e3edf5a28bd0a380ebcb25ca8bdfc37bf39be9a27beb878e8bd715803bed4e6b1bbedf404bd56173e3e17b13fbec73c52be0f67cfbd4cf29fbce8da08bd30ed3f3eab17f33c47352a3ee59003be1db6ecbd4cd04bbeaded5e3ea69242bed48c223d124917bebd63153c57adabbd137866be50f5fe38223f473e83f793ba20a8b73d7ed3093ec8b2c0bb09947b3d106db9bde5bfec3d33c244beb8b39d3d15c2503e485c57bd5d83f03df531723d60f32bbde9427cbc8421ec3d44d9c73d32f076bd60cd4e3de8bc2e3ef2133c3e47f050be8ce09cbd4196f9bda57e75bd9aad413e6ec7093e0fb4b33d6f4042be3990f73d6159adbde961ac3d76dabdbc86a512be5fbb223e8ae9fc3db86d4bbea577c83dd4679dbd07283bbe82a22e3e3929313e63ab433e0f68f9bda02189bd832e0d3eb60e033ecae3a2bc3091683c9214173ef0d52dbefefcc9bd2250053e7d1a25be4b79ab3bad9d3fbe02333d3e3dc5883d5dddca3d39c9eebd3b4080bd3156843deff5853d6b10373ece0c9e3d641d32be04d147bddf4a43bb675946bec4fcaa3d302d303c80ce82bbed7720bd95989dbd9232593eec0e4d3e48241ebe61a0a43dc19b1c3e6622103e23cbbb3d9c87213e9811a23d371dfe3a05cd3f3ecf5eb33da1158dbdaf4a06be93dd18bec2b9883c8f6b683cf3b41abeb4b84abe7072ac3d808f11be82de333e49d6273eea4752be4069d53da72b963cf7f7283edfa50e3e6cc6c0bd6b531ebd879695bd0d3d17bea27c39be21193c3e261f803de61cba3c9ec1c8bd77c417beebadaabd906d8fbdfbe9cf3cb8df93bd50bf35bc8c9d2d3e1fef59beb974fb3d43ed0f3e8c0c8b3d909105be40b446be5796c33deca1203e8226203e250ede3c0e0d173e44b494bd98598ebcd4235f3de56f37be0c0e1d3d0bd4bc3def2a00bef81629bd052abd3dd866243ca65cb43da8c84abe43d532bea18d633ef0e50b3dbcbd9ebd70e2a4bdb3ae7bbddff660be9b2821be7ba869bd68b6233e3723a7bdc24296bd6a3afc3bc2f653be1669d8bda2f8b5bdd90d653bb65e73bdbcff163e95c2f03dfe85b5bde104343a0c2628bed8e9ef3b94a8c5bd677727bde9fa26bed8f89eba146fd0bd7b7e7c3d86a22e3e3533203eec7c5fbe8eb8c43d7b0cb7bd6db5413ec71f5fbe5db3023ea49cfa3d0e2a31bc4b9b46be676b863daf6ab23d9be6a8bd2a8a023eb4eb203e862cff3da3961a3ec415ad3d72c60abe48eb973b81d1863c63b4c03d78c043bed5345c3e', 'one:m', 1795965460294);
INSERT INTO public.usage VALUES ('probe_3fd31841538d1da99a29f779', 0, 1795965460286, 'probe', '', '', NULL, NULL, '', '{}', 'm', '', 'one', 0, 0, 0, false, true, 0, 114000, 1, 0, 571609, 200);
INSERT INTO public.usage VALUES ('embd_6854d1fd1dd4383b2f35bf35', 0, 1795965459700, 'req_0a13106f506f3de7479d40fc', 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', NULL, 'alice', 'alice', '{}', 'm', 'one:m', 'one', 1, 2, 0, false, true, 2000, 2000, 1, 0, 713600, 200);
INSERT INTO public.usage VALUES ('probe_aa9d3e8c4aa42d9386dcda5e', 0, 1795965460418, 'probe', '', '', NULL, NULL, '', '{}', 'm', '', 'two', 0, 0, 0, false, true, 0, 114000, 1, 0, 5854, 200);
INSERT INTO public.usage VALUES ('embd_307c599b6c29632339fa3bad', 0, 1795965460410, 'req_ce3336f4a7663d0e820f1faa', 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', NULL, 'alice', 'alice', '{}', 'm', 'two:m', 'two', 1, 2, 0, false, true, 2000, 2000, 1, 0, 26589, 200);
INSERT INTO public.usage VALUES ('embd_c32cec2ff9c7dcc760582e1f', 0, 1795965460444, 'req_e8e69e8c2120bada6cf7c86a', 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', NULL, 'alice', 'alice', '{}', 'm', 'm', 'two', 1, 2, 0, false, true, 2000, 2000, 1, 0, 8741, 200);
INSERT INTO public.usage VALUES ('embd_80563c1eecdc94fa5a2aa56f', 0, 1795965460480, 'req_2884225b70a4218b11f095f5', 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', NULL, NULL, '', '{}', '', 'nothing', '', 1, 0, 0, false, true, 0, 0, 0, 0, 2412, 404);
INSERT INTO public.usage_days VALUES (1795910400000, '', '', 'm', 'one', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_days VALUES (1795910400000, '', '', 'm', 'two', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', '', '', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.usage_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'one', 1, 0, 1, 2, 0, 0, 0, 2000, 2000, 1, 0);
INSERT INTO public.usage_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'two', 2, 0, 2, 4, 0, 0, 0, 4000, 4000, 2, 0);
INSERT INTO public.usage_hours VALUES (1795964400000, '', '', 'm', 'one', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_hours VALUES (1795964400000, '', '', 'm', 'two', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', '', '', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.usage_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'one', 1, 0, 1, 2, 0, 0, 0, 2000, 2000, 1, 0);
INSERT INTO public.usage_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'two', 2, 0, 2, 4, 0, 0, 0, 4000, 4000, 2, 0);
INSERT INTO public.usage_user_days VALUES (1795910400000, '', '', 'm', 'one', '', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_user_days VALUES (1795910400000, '', '', 'm', 'two', '', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_user_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', '', '', '', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.usage_user_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'one', 'alice', 1, 0, 1, 2, 0, 0, 0, 2000, 2000, 1, 0);
INSERT INTO public.usage_user_days VALUES (1795910400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'two', 'alice', 2, 0, 2, 4, 0, 0, 0, 4000, 4000, 2, 0);
INSERT INTO public.usage_user_hours VALUES (1795964400000, '', '', 'm', 'one', '', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_user_hours VALUES (1795964400000, '', '', 'm', 'two', '', 0, 0, 0, 0, 0, 0, 0, 0, 114000, 1, 0);
INSERT INTO public.usage_user_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', '', '', '', 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0);
INSERT INTO public.usage_user_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'one', 'alice', 1, 0, 1, 2, 0, 0, 0, 2000, 2000, 1, 0);
INSERT INTO public.usage_user_hours VALUES (1795964400000, 'proj_4fd26ec7a781f5c1', 'key_8e89140168f7f19c', 'm', 'two', 'alice', 2, 0, 2, 4, 0, 0, 0, 4000, 4000, 2, 0);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.budget_alerts
    ADD CONSTRAINT budget_alerts_pkey PRIMARY KEY (subject, per, window_ms, amount_nano_usd, percent);
ALTER TABLE ONLY public.end_users
    ADD CONSTRAINT end_users_pkey PRIMARY KEY (project_id, id);
ALTER TABLE ONLY public.holds
    ADD CONSTRAINT holds_pkey PRIMARY KEY (subject, process);
ALTER TABLE ONLY public.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (name);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_digest_key UNIQUE (digest);
ALTER TABLE ONLY public.keys
    ADD CONSTRAINT keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.refusals
    ADD CONSTRAINT refusals_pkey PRIMARY KEY (at_ms, project_id, key_id, reason);
ALTER TABLE ONLY public.space_proofs
    ADD CONSTRAINT space_proofs_pkey PRIMARY KEY (deployment, input_type);
ALTER TABLE ONLY public.space_references
    ADD CONSTRAINT space_references_pkey PRIMARY KEY (model, revision, input_type);
ALTER TABLE ONLY public.usage_days
    ADD CONSTRAINT usage_days_pkey PRIMARY KEY (at_ms, project_id, key_id, model, provider);
ALTER TABLE ONLY public.usage_hours
    ADD CONSTRAINT usage_hours_pkey PRIMARY KEY (at_ms, project_id, key_id, model, provider);
ALTER TABLE ONLY public.usage
    ADD CONSTRAINT usage_lines PRIMARY KEY (id, line);
ALTER TABLE ONLY public.usage_user_days
    ADD CONSTRAINT usage_user_days_pkey PRIMARY KEY (at_ms, project_id, key_id, model, provider, end_user);
ALTER TABLE ONLY public.usage_user_hours
    ADD CONSTRAINT usage_user_hours_pkey PRIMARY KEY (at_ms, project_id, key_id, model, provider, end_user);
CREATE INDEX audit_by_time ON public.audit USING btree (at_ms);
CREATE INDEX keys_by_issuer ON public.keys USING btree (issued_by);
CREATE UNIQUE INDEX keys_by_previous_digest ON public.keys USING btree (previous_digest);
CREATE INDEX keys_by_project ON public.keys USING btree (project_id);
CREATE INDEX usage_by_time ON public.usage USING btree (at_ms);
CREATE INDEX usage_days_by_key ON public.usage_days USING btree (key_id, at_ms);
CREATE INDEX usage_days_by_project ON public.usage_days USING btree (project_id, at_ms);
CREATE INDEX usage_hours_by_key ON public.usage_hours USING btree (key_id, at_ms);
CREATE INDEX usage_hours_by_project ON public.usage_hours USING btree (project_id, at_ms);
CREATE INDEX usage_user_days_by_end_user ON public.usage_user_days USING btree (project_id, end_user, at_ms);
CREATE INDEX usage_user_hours_by_end_user ON public.usage_user_hours USING btree (project_id, end_user, at_ms);
