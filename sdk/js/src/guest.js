// Inside a component: the host's functions are the component's imports, and the app is its `handler` export.
// `llmasos build` writes the entry module that joins the two.

import { carried, jsonText } from "./contract.js";
import { AppError, AppFailed, fromTag, Invalid, Message } from "./errors.js";
import { placeOf, traceOf, withPlaces } from "./stack.js";

const camel = (name) => name.replace(/-([a-z])/g, (_, letter) => letter.toUpperCase());

/** The port over the imports that the world names. */
class ComponentHost {
  #interfaces;

  constructor(interfaces) {
    this.#interfaces = interfaces;
    this.capabilities = new Set(Object.keys(interfaces));
  }

  call(capability, name, ...sent) {
    if (capability === "log") sent[1] = withPlaces(sent[1]);
    const values = carried(capability, name, sent);
    try {
      return this.#interfaces[capability][camel(name)](...values);
    } catch (error) {
      const failure = error?.payload;
      if (failure?.tag === undefined) throw error;
      throw fromTag(failure.tag, failure.val);
    }
  }
}

/** The component has no WASI: console goes to the log, and time and chance come from the host, when first asked for. */
function furnish(host) {
  const write = (level) => (...values) => host.call("log", "write", level, values.map(shown).join(" "));
  globalThis.console = {
    log: write("info"), info: write("info"), debug: write("debug"), warn: write("warning"), error: write("error"),
  };
  let settings;
  const told = () => (settings ??= JSON.parse(host.call("config", "read")));
  const Native = globalThis.Date;
  const now = () => told().now_ms ?? 0;
  globalThis.Date = class Date extends Native {
    constructor(...given) {
      super(...(given.length === 0 ? [now()] : given));
    }
    static now() {
      return now();
    }
  };
  let state;
  Math.random = () => {
    state ??= seedOf(String(told().seed ?? ""));
    // splitmix32: small, fast, and even enough for picking and shuffling. Nothing secret may rest on it.
    state = (state + 0x9e3779b9) | 0;
    let mixed = state ^ (state >>> 16);
    mixed = Math.imul(mixed, 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 4294967296;
  };
}

function seedOf(text) {
  let hash = 2166136261;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 16777619);
  return hash | 0;
}

function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return traceOf(value);
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

/** What crosses to the host of an error. */
function failureOf(error) {
  const failure = error instanceof AppError ? error : new AppFailed(new Message("the app failed: {error}", { error: String(error) }));
  return { tag: failure.tag, val: failure.told };
}

/** The `handler` that the component exports. */
export function handler(app, interfaces) {
  const host = new ComponentHost(interfaces);
  const described = jsonText(app.describe());
  furnish(host);
  return {
    describe: () => described,
    call(action, input) {
      try {
        return app.call(action, input, host);
      } catch (error) {
        throw failureOf(error);
      }
    },
  };
}

/**
 * The `handler` of the component of `llmasos run .` and `llmasos dev`. It has no app: each call hands over the source,
 * one script that gets the SDK, so that a change needs no build.
 */
export function development(sdk, interfaces) {
  const host = new ComponentHost(interfaces);
  const load = ({ code, map }) => {
    globalThis.llmasosMap = map;
    try {
      const app = new Function("llmasos_sdk", `${code}\nreturn llmasos_app.app;`)(sdk);
      if (typeof app?.describe !== "function") throw new Error("write `export default app;` in the source");
      app.describe();
      return app;
    } catch (error) {
      throw new Invalid(new Message("the source does not run: {error}", { error: String(error) + placeOf(error) }));
    }
  };
  furnish(host);
  return {
    describe: () => "[]",
    call(action, text) {
      try {
        const { source, input } = JSON.parse(text);
        const app = load(source);
        return input === null ? jsonText(app.describe()) : app.call(action, input, host);
      } catch (error) {
        throw failureOf(error);
      }
    },
  };
}
