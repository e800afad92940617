// A model that answers from a script, and otherwise as a real one does: limits, usage, streams, tool calls.

import { AppError, NotFound, Unavailable } from "../errors.js";
import { jsonText } from "../contract.js";
import { checkEmbedding, checkGeneration } from "./requests.js";

const TOKEN = /[\p{L}\p{N}_]+|[^\p{L}\p{N}_\s]/gu;
const DIMENSIONS = 64;

const tokens = (text) => [...text.matchAll(TOKEN)];

/** A call of a tool, as an answer of the script. */
export class ToolCall {
  constructor(id, name, args = {}) {
    this.id = id;
    this.name = name;
    this.arguments = args;
  }
}

/**
 * Answers in the order of its script, and keeps the requests it got. An answer is a text, a value to send as JSON,
 * tool calls, or an error. A function gets the request and returns one; a last function answers every call from there.
 */
export class ScriptedModel {
  requests = [];
  /** As the permission's: answers are cut there, with the finish reason "length". */
  maxOutputTokens = 1024;
  /** Lines for the user that each answer carries. */
  notices = [];
  /** Whether it is fit for what it is asked; if not, calls that require it fail. */
  isFit = true;
  #script;
  #streams = new Map();
  #opened = 0;

  constructor(...script) {
    this.#script = script;
  }

  answers(...script) {
    this.#script.push(...script);
  }

  /** Streams that were neither read to their end nor closed. */
  get openStreams() {
    return this.#streams.size;
  }

  call(name, ...sent) {
    switch (name) {
      case "generate":
        return jsonText(this.#complete(checkGeneration(sent[0])));
      case "open":
        this.#opened += 1;
        this.#streams.set(this.#opened, chunksOf(this.#complete(checkGeneration(sent[0]))));
        return this.#opened;
      case "read": {
        const parts = this.#streams.get(sent[0]) ?? [];
        if (parts.length > 0) return JSON.stringify(parts.shift());
        this.#streams.delete(sent[0]);
        return undefined;
      }
      case "close":
        this.#streams.delete(sent[0]);
        return undefined;
      case "embed":
        return jsonText(embeddingsOf(checkEmbedding(sent[0])));
      case "count-tokens":
        return tokens(sent[0]).length;
      default:
        throw new NotFound(`model has no function ${name}`);
    }
  }

  #complete(request) {
    this.requests.push(request);
    if (request.require_fit && !this.isFit) {
      throw new Unavailable("No model here is fit for this: connect one with `llmasos models add`.");
    }
    const answer = this.#next(request);
    if (answer instanceof AppError) throw answer;
    const limit = Math.min(request.max_tokens ?? this.maxOutputTokens, this.maxOutputTokens);
    const calls = [answer].flat().filter((each) => each instanceof ToolCall);
    const spoken = calls.length > 0 ? "" : typeof answer === "string" ? answer : jsonText(answer);
    const [content, isCut] = cut(spoken, limit);
    const message = { role: "assistant", content };
    if (calls.length > 0) {
      message.tool_calls = calls.map(({ id, name, arguments: args }) => {
        return { id, type: "function", function: { name, arguments: JSON.stringify(args) } };
      });
    }
    const prompt = request.messages.reduce((sum, turn) => sum + tokens(String(turn.content ?? "")).length, 0);
    const used = tokens(content).length + (calls.length > 0 ? tokens(JSON.stringify(message.tool_calls)).length : 0);
    return {
      object: "chat.completion",
      model: request.model ?? "scripted",
      choices: [{ index: 0, message, finish_reason: isCut ? "length" : calls.length > 0 ? "tool_calls" : "stop" }],
      usage: { prompt_tokens: prompt, completion_tokens: used, total_tokens: prompt + used },
      llmasos: { notices: this.notices, cost_micro_usd: 0 },
    };
  }

  #next(request) {
    if (this.#script.length === 0) {
      const asked = JSON.stringify(request.messages.at(-1).content);
      throw new Error(`ScriptedModel has no answer left, and was asked: ${asked}; add one with answers()`);
    }
    const step = this.#script[0];
    const repeats = typeof step === "function" && this.#script.length === 1;
    if (!repeats) this.#script.shift();
    return typeof step === "function" ? step(request) : step;
  }
}

/** The text up to so many tokens, and whether anything was lost. */
function cut(text, limit) {
  const found = tokens(text);
  if (found.length <= limit) return [text, false];
  const last = found[limit - 1];
  return [text.slice(0, last.index + last[0].length), true];
}

/** A completion as the chunks of a stream; the last one carries the usage. */
function chunksOf(completion) {
  const { message, finish_reason } = completion.choices[0];
  const deltas = (message.content.match(/\S+\s*|\s+/g) ?? []).map((content) => ({ content }));
  deltas.push(...(message.tool_calls ?? []).map((call, index) => ({ tool_calls: [{ index, ...call }] })));
  const base = { object: "chat.completion.chunk", model: completion.model };
  const parts = deltas.map((delta) => ({ ...base, choices: [{ index: 0, delta, finish_reason: null }] }));
  const end = { index: 0, delta: {}, finish_reason };
  return [...parts, { ...base, choices: [end], usage: completion.usage, llmasos: completion.llmasos }];
}

/** Vectors of counted words: texts that share words are near each other, as with a real model. */
function embeddingsOf(request) {
  const used = request.input.reduce((sum, text) => sum + tokens(text).length, 0);
  return {
    object: "list",
    model: request.model ?? "scripted",
    data: request.input.map((text, index) => ({ index, embedding: vectorOf(text) })),
    usage: { prompt_tokens: used, completion_tokens: 0, total_tokens: used },
    llmasos: { notices: [], cost_micro_usd: 0 },
  };
}

function vectorOf(text) {
  const counts = new Array(DIMENSIONS).fill(0);
  for (const [word] of tokens(text.toLowerCase())) {
    let hash = 2166136261;
    for (const character of word) hash = Math.imul(hash ^ character.codePointAt(0), 16777619) >>> 0;
    counts[hash % DIMENSIONS] += 1;
  }
  const length = Math.hypot(...counts) || 1;
  return counts.map((count) => count / length);
}
