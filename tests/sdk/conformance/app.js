// The twin of `app.py`.

import * as sdk from "@llmasos/sdk";

const app = new sdk.App();

const textOf = (units) => String.fromCharCode(...units);

function valueOf(given) {
  if (Array.isArray(given)) return given.map(valueOf);
  if (typeof given !== "object" || given === null) return given;
  if ("units" in given) return textOf(given.units);
  if ("bytes" in given) return Uint8Array.from(given.bytes);
  return Object.fromEntries(Object.entries(given).map(([key, each]) => [key, valueOf(each)]));
}

const NAMES = { max_tokens: "maxTokens", top_p: "topP", require_fit: "requireFit", tool_choice: "toolChoice" };
const optionsOf = (given) => Object.fromEntries(Object.entries(given).map(([name, value]) => [NAMES[name] ?? name, value]));
const calls = (found) => found.map((call) => [call.id, call.name, call.arguments]);

function stream(model, prompt, options) {
  const opened = model.stream(prompt, optionsOf(options));
  const text = [...opened].join("");
  const told = opened.completion;
  return [text === told.text, text, calls(told.toolCalls), told.finishReason, told.usage.completionTokens > 0];
}

function leaveStream(model, prompt) {
  const opened = model.stream(prompt);
  let first = "";
  for (first of opened) break;
  opened.close();
  return first !== "" && [...opened].length === 0;
}

function generate(model, prompt, options) {
  const told = model.generate(prompt, optionsOf(options));
  return [told.text, told.finishReason, calls(told.toolCalls), told.usage.completionTokens > 0];
}

function embed(model, texts) {
  const told = model.embed(texts);
  return [told.vectors.length, told.vectors.every((vector) => vector.every((number) => typeof number === "number"))];
}

function entry(ctx, key) {
  const found = ctx.storage.entry(key);
  return found === undefined ? null : [[...found.value], found.version];
}

function request(ctx, method, url, options) {
  const told = ctx.http.request(method, url, options);
  return [told.status, told.ok, told.body, [...told.bytes()], told.headers["x-seen"] ?? null];
}

const STEPS = {
  "output.progress": (ctx, ...given) => ctx.output.progress(...given),
  "log.debug": (ctx, ...given) => ctx.log.debug(...given),
  "log.info": (ctx, ...given) => ctx.log.info(...given),
  "log.warning": (ctx, ...given) => ctx.log.warning(...given),
  "log.error": (ctx, ...given) => ctx.log.error(...given),
  config: (ctx) => [ctx.config, ctx.locale],
  has: (ctx, name) => [ctx.has(name), ctx[name] !== undefined],
  "model.generate": (ctx, prompt, options) => generate(ctx.model, prompt, options),
  "model.stream": (ctx, prompt, options) => stream(ctx.model, prompt, options),
  "model.leave_stream": (ctx, prompt) => leaveStream(ctx.model, prompt),
  "model.embed": (ctx, texts) => embed(ctx.model, texts),
  "model.count_tokens": (ctx, text) => ctx.model.countTokens(text) > 0,
  "storage.entry": entry,
  "storage.get": (ctx, key) => ctx.storage.get(key),
  "storage.get_bytes": (ctx, key) => ctx.storage.getBytes(key) && [...ctx.storage.getBytes(key)],
  "storage.get_json": (ctx, key) => ctx.storage.getJson(key),
  "storage.put": (ctx, key, value) => ctx.storage.put(key, value),
  "storage.put_json": (ctx, key, value) => ctx.storage.putJson(key, value),
  "storage.compare_and_set": (ctx, key, version, value) => ctx.storage.compareAndSet(key, version ?? undefined, value),
  "storage.increase": (ctx, key) => ctx.storage.updateJson(key, (count) => count + 1, 0),
  "storage.delete": (ctx, key) => ctx.storage.delete(key),
  "storage.keys": (ctx, prefix) => [...ctx.storage.keys(prefix)],
  "storage.count": (ctx, prefix) => [...ctx.storage.keys(prefix)].length,
  "http.request": request,
  "secrets.names": (ctx) => [...ctx.secrets.names()].sort(),
  "apps.call": (ctx, callee, action, inputs) => ctx.apps.call(callee, action, inputs),
};

const anything = {};

app.action("run", { input: { steps: anything } }, (ctx, { steps }) =>
  steps.map(([name, ...given]) => {
    try {
      return { ok: STEPS[name](ctx, ...valueOf(given)) ?? null };
    } catch (error) {
      if (!(error instanceof sdk.AppError || error instanceof TypeError) || !error.message) throw error;
      return { error: error.name };
    }
  }),
);

app.action("say", { input: { pieces: anything } }, function* (ctx, { pieces }) {
  for (const piece of pieces) yield textOf(piece);
});

app.action("back", { input: { value: anything } }, (ctx, { value }) => valueOf(value));

const files = { type: "array", items: sdk.File.schema() };
app.action("turn", { input: { file: sdk.File.schema(), others: files }, output: sdk.File.schema() }, (ctx, { file, others }) => {
  const names = others.map((other) => other.name).join(".") || "none";
  const type = file.mediaType === "a/b" ? `x/${names}` : "c/d";
  return new sdk.File(`folder/${file.name}`, file.content.slice().reverse(), type);
});

app.action("fill", { input: { size: { type: "integer" } }, output: sdk.File.schema() }, (ctx, { size }) => {
  return new sdk.File("zeros", new Uint8Array(size));
});

const meeting = {
  type: "object",
  properties: {
    day: { type: "string", format: "date" },
    at: { anyOf: [{ type: "string", format: "date-time" }, { type: "null" }] },
    way: {},
    tone: { enum: ["kind", "curt"] },
  },
  required: ["day", "at", "way"],
};
app.action("postpone", { input: { meeting, days: { type: "integer", default: 1 } }, output: meeting }, (ctx, { meeting, days }) => {
  const later = (text) => new Date(Date.parse(text) + days * 86_400_000).toISOString();
  const at = meeting.at && later(meeting.at).replace(".000Z", "Z");
  return { ...meeting, day: later(meeting.day).slice(0, 10), at };
});

app.action("fail", { input: { kind: { type: "string" }, text: anything } }, (ctx, { kind, text }) => {
  throw new sdk[kind](valueOf(text));
});

app.action("crash", { input: { text: anything } }, (ctx, { text }) => {
  class RuntimeError extends Error {
    name = "RuntimeError";
  }
  throw new RuntimeError(valueOf(text));
});

app.action("careless", (ctx) => ctx.model.generate("Hello").text);

export default app;
