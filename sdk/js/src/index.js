// An app: its actions, described and called by JSON. The Python SDK has the same shape.

import { Context, declined } from "./context.js";
import { jsonText } from "./contract.js";
import { AppError, AppFailed, Invalid, Message, NotFound } from "./errors.js";
import { withFiles } from "./files.js";
import { placeOf, traceOf } from "./stack.js";

export { Context } from "./context.js";
export * from "./errors.js";
export { File } from "./files.js";
export { Stream } from "./model.js";

// The lifecycle events of an installation; the Python SDK's `hooks` say what holds at each.
const LIFECYCLE_EVENTS = ["install", "upgrade", "uninstall", "event"];
const NAME = /^[a-z][a-z0-9_]{0,63}$/;
const GENERATOR = Object.getPrototypeOf(function* () {}).constructor;
const ASYNC = Object.getPrototypeOf(async function () {}).constructor;
const ASYNC_GENERATOR = Object.getPrototypeOf(async function* () {}).constructor;

const sentence = (name) => {
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
};

export class App {
  #actions = new Map();
  #hooks = new Map();

  /**
   * Make a function an action.
   *
   * @param name What callers name it: a-z, 0-9 and _.
   * @param options `title`, `description`, and the JSON Schemas `input` (its properties) and `output`.
   * @param run Gets the context and the inputs. A generator streams: each `yield` is a piece of text.
   */
  action(name, options, run) {
    if (typeof options === "function") return this.action(name, {}, options);
    if (!NAME.test(name)) {
      throw new TypeError(`'${name}' is not a name of an action: use a-z, 0-9 and _, and begin with a letter`);
    }
    if (typeof run !== "function") throw new TypeError(`action ${name} has no function to run`);
    if (run instanceof ASYNC || run instanceof ASYNC_GENERATOR) {
      throw new TypeError(
        `action ${name} is async; write it as a plain function. Each run has its own instance, ` +
          "so waiting in it holds up nobody, and a generator function streams.",
      );
    }
    if (this.#actions.has(name)) throw new TypeError(`there is an action ${name} already`);
    const { title = sentence(name), description = "", input = {}, output = {}, required } = options;
    const streaming = run instanceof GENERATOR;
    const needed = required ?? Object.keys(input).filter((key) => !("default" in input[key]));
    this.#actions.set(name, {
      run,
      description: {
        name,
        title: typeof title === "string" ? { en: title } : { ...title },
        description,
        input_schema: { type: "object", properties: input, required: needed, additionalProperties: false },
        output_schema: streaming && Object.keys(output).length === 0 ? { type: "string" } : output,
        streaming,
      },
    });
    return this;
  }

  /** Run `run(ctx)` after an installation. */
  onInstall(run) {
    return this.#on("install", run);
  }

  /** Run `run(ctx, fromVersion)` after a change to another release, newer or, at a rollback, older. */
  onUpgrade(run) {
    return this.#on("upgrade", run);
  }

  /** Run `run(ctx)` before an installation is removed. */
  onUninstall(run) {
    return this.#on("uninstall", run);
  }

  /** Run `run(ctx, event)` when the user changed what the app may do: `{name: "grants", payload: {held, added, removed}}`. */
  onEvent(run) {
    return this.#on("event", run);
  }

  #on(event, run) {
    if (typeof run !== "function" || run instanceof ASYNC) throw new TypeError(`the hook of ${event} is a plain function`);
    if (this.#hooks.has(event)) throw new TypeError(`there is a hook of ${event} already`);
    this.#hooks.set(event, run);
    return this;
  }

  /** What stands in `actions.json`: the actions, and the lifecycle events with a hook. */
  describe() {
    const heard = LIFECYCLE_EVENTS.filter((event) => this.#hooks.has(event)).map((event) => ({ name: `@${event}` }));
    return [...this.#actions.values()].map((action) => action.description).concat(heard);
  }

  /** Run an action, or by a name such as `@install` a lifecycle hook, on JSON text, and answer JSON text. */
  call(name, inputJson, host) {
    if (name.startsWith("@")) return this.#happen(name.slice(1), inputJson, host);
    const action = this.#actions.get(name);
    if (action === undefined) {
      throw new NotFound(`there is no action '${name}'; this app has: ${[...this.#actions.keys()].join(", ") || "none"}`);
    }
    const inputs = inputsOf(action.description.input_schema, inputJson);
    return guarded(host, (ctx) => {
      let answer = action.run(ctx, inputs);
      if (action.description.streaming) answer = send(name, host, answer);
      const text = jsonText(answer ?? null);
      if (text === undefined) throw new AppFailed(`action ${name} answered something that JSON cannot say`);
      return text;
    });
  }

  #happen(event, inputJson, host) {
    const run = this.#hooks.get(event);
    if (run === undefined) throw new NotFound(`this app has no hook for @${event}`);
    return guarded(host, (ctx) => {
      run(ctx, ...Object.values(JSON.parse(inputJson || "{}")));
      return "null";
    });
  }
}

/** Run the author's code; an error of its own becomes one of the contract's, with its stack logged. */
function guarded(host, run) {
  const missed = new Set();
  const ctx = new Context(host, missed);
  try {
    return run(ctx);
  } catch (error) {
    if (error instanceof AppError) throw error;
    const told = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    ctx.log.error(traceOf(error));
    if (missed.size > 0 && error instanceof TypeError && told.includes("undefined")) throw declined([...missed].at(-1));
    throw new AppFailed(new Message("the app failed: {error}", { error: told.replace(/\s+/g, " ").trim() + placeOf(error) }));
  }
}

function send(name, host, pieces) {
  let sent = "";
  // The first half of a character that a model's piece ended with waits for the other half.
  let half = "";
  const chunk = (text) => {
    host.call("output", "chunk", text);
    sent += text;
  };
  for (;;) {
    const { value, done } = pieces.next();
    if (done) {
      if (half !== "") chunk(half);
      return value === undefined ? sent : value;
    }
    if (typeof value !== "string") {
      pieces.return();
      throw new AppFailed(`action ${name} yields a ${typeof value}; a piece is a text`);
    }
    const text = half + value;
    half = /[\ud800-\udbff]$/.test(text) ? text.slice(-1) : "";
    chunk(text.slice(0, text.length - half.length));
  }
}

/** The inputs with their defaults. The host checks their types against the same schema. */
function inputsOf(schema, inputJson) {
  let given;
  try {
    given = JSON.parse(inputJson || "{}");
  } catch (error) {
    throw new Invalid(`the input is not JSON: ${error.message}`);
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    throw new Invalid("the input is a JSON object, with a key for each input of the action");
  }
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(schema.properties, key)) {
      const known = Object.keys(schema.properties).join(", ") || "none";
      throw new Invalid(`${key}: there is no such input; known are: ${known}`);
    }
  }
  const inputs = {};
  for (const [key, property] of Object.entries(schema.properties)) {
    if (Object.hasOwn(given, key)) inputs[key] = withFiles(property, given[key], key);
    else if (Object.hasOwn(property, "default")) inputs[key] = structured(property.default);
    else if (schema.required.includes(key)) throw new Invalid(`${key}: this input is needed`);
  }
  return inputs;
}

const structured = (value) => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
