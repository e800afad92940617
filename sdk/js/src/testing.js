// Fakes for an app's own tests: they behave as the host does, limits included, and need none.

import { decodeUtf8, toBase64 } from "./bytes.js";
import { carried, jsonText } from "./contract.js";
import { checkHttp } from "./fakes/requests.js";
import { callInSandbox } from "./fakes/sandbox.js";
import { App, AppError, Context, Denied, Invalid, NotFound } from "./index.js";

export { MemoryStorage } from "./fakes/storage.js";
export { ScriptedModel, ToolCall } from "./fakes/model.js";
export { App, Context };

const MAX_PROGRESS_MESSAGE = 500;

/**
 * The port over fakes. A capability is there exactly when its fake is.
 *
 * `http` gets a request and returns `{ status, headers?, body? }`, the body a text or a Uint8Array; `apps` are functions
 * by app and action; `declined` are optional capabilities that were declined.
 */
export class FakeHost {
  chunks = [];
  progress = [];
  logs = [];
  httpRequests = [];

  constructor({ model, storage, config = {}, locale = "en", http, secrets, apps, declined = [] } = {}) {
    this.fakes = { model, storage, http, secrets, apps };
    const there = Object.keys(this.fakes).filter((name) => this.fakes[name] !== undefined);
    this.declined = new Set(declined);
    this.capabilities = new Set(["output", "log", "config", ...there, ...declined]);
    this.settings = { values: config, locale, granted: [...this.capabilities].filter((name) => !this.declined.has(name)) };
  }

  call(capability, name, ...given) {
    if (!this.capabilities.has(capability)) throw new Denied(`${capability} is not declared`);
    const sent = carried(capability, name, given);
    if (this.declined.has(capability)) throw new Denied(`${capability} was declined`);
    switch (`${capability}.${name}`) {
      case "output.chunk":
        return void this.chunks.push(sent[0]);
      case "output.progress":
        return void this.progress.push([sent[0], [...sent[1]].slice(0, MAX_PROGRESS_MESSAGE).join("")]);
      case "log.write":
        return void this.logs.push([sent[0], sent[1]]);
      case "config.read":
        return JSON.stringify(this.settings);
      case "http.request":
        return this.#request(sent[0]);
      case "secrets.names":
        return [...this.fakes.secrets];
      case "apps.call":
        return this.#callApp(...sent);
      default:
        return this.fakes[capability].call(name, ...sent);
    }
  }

  #request(text) {
    const request = checkHttp(text);
    this.httpRequests.push(request);
    const { body = "", ...answer } = this.fakes.http(request);
    const [bytes, base64] = body instanceof Uint8Array ? [body, isNotText(body)] : [undefined, false];
    const shown = bytes === undefined ? body : base64 ? toBase64(bytes) : decodeUtf8(bytes);
    return jsonText({ headers: {}, url: request.url, base64, body: shown, ...answer });
  }

  #callApp(app, action, text) {
    const callee = this.fakes.apps[app];
    if (callee === undefined) throw new Denied(`llmapp.toml does not name ${app} in the permission apps`);
    if (!Object.hasOwn(callee, action)) throw new NotFound(`${app} has no action ${action}`);
    try {
      return jsonText(callee[action](JSON.parse(text)) ?? null);
    } catch (error) {
      if (error instanceof AppError) throw error;
      throw new Invalid(`the app failed: ${error}`);
    }
  }
}

const isNotText = (bytes) => decodeUtf8(bytes).includes("\ufffd");

/**
 * Run an action as the host does: JSON in, JSON out, streamed pieces through the host.
 *
 * Under `llmasos test --sandbox` it runs in the sandbox, and only the fakes of `host` run in the test.
 */
export function call(app, action, inputs, host = new FakeHost()) {
  const text = jsonText(inputs ?? {});
  const sandbox = process.env.LLMASOS_TEST_SANDBOX;
  return JSON.parse(sandbox === undefined ? app.call(action, text, host) : callInSandbox(sandbox, action, text, host));
}
