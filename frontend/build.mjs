// Bundles the editor, copies the font of formulas, and gathers the licences of all that is in them:
// `node build.mjs FOLDER`, by default where `kata web` looks.
import { copyFile, mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const out = process.argv[2] ?? "../grader/web/assets";
const font = "@fontsource/stix-two-math";

await mkdir(out, { recursive: true });
const { metafile } = await build({
  entryPoints: ["src/editor.js"],
  outfile: `${out}/editor.js`,
  bundle: true,
  format: "iife",
  globalName: "codemirror",
  legalComments: "none", // the licences are in a file of their own
  metafile: true,
  minify: true,
  target: "es2022",
});
await copyFile(`node_modules/${font}/files/stix-two-math-latin-400-normal.woff2`, `${out}/stix-two-math.woff2`);

const bundled = Object.keys(metafile.inputs).map(path => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
const texts = [];
for (const name of [...new Set([...bundled, font])].filter(Boolean).sort()) {
  const folder = `node_modules/${name}`;
  const { version, license } = JSON.parse(await readFile(`${folder}/package.json`, "utf8"));
  const file = (await readdir(folder)).find(entry => /^licen[cs]e/i.test(entry));
  if (file === undefined) throw new Error(`${name} has no licence file`);
  texts.push(`${name} ${version} (${license})\n\n${await readFile(`${folder}/${file}`, "utf8")}`);
}
await writeFile(`${out}/LICENSES.txt`, texts.join("\n\n"));
