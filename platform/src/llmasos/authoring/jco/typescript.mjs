// Lets Node.js run the TypeScript of an app and of its tests, whatever its version: `node --import` this file. The
// modules are found and transformed as a build does it, by the tools whose address is in LLMASOS_ROLLDOWN.

import { readFile } from "node:fs/promises";
import { register } from "node:module";
import { fileURLToPath } from "node:url";
import { isMainThread } from "node:worker_threads";

if (isMainThread) register(import.meta.url);

const TYPESCRIPT = /\.m?ts$/;
const { transform } = isMainThread ? {} : await import(process.env.LLMASOS_ROLLDOWN);

/** A build finds `./words`, and `./words.js` that is written in TypeScript; Node.js finds neither. */
export async function resolve(specifier, context, next) {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!/^\.\.?\//.test(specifier)) throw error;
    for (const name of [`${specifier}.ts`, `${specifier}.js`, specifier.replace(/\.(m?)js$/, ".$1ts"), `${specifier}/index.ts`]) {
      try {
        return await next(name, context);
      } catch {
        // the next one
      }
    }
    throw error;
  }
}

export async function load(url, context, next) {
  if (!url.startsWith("file:") || !TYPESCRIPT.test(url)) return next(url, context);
  const path = fileURLToPath(url);
  const { code, map, errors } = await transform(path, await readFile(path, "utf8"), { sourcemap: true });
  if (errors.length > 0) throw new SyntaxError(`${path}: ${errors[0].message}`);
  const inline = Buffer.from(JSON.stringify(map)).toString("base64");
  const source = `${code}\n//# sourceMappingURL=data:application/json;base64,${inline}\n`;
  return { format: "module", shortCircuit: true, source };
}
