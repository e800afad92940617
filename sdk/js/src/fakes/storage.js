// Storage in memory, with the host's rules.

import { encodeUtf8, fromBase64 } from "../bytes.js";
import { Conflict, Invalid, NotFound, QuotaExceeded } from "../errors.js";

const MAX_KEY_BYTES = 512;
const MAX_PAGE = 1000;

/** Keeps values by key, counts versions and bytes, and compares before it sets. */
export class MemoryStorage {
  #values = new Map();
  // Versions never repeat, also across a delete.
  #deletedVersion = 0;

  /** `values` are texts by key; `maxBytes` is what keys and values may hold together, as the permission's. */
  constructor({ values = {}, maxBytes = 1 << 20 } = {}) {
    this.maxBytes = maxBytes;
    for (const [key, value] of Object.entries(values)) this.#write(key, value, false);
  }

  get values() {
    return Object.fromEntries([...this.#values].map(([key, entry]) => [key, entry.value]));
  }

  call(name, ...sent) {
    switch (name) {
      case "get":
        checkKey(sent[0]);
        return this.#values.has(sent[0]) ? JSON.stringify(this.#values.get(sent[0])) : undefined;
      case "put":
        return this.#write(...sent);
      case "compare-and-set": {
        const [key, expected, value, base64] = sent;
        checkKey(key);
        sizeOf(value, base64);
        const there = this.#values.get(key)?.version;
        if (there !== (expected ?? undefined)) throw new Conflict(`${key} has version ${there}, not ${expected}`);
        return this.#write(key, value, base64);
      }
      case "delete":
        checkKey(sent[0]);
        this.#deletedVersion = Math.max(this.#deletedVersion, this.#values.get(sent[0])?.version ?? 0);
        return this.#values.delete(sent[0]);
      case "keys": {
        const [prefix, after, limit] = sent;
        checkText(prefix);
        checkText(after ?? "");
        if (limit < 1 || limit > MAX_PAGE) throw new Invalid(`limit is from 1 to ${MAX_PAGE}`);
        const found = [...this.#values.keys()].filter((key) => key.startsWith(prefix)).sort(byCodePoint);
        return found.filter((key) => after == null || byCodePoint(key, after) > 0).slice(0, limit);
      }
      default:
        throw new NotFound(`storage has no function ${name}`);
    }
  }

  #write(key, value, base64) {
    checkKey(key);
    let total = encodeUtf8(key).length + sizeOf(value, base64);
    for (const [each, entry] of this.#values) {
      if (each !== key) total += encodeUtf8(each).length + sizeOf(entry.value, entry.base64);
    }
    if (total > this.maxBytes) {
      throw new QuotaExceeded(`storage holds at most ${this.maxBytes} bytes, keys counted; delete something first`);
    }
    const version = (this.#values.get(key)?.version ?? this.#deletedVersion) + 1;
    this.#values.set(key, { value, base64, version });
    return version;
  }
}

function sizeOf(value, base64) {
  if (base64) return fromBase64(value).length;
  checkText(value);
  return encodeUtf8(value).length;
}

function checkText(text) {
  if (text.includes("\0")) throw new Invalid("a text has no NUL characters: store bytes");
}

function checkKey(key) {
  if (/[\0-\x1f\x7f-\x9f]/.test(key)) throw new Invalid("a key has no control characters");
  const size = encodeUtf8(key).length;
  if (size < 1 || size > MAX_KEY_BYTES) throw new Invalid(`a key has from 1 to ${MAX_KEY_BYTES} bytes`);
}

// The host orders keys by their code points; JavaScript compares halves of characters.
function byCodePoint(one, other) {
  const [left, right] = [[...one], [...other]];
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    if (left[at] !== right[at]) return left[at].codePointAt(0) - right[at].codePointAt(0);
  }
  return left.length - right.length;
}
