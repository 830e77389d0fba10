/** What is published: that it is complete, current, small, and works where it is installed. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { types } from "../generate.mjs";
import { programs, quickStart } from "./readme.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const bin = (name) => join(root, "node_modules/.bin", name);
const folder = mkdtempSync(join(tmpdir(), "embedway-package-"));
const folders = mkdtempSync(join(tmpdir(), "embedway-clone-"));
let tarball;

before(async () => {
  // The build is there already; a new one would disturb other tests.
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [packed] = JSON.parse((await run("npm", pack, { cwd: root })).stdout);
  tarball = join(folder, packed.filename);
  writeFileSync(join(folder, "package.json"), "{}");
  const install = ["install", "--offline", "--no-audit", "--no-fund", tarball];
  await run("npm", install, { cwd: folder });
});

after(() => {
  for (const each of [folder, folders]) rmSync(each, { recursive: true, force: true });
});

test("The package has no dependency and no file that is not to be published.", async () => {
  assert.deepEqual(readdirSync(join(folder, "node_modules/@embedway/sdk")).sort(), [
    "LICENSE",
    "README.md",
    "dist",
    "package.json",
  ]);
  const installed = readdirSync(join(folder, "node_modules"));
  assert.deepEqual(
    installed.filter((name) => !name.startsWith(".")),
    ["@embedway"],
  );
});

test("The quick start is of five lines and runs, as an ES module.", async () => {
  assert(programs[0].trim().split("\n").length <= 5);
  const file = join(folder, "quick.mjs");
  writeFileSync(file, quickStart);
  const { stdout } = await run("node", [file], { cwd: folder });
  assert.match(stdout, /Float32Array\(384\)/);
  assert.match(stdout, /promptTokens: 6/);
});

test("A clone in which `npm install` ran is installed with one command, as README.md says.", async () => {
  const clone = join(folders, "clone");
  const project = join(folders, "project");
  mkdirSync(project);
  for (const name of ["package.json", "package-lock.json", ".npmrc", "src"]) {
    cpSync(join(root, name), join(clone, name), { recursive: true });
  }
  for (const name of readdirSync(root).filter((each) => each.startsWith("tsconfig"))) {
    cpSync(join(root, name), join(clone, name));
  }
  // What `npm install` in the clone would download. The build has yet to be made.
  symlinkSync(join(root, "node_modules"), join(clone, "node_modules"));
  const install = ["install", "--offline", "--no-audit", "--no-fund", "../clone"];
  await run("npm", install, { cwd: project });
  const file = join(project, "quick.mjs");
  writeFileSync(file, quickStart);
  const { stdout } = await run("node", [file], { cwd: project });
  assert.match(stdout, /Float32Array\(384\)/);
});

test("CommonJS works where it is installed.", async () => {
  const file = join(folder, "program.cjs");
  writeFileSync(
    file,
    `const { SDK, NotFoundError } = require("@embedway/sdk");
     const { embed } = require("@embedway/sdk/embed");
     (async () => {
       const sdk = new SDK();
       const result = await sdk.llm.embeddings.embed({ embeddingsRequest: { input: "one" } });
       const error = await embed({ input: "one", model: "none" }).catch((each) => each);
       console.log(result.data[0].embedding.length, error instanceof NotFoundError);
     })();`,
  );
  const { stdout } = await run("node", [file], { cwd: folder });
  assert.equal(stdout, "384 true\n");
});

test("All programs of the README compile where it is installed.", async () => {
  const context = `
    declare const sdk: import("@embedway/sdk").SDK;
    declare const lines: AsyncIterable<string>;
    declare const token: string;
    declare function store(index: number, vector: Float32Array): Promise<void>;`;
  const files = programs.map((program, index) => {
    const imports = program.match(/^import .*$/gm) ?? [];
    const body = program.replaceAll(/^import .*$/gm, "");
    const name = join(folder, `readme${index}.ts`);
    writeFileSync(
      name,
      `${imports.join("\n")}${context}\n{\nasync () => {\n${body}\n};\n}\nexport {};\n`,
    );
    return name;
  });
  assert(files.length > 5);
  const compilerOptions = {
    ...{ module: "nodenext", target: "es2022", lib: ["es2022", "dom", "dom.asynciterable"] },
    ...{ types: [], noEmit: true, strict: true, exactOptionalPropertyTypes: true },
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
  await run(bin("tsc"), ["-p", folder]).catch(fail);
});

test("Its types resolve in every way of importing it.", async () => {
  await run(bin("attw"), [tarball], { cwd: folder }).catch(fail);
  await run(bin("publint"), [tarball, "--strict"], { cwd: folder }).catch(fail);
});

test("Its types say `any` nowhere.", () => {
  const names = readdirSync(join(root, "dist"), { recursive: true }).filter((name) =>
    name.endsWith(".d.ts"),
  );
  assert(names.includes("esm/index.d.ts") && names.includes("cjs/embed.d.ts"));
  for (const name of names) {
    const code = readFileSync(join(root, "dist", name), "utf8")
      .replaceAll(/\/\*.*?\*\/|\/\/.*$/gms, "")
      .replaceAll(/"[^"\n]*"/g, '""');
    assert(!/\bany\b/.test(code), name);
  }
});

test("The function alone is smaller than 5 KB, and has nothing of the rest.", async () => {
  const bundle = async (entry) => {
    const { outputFiles } = await build({
      stdin: { contents: entry, resolveDir: root },
      bundle: true,
      minify: true,
      format: "esm",
      platform: "browser",
      write: false,
      logLevel: "error",
    });
    return outputFiles[0].contents;
  };
  const alone = await bundle('export { embed } from "@embedway/sdk/embed";');
  const size = gzipSync(alone, { level: 9 }).length;
  assert(size < 5120, `It has ${size} bytes.`);
  assert(!/organization|SpaceMismatch/.test(Buffer.from(alone).toString()));
  const nothing = await bundle('import "@embedway/sdk"; import "@embedway/sdk/embed";');
  assert.equal(nothing.length, 0);
});

test("The types are those of the gateway's OpenAPI description.", async () => {
  const current = await types(process.env.EMBEDWAY_BASE_URL);
  assert(
    readFileSync(join(root, "src/openapi.ts"), "utf8") === current,
    "src/openapi.ts is not current. README.md says how to write it anew.",
  );
});

function fail({ message, stdout, stderr }) {
  assert.fail(`${message}\n${stdout}\n${stderr}`);
}
