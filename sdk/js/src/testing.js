// Fakes for an app's own tests: they behave as the host does, and need none.

import { App, AppError, Conflict, Context, Denied, NotFound, QuotaExceeded } from "./index.js";

const tokens = (text) => text.match(/[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu) ?? [];

/** Answers in the order of its script, and keeps the requests it got. A last function answers every call from there. */
export class ScriptedModel {
  requests = [];
  #script;
  #streams = new Map();
  #opened = 0;

  constructor(...script) {
    this.#script = script;
  }

  answers(...script) {
    this.#script.push(...script);
  }

  get openStreams() {
    return this.#streams.size;
  }

  call(name, ...sent) {
    switch (name) {
      case "generate":
        return JSON.stringify(this.#complete(JSON.parse(sent[0])));
      case "open":
        this.#opened += 1;
        this.#streams.set(this.#opened, chunksOf(this.#complete(JSON.parse(sent[0]))));
        return this.#opened;
      case "read": {
        const parts = this.#streams.get(sent[0]);
        if (parts === undefined) throw new NotFound(`there is no open stream ${sent[0]}`);
        if (parts.length > 0) return JSON.stringify(parts.shift());
        this.#streams.delete(sent[0]);
        return undefined;
      }
      case "close":
        this.#streams.delete(sent[0]);
        return undefined;
      case "count-tokens":
        return tokens(sent[0]).length;
      default:
        throw new NotFound(`the scripted model has no function ${name}`);
    }
  }

  #complete(request) {
    this.requests.push(request);
    if (this.#script.length === 0) {
      const asked = JSON.stringify(request.messages.at(-1).content);
      throw new Error(`ScriptedModel has no answer left, and was asked: ${asked}; add one with answers()`);
    }
    const step = this.#script[0];
    const repeats = typeof step === "function" && this.#script.length === 1;
    if (!repeats) this.#script.shift();
    const answer = typeof step === "function" ? step(request) : step;
    if (answer instanceof AppError) throw answer;
    const content = typeof answer === "string" ? answer : JSON.stringify(answer);
    const prompt = request.messages.reduce((sum, turn) => sum + tokens(String(turn.content ?? "")).length, 0);
    return {
      object: "chat.completion",
      model: request.model ?? "scripted",
      choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
      usage: { prompt_tokens: prompt, completion_tokens: tokens(content).length },
      llmasos: { notices: [], cost_micro_usd: 0 },
    };
  }
}

function chunksOf(completion) {
  const pieces = completion.choices[0].message.content.match(/\S+\s*|\s+/g) ?? [];
  const base = { object: "chat.completion.chunk", model: completion.model };
  const parts = pieces.map((content) => ({ ...base, choices: [{ index: 0, delta: { content }, finish_reason: null }] }));
  const end = { index: 0, delta: {}, finish_reason: completion.choices[0].finish_reason };
  return [...parts, { ...base, choices: [end], usage: completion.usage, llmasos: completion.llmasos }];
}

/** Keeps values by key, counts versions and bytes, and compares before it sets. */
export class MemoryStorage {
  #values = new Map();
  #deletedVersion = 0;

  constructor({ maxBytes = 1 << 20 } = {}) {
    this.maxBytes = maxBytes;
  }

  get values() {
    return Object.fromEntries([...this.#values].map(([key, entry]) => [key, entry.value]));
  }

  call(name, ...sent) {
    switch (name) {
      case "get":
        return this.#values.has(sent[0]) ? JSON.stringify(this.#values.get(sent[0])) : undefined;
      case "put":
        return this.#write(sent[0], sent[1], sent[2]);
      case "compare-and-set": {
        const there = this.#values.get(sent[0])?.version;
        if (there !== (sent[1] ?? undefined)) throw new Conflict(`${sent[0]} has version ${there}, not ${sent[1]}`);
        return this.#write(sent[0], sent[2], sent[3]);
      }
      case "delete":
        // Versions never repeat, also across a delete.
        this.#deletedVersion = Math.max(this.#deletedVersion, this.#values.get(sent[0])?.version ?? 0);
        return this.#values.delete(sent[0]);
      case "keys": {
        const [prefix, after, limit] = sent;
        const found = [...this.#values.keys()].filter((key) => key.startsWith(prefix)).sort();
        return found.filter((key) => after == null || key > after).slice(0, limit);
      }
      default:
        throw new NotFound(`storage has no function ${name}`);
    }
  }

  #write(key, value, base64) {
    const bytes = (entry) => Buffer.byteLength(entry.value, entry.base64 ? "base64" : "utf8");
    const others = [...this.#values].filter(([each]) => each !== key).reduce((sum, [, entry]) => sum + bytes(entry), 0);
    const entry = { value, base64, version: (this.#values.get(key)?.version ?? this.#deletedVersion) + 1 };
    if (others + bytes(entry) > this.maxBytes) {
      throw new QuotaExceeded(`storage holds at most ${this.maxBytes} bytes; delete something first`);
    }
    this.#values.set(key, entry);
    return entry.version;
  }
}

/** The port over fakes. A capability is there exactly when its fake is. */
export class FakeHost {
  chunks = [];
  progress = [];
  logs = [];

  constructor({ model, storage, config = {}, locale = "en", http, secrets, apps, declined = [] } = {}) {
    this.fakes = { model, storage, http, secrets, apps };
    const there = Object.keys(this.fakes).filter((name) => this.fakes[name] !== undefined);
    this.declined = new Set(declined);
    this.capabilities = new Set(["output", "log", "config", ...there, ...declined]);
    this.settings = { values: config, locale, granted: [...this.capabilities].filter((name) => !this.declined.has(name)) };
  }

  call(capability, name, ...sent) {
    if (!this.capabilities.has(capability)) throw new Denied(`${capability} is not declared`);
    if (this.declined.has(capability)) throw new Denied(`${capability} was declined`);
    switch (`${capability}.${name}`) {
      case "output.chunk":
        return void this.chunks.push(sent[0]);
      case "output.progress":
        return void this.progress.push([sent[0], sent[1]]);
      case "log.write":
        return void this.logs.push([sent[0], sent[1]]);
      case "config.read":
        return JSON.stringify(this.settings);
      case "http.request":
        return JSON.stringify({ headers: {}, body: "", base64: false, ...this.fakes.http(JSON.parse(sent[0])) });
      case "secrets.names":
        return [...this.fakes.secrets];
      case "apps.call": {
        const callee = this.fakes.apps[sent[0]]?.[sent[1]];
        if (callee === undefined) throw new NotFound(`${sent[0]} has no action ${sent[1]}`);
        return JSON.stringify(callee(JSON.parse(sent[2])));
      }
      default:
        return this.fakes[capability].call(name, ...sent);
    }
  }
}

/** Run an action as the host does: JSON in, JSON out, streamed pieces through the host. */
export function call(app, action, inputs, host = new FakeHost()) {
  return JSON.parse(app.call(action, JSON.stringify(inputs ?? {}), host));
}

export { App, Context };
