// Runs the scenarios of its input against the fakes, and prints what each gave.

import { readFileSync } from "node:fs";

import * as sdk from "@llmasos/sdk";
import { FakeHost, MemoryStorage, ScriptedModel, ToolCall } from "@llmasos/sdk/testing";
import app from "./app.js";

const answerOf = (given) => {
  if (typeof given === "string") return given;
  if (given.tool) return new ToolCall(...given.tool);
  if (given.fails) return new sdk.Unavailable("the provider failed");
  return (request) => request.messages.at(-1).content;
};

const callee = {
  echo: ({ value }) => value,
  fail: ({ kind }) => {
    throw new sdk[kind]("why");
  },
  crash: () => {
    throw new RangeError("no such thing");
  },
};

function respond(request) {
  const { origin, pathname } = new URL(request.url);
  if (origin === "http://nobody.test") throw new sdk.Unavailable("nobody listens there");
  if (origin !== "http://server.test") throw new sdk.Denied("the grant names another server");
  const headers = { "X-Seen": request.method };
  if (pathname !== "/echo") return { status: 404, headers };
  return { status: 200, headers, body: Buffer.from(request.body ?? "", request.base64 ? "base64" : "utf8") };
}

function told(scenario) {
  const host = new FakeHost({
    model: new ScriptedModel(...scenario.model.map(answerOf)),
    storage: new MemoryStorage({ values: scenario.stored, maxBytes: 20000 }),
    http: respond,
    secrets: scenario.secrets,
    apps: { "acme/callee": callee },
    config: scenario.config,
    locale: scenario.locale,
    declined: scenario.declined,
  });
  const shown = () => ({
    chunks: host.chunks.join(""),
    progress: host.progress,
    logs: host.logs.map(([level, line]) => `${level.toUpperCase()} ${line}\n`).join(""),
  });
  try {
    return { output: JSON.parse(app.call(scenario.action, JSON.stringify(scenario.inputs), host)), ...shown() };
  } catch (error) {
    if (!(error instanceof sdk.AppError)) throw error;
    return { error: error.message, ...shown() };
  }
}

const scenarios = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(scenarios.map(told)));
