// The requests of an app, held against the host's rules: what the host refuses, a fake refuses.

import { Invalid } from "../errors.js";

const isText = (value) => typeof value === "string";
const isFlag = (value) => typeof value === "boolean";
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isList = (value) => Array.isArray(value);
const within = (least, most) => (value) => Number.isFinite(value) && value >= least && value <= most;
const whole = (least, most) => (value) => Number.isSafeInteger(value) && value >= least && value <= most;
const among = (...names) => (value) => names.includes(value);

const ROLES = among("system", "user", "assistant", "tool");
const TASKS = "chat classify extract summarise translate write code reason question other".split(" ");
const FIELDS = {
  messages: (value) => isList(value) && value.length > 0 && value.every(isTurn),
  model: isText,
  tier: among("fast", "balanced", "best"),
  task: among(...TASKS),
  language: isText,
  require_fit: isFlag,
  max_tokens: whole(1, 2 ** 30),
  temperature: within(0, 2),
  top_p: (value) => within(0, 1)(value) && value > 0,
  seed: whole(-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: (value) => isList(value) && value.length <= 16 && value.every((each) => isText(each) && each !== ""),
  tools: (value) => isList(value) && value.every((each) => isObject(each) && isText(each.function?.name)),
  tool_choice: (value) => ["auto", "none", "required"].includes(value) || isObject(value),
  response_format: isObject,
};
const REQUEST = {
  method: among("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
  url: (value) => isText(value) && /^https?:\/\/[^/]/.test(value),
  headers: (value) => isObject(value) && Object.values(value).every(isText),
  body: isText,
  base64: isFlag,
};
const EMBEDDING = {
  input: (value) => isList(value) && value.length > 0 && value.every(isText),
  model: isText,
};

function isTurn(turn) {
  if (!isObject(turn) || !ROLES(turn.role)) return false;
  return turn.content === undefined || turn.content === null || isText(turn.content) || isList(turn.content);
}

function check(text, fields, needed) {
  const request = JSON.parse(text);
  for (const [name, value] of Object.entries(request)) {
    if (!Object.hasOwn(fields, name)) throw new Invalid(`The request is not valid: ${name}: there is no such field.`);
    const isLeftOut = value === null && !needed.includes(name);
    if (!isLeftOut && !fields[name](value)) {
      throw new Invalid(`The request is not valid: ${name}: ${JSON.stringify(value).slice(0, 80)} does not fit.`);
    }
  }
  for (const name of needed) {
    if (!Object.hasOwn(request, name)) throw new Invalid(`The request is not valid: ${name}: it is needed.`);
  }
  return request;
}

/** A request of `model.generate` or `model.open`. */
export const checkGeneration = (text) => check(text, FIELDS, ["messages"]);

/** A request of `model.embed`. */
export const checkEmbedding = (text) => check(text, EMBEDDING, ["input"]);

/** A request of `http.request`. */
export const checkHttp = (text) => check(text, REQUEST, ["method", "url", "headers"]);
