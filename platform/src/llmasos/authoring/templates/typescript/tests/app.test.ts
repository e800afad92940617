// Tests of the app, without a host: `llmasos test`.

import assert from "node:assert/strict";
import { test } from "node:test";

import { FakeHost, ScriptedModel, call } from "@llmasos/sdk/testing";

import app from "../app.ts";

test("it greets by name", () => {
  const model = new ScriptedModel("  Hello, Ada!  ");
  assert.equal(call(app, "greet", { name: "Ada" }, new FakeHost({ model })), "Hello, Ada!");
  assert.match(model.requests[0].messages.at(-1).content, /warm sentence that greets Ada/);
});

test("a name is needed", () => {
  assert.throws(() => call(app, "greet", {}), /name: this input is needed/);
});
