import assert from "node:assert/strict";
import { test } from "node:test";

import { App, AppFailed, Conflict, Invalid, NotFound, PermissionDeclined, QuotaExceeded } from "../src/index.js";
import { Context } from "../src/context.js";
import { handler } from "../src/guest.js";
import { ModelClient } from "../src/model.js";
import { FakeHost, MemoryStorage, ScriptedModel, call } from "../src/testing.js";

const app = new App()
  .action(
    "greet",
    {
      title: { en: "Greet", zh: "问候" },
      description: "Greet somebody.",
      input: { name: { type: "string" }, tone: { type: "string", default: "warm" } },
      output: { type: "string" },
    },
    (ctx, { name, tone }) => ctx.model.generate(`Greet ${name}, ${tone}`, { maxTokens: 20 }).text,
  )
  .action("tell", { input: { premise: { type: "string" } } }, function* (ctx, { premise }) {
    yield* ctx.model.stream(premise);
  })
  .action("label", (ctx) => ctx.model.generate("x", { output: { title: "Label", type: "object" } }).parsed)
  .action("count", (ctx) => ctx.storage.updateJson("n", (n) => n + 1, 0))
  .action("fail", () => {
    throw new RangeError("nothing\nhere");
  })
  .action("odd", () => "\ud800!");

test("an action is described as bundles hold it", () => {
  assert.deepEqual(app.describe()[0], {
    name: "greet",
    title: { en: "Greet", zh: "问候" },
    description: "Greet somebody.",
    input_schema: {
      type: "object",
      properties: { name: { type: "string" }, tone: { type: "string", default: "warm" } },
      required: ["name"],
      additionalProperties: false,
    },
    output_schema: { type: "string" },
    streaming: false,
  });
  assert.deepEqual([app.describe()[1].streaming, app.describe()[1].output_schema], [true, { type: "string" }]);
});

test("an action takes JSON with defaults filled in, and answers JSON", () => {
  const model = new ScriptedModel("Hello, Ada!");
  assert.equal(call(app, "greet", { name: "Ada" }, new FakeHost({ model })), "Hello, Ada!");
  assert.deepEqual(model.requests, [{ messages: [{ role: "user", content: "Greet Ada, warm" }], max_tokens: 20 }]);
});

test("a generator streams, and its pieces are the output", () => {
  const host = new FakeHost({ model: new ScriptedModel("Once upon a time.") });
  assert.equal(call(app, "tell", { premise: "sea" }, host), "Once upon a time.");
  assert.deepEqual(host.chunks, ["Once ", "upon ", "a ", "time."]);
});

test("a schema asks for JSON, and the answer comes parsed", () => {
  const model = new ScriptedModel({ label: "billing" });
  assert.deepEqual(call(app, "label", {}, new FakeHost({ model })), { label: "billing" });
  assert.equal(model.requests[0].response_format.json_schema.name, "Label");
});

test("storage compares before it sets, and holds no more than it may", () => {
  const storage = new MemoryStorage({ maxBytes: 5 });
  const host = new FakeHost({ storage });
  assert.deepEqual([call(app, "count", {}, host), call(app, "count", {}, host)], [1, 2]);
  assert.throws(() => storage.call("compare-and-set", "n", 1, "9", false), Conflict);
  assert.throws(() => storage.call("put", "m", "123", false), QuotaExceeded);
});

test("bad input and unknown actions are refused with their place", () => {
  assert.throws(() => app.call("gone", "{}", new FakeHost()), NotFound);
  assert.throws(() => app.call("greet", "{", new FakeHost()), Invalid);
  assert.throws(() => call(app, "greet", { nme: 1 }), /nme: there is no such input; known are: name, tone/);
  assert.throws(() => call(app, "greet", {}), /name: this input is needed/);
});

test("an undeclared capability prints the lines to add", () => {
  assert.throws(() => call(app, "greet", { name: "Ada" }), /\[\[permissions\]\]\ncapability = "model"/);
});

test("an error of the app is one line for the caller and a stack in the log", () => {
  const host = new FakeHost();
  assert.throws(() => call(app, "fail", {}, host), (error) => {
    return error instanceof AppFailed && /^the app failed: RangeError: nothing here \(.*sdk\.test\.js, line 27\)$/.test(error.message);
  });
  assert.match(host.logs[0][1], /sdk\.test\.js/);
});

test("async actions, bad names and doubles are refused", () => {
  assert.throws(() => new App().action("a", async () => 1), /action a is async/);
  assert.throws(() => new App().action("A b", () => 1), /not a name of an action/);
  assert.throws(() => new App().action("a", () => 1).action("a", () => 2), /already/);
});

