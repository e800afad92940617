// Where in the author's own files an error happened. An app is bundled into one script, and the build adds the map of
// that script as the global `llmasosMap`: `{file, offset, sources, mappings}` (ECMA-426). A test in Node.js has no map,
// and its stacks name the author's files.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
// What stacks call the script of a component. While an app is developed it has the SDK alone.
const SCRIPT = "/bundle.js";
// As QuickJS writes it: `    at name (/bundle.js:818:33)`.
const FRAME = /^(.*?at .*?\()([^()]+):(\d+):(\d+)\)$/;
// As Node.js writes it: `    at name (file:///folder/app.js:3:4)`.
const NODE_FRAME = /[( ](?:file:\/\/)?(\/[^()]*):(\d+):\d+\)?$/;
const SDK = /\/(@llmasos\/sdk|sdk\/js)\/src\//;

/** Base64 VLQ: five bits a digit, the lowest first; the sign is the first bit. */
function numbers(text) {
  const found = [];
  let value = 0;
  let shift = 0;
  for (const character of text) {
    const digit = DIGITS.indexOf(character);
    value |= (digit & 31) << shift;
    shift += 5;
    if (digit & 32) continue;
    found.push(value & 1 ? -(value >> 1) : value >> 1);
    value = shift = 0;
  }
  return found;
}

/** The source and the line of a place in the bundled script; undefined if it is none of the author's. */
function sourceOf({ sources, mappings, offset }, line, column) {
  const at = line - 1 - offset;
  let [source, sourceLine, number, found] = [0, 0, 0, undefined];
  for (const segments of mappings.split(";")) {
    if (number > at) break;
    let start = 0;
    for (const segment of segments === "" ? [] : segments.split(",")) {
      const [columns, moreSources, moreLines] = numbers(segment);
      start += columns;
      if (moreSources === undefined) continue;
      source += moreSources;
      sourceLine += moreLines;
      if (number === at && (found === undefined || start < column)) found = [sources[source], sourceLine + 1];
    }
    number += 1;
  }
  return found?.[0].startsWith("src/") || found?.[0].includes("node_modules/") ? found : undefined;
}

/** The lines of a stack, with their places in the author's files, and without the SDK's. Other lines stay. */
// Loops, since each call of a function takes much of the little stack that a component has.
function linesOf(stack) {
  const map = globalThis.llmasosMap;
  const found = [];
  for (const text of stack.split("\n")) {
    const [, start, file, line, column] = (map && FRAME.exec(text)) ?? [];
    if (file === undefined || (file !== map.file && file !== SCRIPT)) {
      found.push({ text });
      continue;
    }
    const place = file === map.file ? sourceOf(map, Number(line), Number(column)) : undefined;
    if (place === undefined) continue;
    const name = place[0].replace("src/", "");
    found.push({ text: `${start}${name}:${place[1]})`, name, line: place[1] });
  }
  return found;
}

/** A text in which the lines of a stack name the author's places, without those of the SDK. */
export function withPlaces(text) {
  if (!text.includes("    at ")) return text;
  const texts = [];
  for (const line of linesOf(text)) texts.push(line.text);
  return texts.join("\n");
}

/** The author's line that led to an error, such as ` (app.js, line 3)`; empty if it is not known. */
export function placeOf(error) {
  const stack = String(error?.stack ?? "");
  const lines = globalThis.llmasosMap === undefined ? linesOfNode(stack) : linesOf(stack);
  const found = lines.find(({ name }) => name !== undefined && !name.includes("node_modules/"));
  return found === undefined ? "" : ` (${found.name}, line ${found.line})`;
}

/** The places in a stack of Node.js, without the SDK's, from the folder that the tests run in. */
function linesOfNode(stack) {
  const folder = `${globalThis.process?.cwd?.()}/`;
  return stack.split("\n").flatMap((text) => {
    const [, file, line] = NODE_FRAME.exec(text) ?? [];
    if (file === undefined || SDK.test(file)) return [];
    return [{ name: file.startsWith(folder) ? file.slice(folder.length) : file.split("/").at(-1), line }];
  });
}

/** What an error says, and its stack. */
export function traceOf(error) {
  if (!(error instanceof Error)) return String(error);
  const said = `${error.name}: ${error.message}`;
  const stack = String(error.stack ?? "").trimEnd();
  // V8 begins a stack with what was said, QuickJS does not.
  return stack.startsWith(error.name) ? stack : `${said}\n${stack}`;
}
