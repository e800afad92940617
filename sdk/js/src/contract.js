// What crosses to the host: arguments of the contract's types, and texts that UTF-8 has a place for.

// The parameters of each host function, as in llmasos.wit.
const PARAMETERS = {
  "output.chunk": ["text"],
  "output.progress": ["number", "text"],
  "log.write": ["text", "text"],
  "config.read": [],
  "model.generate": ["text"],
  "model.open": ["text"],
  "model.read": ["count"],
  "model.close": ["count"],
  "model.embed": ["text"],
  "model.count-tokens": ["text"],
  "storage.get": ["text"],
  "storage.put": ["text", "text", "flag"],
  "storage.compare-and-set": ["text", "count?", "text", "flag"],
  "storage.delete": ["text"],
  "storage.keys": ["text", "text?", "count"],
  "http.request": ["text"],
  "secrets.names": [],
  "apps.call": ["text", "text", "text"],
};

const FITS = {
  text: (value) => typeof value === "string",
  flag: (value) => typeof value === "boolean",
  number: (value) => Number.isFinite(value),
  count: (value) => Number.isSafeInteger(value) && value >= 0,
};

/** Halves of a character that stand alone cannot cross to the host: they become the sign for a lost one. */
export const wellFormed = (text) =>
  text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");

// One escape at a time, so that an escaped backslash is never taken for the beginning of another.
const ESCAPE = /\\(?:ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(ud[89a-f][0-9a-f]{2})|[^])/gi;

/** A value as JSON text. `JSON.stringify` writes half a character as an escape, which no strict reader takes. */
export function jsonText(value) {
  const text = JSON.stringify(value);
  if (text === undefined) return undefined;
  return wellFormed(text.includes("\\ud") ? text.replace(ESCAPE, (found, half) => (half ? "\ufffd" : found)) : text);
}

/**
 * The arguments of a call as the contract carries them.
 *
 * QuickJS's binding aborts the component at an argument of another type, so each is checked before.
 */
export function carried(capability, name, sent) {
  const parameters = PARAMETERS[`${capability}.${name}`];
  return (parameters ?? []).map((parameter, at) => {
    const [kind, optional] = [parameter.replace("?", ""), parameter.endsWith("?")];
    // 64-bit numbers are Numbers to the binding, but an author's own code may have made a BigInt of one.
    const value = kind === "count" && typeof sent[at] === "bigint" ? Number(sent[at]) : sent[at];
    if (optional && (value === undefined || value === null)) return undefined;
    if (!FITS[kind](value)) {
      const given = value === null ? "null" : Array.isArray(value) ? "an array" : `${typeof value} ${String(value)}`;
      throw new TypeError(`${capability}.${name}: argument ${at + 1} is a ${kind}, not ${given.slice(0, 60).trim()}`);
    }
    return kind === "text" ? wellFormed(value) : value;
  });
}