test("hooks are listed after the actions and run by their reserved names alone", () => {
  const heard = [];
  const hooked = new App()
    .action("a", () => 1)
    .onUpgrade((ctx, from) => heard.push(from))
    .onInstall((ctx) => ctx.log.info("ready"))
    .onEvent((ctx, event) => heard.push(event.payload.removed));
  assert.deepEqual(hooked.describe().map(({ name }) => name), ["a", "@install", "@upgrade", "@event"]);
  const host = new FakeHost();
  assert.equal(hooked.call("@install", "{}", host), "null");
  hooked.call("@upgrade", '{"from_version": "1.0.0"}', host);
  hooked.call("@event", '{"event": {"name": "grants", "payload": {"removed": ["http"]}}}', host);
  assert.deepEqual([host.logs, heard], [[["info", "ready"]], ["1.0.0", ["http"]]]);
  assert.throws(() => hooked.call("@uninstall", "{}", host), NotFound);
  assert.throws(() => hooked.onInstall(() => {}), /already/);
  assert.throws(() => new App().onInstall(async () => {}), /plain function/);
});

test("inside a component errors are cases of the variant, and letters without their pair are mended", () => {
  const failing = { compareAndSet: () => { throw Object.assign(new Error("x"), { payload: { tag: "conflict", val: "late" } }); } };
  const written = [];
  const log = { write: (level, message) => written.push([level, message]) };
  const config = { read: () => JSON.stringify({ values: {}, locale: "en", now_ms: 86400000, seed: "ab" }) };
  const get = () => JSON.stringify({ value: "1", base64: false, version: 3 });
  const kept = { Date: globalThis.Date, random: Math.random, console: globalThis.console };
  try {
    app.action("today", () => [new Date().toISOString(), Date.now(), new Date(0).getTime(), typeof Math.random()]);
    const made = handler(app, { output: {}, log, config, storage: { get, ...failing } });
    assert.throws(() => made.call("count", "{}"), (error) => error.tag === "conflict" && error.val === "late");
    assert.equal(made.call("odd", "{}"), '"\ufffd!"');
    console.log("seen", { a: 1 });
    assert.deepEqual(written.at(-1), ["info", 'seen {"a":1}']);
    assert.deepEqual(JSON.parse(made.call("today", "{}")), ["1970-01-02T00:00:00.000Z", 86400000, 0, "number"]);
  } finally {
    globalThis.Date = kept.Date;
    globalThis.console = kept.console;
    Math.random = kept.random;
  }
});

const piece = (index, id, name, args) => ({ index, id, function: { name, arguments: args } });

for (const [how, pieces] of Object.entries({
  "each index is 0": [piece(0, "a", "weather", "{}"), piece(0, "b", "time", "{}")],
  "the name is repeated": [piece(0, "a", "weather", "{"), piece(0, "a", "weather", "}"), piece(0, "b", "time", "{}")],
  "there are no ids": [piece(0, null, "weather", "{}"), piece(0, null, "time", "{}")],
  "they are interleaved": [
    piece(0, "a", "weather", ""),
    piece(1, "b", "time", ""),
    piece(1, null, null, "{}"),
    piece(0, null, null, "{}"),
  ],
})) {
  test(`streamed tool calls are kept apart where ${how} (11-2)`, () => {
    const parts = pieces.map((part) => JSON.stringify({ choices: [{ delta: { tool_calls: [part] } }] }));
    const stream = new ModelClient({ call: (_, name) => (name === "open" ? 1 : parts.shift()) }).stream("x");
    assert.deepEqual([...stream], []);
    assert.deepEqual(
      stream.completion.toolCalls.map((call) => [call.name, call.arguments]),
      [
        ["weather", {}],
        ["time", {}],
      ],
    );
  });
}

test("a declined permission can be asked about, and is undefined (11-36)", () => {
  const host = new FakeHost({ storage: new MemoryStorage(), declined: ["model"] });
  const ctx = new Context(host);
  assert.deepEqual(["storage", "model", "http"].map((name) => ctx.has(name)), [true, false, false]);
  assert.equal(ctx.model, undefined);
  assert.notEqual(ctx.storage, undefined);
  assert.throws(() => call(app, "greet", { name: "Ada" }, host), (error) => {
    return error instanceof PermissionDeclined && error.message.includes('ctx.has("model")');
  });
});

test("halves of a character in two pieces are sent as one, and one alone is mended (11-10)", () => {
  const app = new App();
  app.action("pieces", { input: { pieces: { type: "array" } } }, function* (ctx, { pieces }) {
    yield* pieces;
  });
  const sent = (pieces) => {
    const host = new FakeHost({});
    const answer = JSON.parse(app.call("pieces", JSON.stringify({ pieces }), host));
    return [host.chunks.join(""), answer];
  };
  assert.deepEqual(sent(["a\ud83d", "\ude00b"]), ["a😀b", "a😀b"]);
  assert.deepEqual(sent(["a\ud83d"]), ["a\ufffd", "a\ufffd"]);
});
