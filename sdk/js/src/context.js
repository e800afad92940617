// What an action gets: the capabilities that the manifest declared, and nothing else.

import { carriedValue, decodeUtf8, encodeUtf8, fromBase64, toBase64 } from "./bytes.js";
import { jsonText } from "./contract.js";
import { CapabilityNotDeclared, Conflict, Message, PermissionDeclined } from "./errors.js";
import { ModelClient } from "./model.js";

const PAGE = 200;
// Two runs that write the same key meet once in a while; eight rounds lost in a row mean something else is wrong.
const ATTEMPTS = 8;

/** A stored value and its version. */
class Entry {
  #stored;

  constructor(stored) {
    this.#stored = stored;
    this.version = stored.version;
  }

  /** The value as bytes. */
  get value() {
    return this.#stored.base64 ? fromBase64(this.#stored.value) : encodeUtf8(this.#stored.value);
  }

  /** The value as text; bytes that are no UTF-8 have none. */
  get text() {
    if (!this.#stored.base64) return this.#stored.value;
    const text = decodeUtf8(this.value);
    if (toBase64(encodeUtf8(text)) !== this.#stored.value) throw new TypeError("the value is bytes that are no text: use getBytes");
    return text;
  }

  json() {
    return JSON.parse(this.text);
  }
}

class StorageClient {
  #host;

  constructor(host) {
    this.#host = host;
  }

  /** The value and its version, or undefined. */
  entry(key) {
    const answer = this.#host.call("storage", "get", key);
    return answer === undefined || answer === null ? undefined : new Entry(JSON.parse(answer));
  }

  get(key, missing = undefined) {
    return this.entry(key)?.text ?? missing;
  }

  getBytes(key) {
    return this.entry(key)?.value;
  }

  getJson(key, missing = undefined) {
    const entry = this.entry(key);
    return entry === undefined ? missing : entry.json();
  }

  /** Write a text or a Uint8Array, and return the new version. */
  put(key, value) {
    return Number(this.#host.call("storage", "put", key, ...carriedValue(value)));
  }

  putJson(key, value) {
    return this.put(key, jsonText(value));
  }

  /** Write only while the key has the version `expected`, or, for undefined, while it is absent. */
  compareAndSet(key, expected, value) {
    return Number(this.#host.call("storage", "compare-and-set", key, expected, ...carriedValue(value)));
  }

  /** Read, change and write a JSON value so that no concurrent write is lost. */
  updateJson(key, change, missing = undefined) {
    for (let attempt = 1; ; attempt += 1) {
      const entry = this.entry(key);
      const changed = change(entry === undefined ? missing : entry.json());
      try {
        this.compareAndSet(key, entry?.version, jsonText(changed));
        return changed;
      } catch (error) {
        if (!(error instanceof Conflict) || attempt === ATTEMPTS) throw error;
      }
    }
  }

  delete(key) {
    return this.#host.call("storage", "delete", key);
  }

  *keys(prefix = "") {
    let after;
    for (;;) {
      const page = this.#host.call("storage", "keys", prefix, after, PAGE);
      yield* page;
      if (page.length < PAGE) return;
      after = page[page.length - 1];
    }
  }
}

/** The answer to a request. `body` is its text; `bytes` returns it as it came. */
class Response {
  #bytes;

  constructor(answer, url) {
    this.status = answer.status;
    this.url = answer.url ?? url;
    this.headers = Object.fromEntries(Object.entries(answer.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]));
    this.#bytes = answer.base64 ? fromBase64(answer.body) : undefined;
    this.body = this.#bytes === undefined ? answer.body : decodeUtf8(this.#bytes);
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  bytes() {
    return this.#bytes ?? encodeUtf8(this.body);
  }

  json() {
    return JSON.parse(this.body);
  }
}

class HttpClient {
  #host;

  constructor(host) {
    this.#host = host;
  }

  /** Send one request. `body` is a text or a Uint8Array; `json` a value to send instead of it. */
  request(method, url, { headers = {}, body, json } = {}) {
    const request = { method, url, headers: { ...headers } };
    if (json !== undefined) {
      request.headers = { "content-type": "application/json", ...headers };
      request.body = jsonText(json);
    } else if (body !== undefined) {
      const [carried, base64] = carriedValue(body);
      request.body = carried;
      if (base64) request.base64 = true;
    }
    return new Response(JSON.parse(this.#host.call("http", "request", jsonText(request))), url);
  }

  get(url, options = {}) {
    return this.request("GET", url, options);
  }

  post(url, options = {}) {
    return this.request("POST", url, options);
  }
}

class SecretsClient {
  #host;

  constructor(host) {
    this.#host = host;
  }

  names() {
    return this.#host.call("secrets", "names");
  }
}

class AppsClient {
  #host;

  constructor(host) {
    this.#host = host;
  }

  call(app, action, inputs = {}) {
    return JSON.parse(this.#host.call("apps", "call", app, action, jsonText(inputs)));
  }
}

const CLIENTS = {
  model: [ModelClient, 'tiers = ["fast"]'],
  storage: [StorageClient, "max_bytes = 1048576"],
  http: [HttpClient, 'hosts = ["https://api.example.com"]'],
  secrets: [
    SecretsClient,
    'secrets = [{ name = "api_key", host = "https://api.example.com", header = "authorization" }]',
  ],
  apps: [AppsClient, 'apps = ["publisher/name"]'],
};

function undeclared(name, line) {
  return new CapabilityNotDeclared(
    new Message("ctx.{name} is not there: llmapp.toml does not declare it. Add:\n\n{lines}\n", {
      name,
      lines: `[[permissions]]\ncapability = "${name}"\n${line}\nreason.en = "Say here what the app needs it for."`,
    }),
  );
}

/** A fraction from 0 to 1; what is no number of any size is none of it. */
const shareOf = (given) => (typeof given === "number" ? Math.min(1, Math.max(0, Number.isNaN(given) ? 0 : given)) : given);

/** The error of an action that used a declined capability as if it were there. */
export function declined(name) {
  return new PermissionDeclined(
    new Message(
      'The app may not use {name}: its user declined that, or took it back. The app can ask ctx.has("{name}") ' +
        "first and do without; to allow it, install the app again.",
      { name },
    ),
  );
}

/** One invocation, as its action sees it. A capability that the manifest does not declare throws; a declined one is undefined. */
export class Context {
  #host;
  #settings;

  /** `missed` gets the names of the declined capabilities that the action looked for. */
  constructor(host, missed = new Set()) {
    this.#host = host;
    this.output = {
      progress: (fraction, message = "") =>
        host.call("output", "progress", shareOf(fraction), String(message)),
    };
    const write = (level) => (message) => host.call("log", "write", level, String(message));
    this.log = { debug: write("debug"), info: write("info"), warning: write("warning"), error: write("error") };
    for (const [name, [Client, line]] of Object.entries(CLIENTS)) {
      let client;
      Object.defineProperty(this, name, {
        get: () => {
          if (!host.capabilities.has(name)) throw undeclared(name, line);
          if (this.has(name)) return (client ??= new Client(host));
          missed.add(name);
          return undefined;
        },
      });
    }
  }

  #read() {
    this.#settings ??= JSON.parse(this.#host.call("config", "read"));
    return this.#settings;
  }

  /** What the installer chose, defaults filled in. */
  get config() {
    return Object.freeze({ ...this.#read().values });
  }

  /** Whether the action may use a capability: declared, and granted. An optional permission may have been declined. */
  has(capability) {
    const { granted } = this.#read();
    return this.#host.capabilities.has(capability) && (granted === undefined || granted.includes(capability));
  }

  /** The language of whoever runs the action: `en` or `zh`. */
  get locale() {
    return this.#read().locale ?? "en";
  }
}
