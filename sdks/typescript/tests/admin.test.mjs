import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthenticationError, EmbedwayError, NotFoundError, SDK } from "@embedway/sdk";

const { organization } = new SDK({ bearerAuth: process.env.EMBEDWAY_ADMIN_KEY });
const { projects } = organization;

/** Reads all items of all pages. */
async function read(page) {
  const items = [];
  for await (const each of await page) items.push(each);
  return items;
}

test("A project is created, read, changed, listed and archived.", async () => {
  const made = await projects.create({ name: "web", budgets: [{ amount_usd: 25, per: "month" }] });
  assert.equal(made.object, "organization.project");
  assert.equal((await projects.get(made.id)).name, "web");
  assert.equal((await projects.update(made.id, { name: "shop" })).name, "shop");
  const ids = async (query) => (await read(projects.list(query))).map((each) => each.id);
  assert((await ids()).includes(made.id));
  assert.equal((await projects.archive(made.id)).status, "archived");
  assert(!(await ids()).includes(made.id));
  assert((await ids({ include_archived: true })).includes(made.id));
});

test("A list goes on over its pages.", async () => {
  const names = ["one", "two", "three", "four", "five"];
  for (const name of names) await projects.create({ name: `page ${name}` });
  const page = await projects.list({ limit: 2 });
  assert.equal(page.data.length, 2);
  assert.equal(page.hasMore, true);
  const next = await page.nextPage();
  assert.notEqual(next.data[0].id, page.data[0].id);
  const found = (await read(page)).map((each) => each.name);
  for (const name of names) assert(found.includes(`page ${name}`));
  assert.equal(new Set(found).size, found.length);
  const last = await projects.list({ limit: 100 });
  assert.equal(await last.nextPage(), null);
});

test("A key of a project is created, read, changed, rotated, listed and revoked.", async () => {
  const { id } = await projects.create({ name: "keys" });
  const made = await projects.apiKeys.create(id, { name: "first", scopes: ["embeddings"] });
  assert.match(made.value, /^sk-gateway-/);
  const embed = (bearerAuth) =>
    new SDK({ bearerAuth }).llm.embeddings.embed({ embeddingsRequest: { input: "one" } });
  assert.equal((await embed(made.value)).data.length, 1);
  const shown = await projects.apiKeys.get(id, made.id);
  assert.equal(shown.name, "first");
  assert(!("value" in shown));
  assert.equal((await projects.apiKeys.update(id, made.id, { name: "second" })).name, "second");
  const rotated = await projects.apiKeys.rotate(id, made.id, { grace_seconds: 0 });
  assert.notEqual(rotated.value, made.value);
  assert.equal((await embed(rotated.value)).data.length, 1);
  assert.match((await projects.apiKeys.rotate(id, made.id)).value, /^sk-gateway-/);
  assert.deepEqual(
    (await read(projects.apiKeys.list(id))).map((each) => each.id),
    [made.id],
  );
  assert.equal((await projects.apiKeys.delete(id, made.id)).deleted, true);
  assert.deepEqual(await read(projects.apiKeys.list(id)), []);
  await eventually(() => assert.rejects(embed(rotated.value), AuthenticationError));
});

test("An end user is set, read, changed, listed and removed.", async () => {
  const { id } = await projects.create({ name: "users" });
  const { endUsers } = projects;
  const name = "ada/lovelace? &#+%2F";
  const made = await endUsers.set(id, { id: name, blocked: true });
  assert.equal(made.blocked, true);
  assert.equal((await endUsers.get(id, name)).id, name);
  assert.equal((await endUsers.update(id, name, { blocked: false })).blocked, false);
  assert.deepEqual(
    (await read(endUsers.list(id))).map((each) => each.id),
    [name],
  );
  assert.equal((await endUsers.delete(id, name)).deleted, true);
  assert.deepEqual(await read(endUsers.list(id)), []);
});

test("An admin key is created, read, rotated, listed and revoked.", async () => {
  const keys = organization.adminApiKeys;
  const made = await keys.create({ name: "platform" });
  assert.equal((await keys.get(made.id)).name, "platform");
  assert.notEqual((await keys.rotate(made.id)).value, made.value);
  assert((await read(keys.list({ limit: 1 }))).some((each) => each.id === made.id));
  assert.equal((await keys.delete(made.id)).deleted, true);
});

test("The audit log says who did what.", async () => {
  const { id } = await projects.create({ name: "audited" });
  const query = { "project_ids[]": [id], "event_types[]": ["project.created"] };
  const events = await read(organization.auditLogs.list(query));
  assert.equal(events.length, 1);
  assert.equal(events[0].type, "project.created");
});

test("Usage, costs and refused requests are reported by bucket.", async () => {
  const { id } = await projects.create({ name: "used" });
  const { value } = await projects.apiKeys.create(id, { name: "used" });
  const { embeddings } = new SDK({ bearerAuth: value }).llm;
  const metadata = { team: "search" };
  await embeddings.embed({ embeddingsRequest: { input: ["one", "two"], metadata } });
  await embeddings.embed({ embeddingsRequest: { input: "three" } });
  await assert.rejects(
    embeddings.embed({ embeddingsRequest: { input: "x", model: "none" } }),
    NotFoundError,
  );
  const start_time = Math.floor(Date.now() / 1000) - 2 * 86_400;
  const query = { start_time, project_ids: [id], group_by: ["model"], limit: 1 };

  const requests = async (query) => {
    const buckets = await read(organization.usage.embeddings(query));
    assert(buckets.length > 1, "It goes on over pages.");
    const results = buckets.flatMap((each) => each.results);
    return results.reduce((sum, each) => sum + each.num_model_requests, 0);
  };
  assert.equal(await requests(query), 2);
  assert.equal(await requests({ ...query, "metadata.team": ["search"] }), 1);

  const costs = await read(organization.usage.costs({ start_time, project_ids: [id] }));
  assert.equal(costs.flatMap((each) => each.results)[0].amount.currency, "usd");
  await eventually(async () => {
    const refusals = await read(organization.usage.refusals({ start_time, project_ids: [id] }));
    assert(refusals.flatMap((each) => each.results).length > 0);
  });
});

test("A key is exchanged for a token of one end user.", async () => {
  const sdk = new SDK();
  const { token, expiresAt } = await sdk.authentication.exchangeToken({
    externalUserId: "ada",
    expiresIn: 600,
    permissions: ["embeddings"],
  });
  assert(expiresAt > Date.now() / 1000);
  const bearer = new SDK({ bearerAuth: token }).llm.embeddings;
  assert.equal((await bearer.embed({ embeddingsRequest: { input: "one" } })).data.length, 1);
  await assert.rejects(
    sdk.authentication.exchangeToken({ externalUserId: "ada", audience: "nobody" }),
    EmbedwayError,
  );
});

test("An id that would lead elsewhere is refused.", () => {
  for (const id of ["", ".", ".."]) assert.throws(() => projects.get(id), EmbedwayError);
});

/** Repeats a check until it passes; the last failure is raised. */
async function eventually(check) {
  for (let left = 200; ; left--) {
    try {
      return await check();
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
