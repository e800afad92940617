// `ctx.model`: language models, by task and tier rather than by name.

import { jsonText } from "./contract.js";
import { AnswerUnusable, AppError } from "./errors.js";

const usageOf = (document) => ({
  promptTokens: document.usage?.prompt_tokens ?? 0,
  completionTokens: document.usage?.completion_tokens ?? 0,
  costMicroUsd: document.llmasos?.cost_micro_usd ?? null,
});

const noticesOf = (document) => document.llmasos?.notices ?? [];

function toolCallsOf(message) {
  return (message.tool_calls ?? []).map((call) => {
    const raw = call.function?.arguments ?? "";
    let parsed = {};
    try {
      parsed = JSON.parse(raw || "{}");
    } catch {
      // The model's JSON is broken: `raw` has it.
    }
    return { id: call.id ?? "", name: call.function?.name ?? "", arguments: parsed, raw };
  });
}

/** The call that a piece belongs to: by its id, then by its index, then the last; undefined begins another. */
function callOf(calls, part, name) {
  if (part.id) return calls.find((call) => call.id === part.id);
  const same = calls.filter((call) => part.index == null || call.index === part.index).at(-1);
  const another = name && same?.function.arguments && name !== same.function.name;
  return another ? undefined : same;
}

/** The chat-completions request of a call, with nothing in it that was not asked for. */
function requestOf(prompt, options) {
  const { system, maxTokens, topP, toolChoice, requireFit, output, ...given } = options;
  const messages = typeof prompt === "string" ? [{ role: "user", content: prompt }] : [...prompt];
  if (system) messages.unshift({ role: "system", content: system });
  const request = { messages, ...given };
  if (maxTokens !== undefined) request.max_tokens = maxTokens;
  if (topP !== undefined) request.top_p = topP;
  if (requireFit !== undefined) request.require_fit = requireFit;
  if (toolChoice !== undefined) request.tool_choice = toolChoice;
  if (output !== undefined) {
    const described = { name: output.title ?? "answer", schema: output };
    request.response_format = { type: "json_schema", json_schema: described };
  }
  return jsonText(request);
}

function parsedOf(text, finishReason) {
  try {
    return JSON.parse(text);
  } catch {
    if (finishReason === "length") {
      throw new AnswerUnusable(
        "the model's answer was cut before its JSON ended; raise maxTokens, here and in the manifest",
      );
    }
    throw new AnswerUnusable(`the model did not answer in JSON, but ${JSON.stringify(text.slice(0, 80))}`);
  }
}

/** A streamed answer: iterate over its pieces of text; `completion` is there once it ended. */
export class Stream {
  #host;
  #number;
  #open = true;
  #state = { text: "", model: "", notices: [], finishReason: "stop", usage: {}, calls: [] };

  constructor(host, number) {
    this.#host = host;
    this.#number = number;
  }

  *[Symbol.iterator]() {
    try {
      while (this.#open) {
        const part = this.#host.call("model", "read", this.#number);
        if (part === undefined || part === null) break;
        const text = this.#take(JSON.parse(part));
        if (text) yield text;
      }
    } finally {
      this.close();
    }
  }

  #take(chunk) {
    const state = this.#state;
    state.model = chunk.model ?? state.model;
    state.notices.push(...noticesOf(chunk));
    if (chunk.usage) state.usage.usage = chunk.usage;
    if (chunk.llmasos) state.usage.llmasos = chunk.llmasos;
    const choice = chunk.choices?.[0];
    if (!choice) return "";
    state.finishReason = choice.finish_reason ?? state.finishReason;
    for (const part of choice.delta?.tool_calls ?? []) {
      const name = part.function?.name ?? "";
      let call = callOf(state.calls, part, name);
      if (call === undefined) {
        call = { id: part.id ?? "", index: part.index, function: { name: "", arguments: "" } };
        state.calls.push(call);
      }
      if (name !== call.function.name) call.function.name += name; // some servers repeat it with each piece
      call.function.arguments += part.function?.arguments ?? "";
    }
    const text = choice.delta?.content ?? "";
    state.text += text;
    return text;
  }

  /** What came so far; its usage is exact once the stream ended. */
  get completion() {
    const { text, model, notices, finishReason, usage, calls } = this.#state;
    const toolCalls = toolCallsOf({ tool_calls: calls });
    return { text, model, notices: [...notices], finishReason, usage: usageOf(usage), toolCalls, parsed: undefined };
  }

  /** End the stream. Safe to call twice. */
  close() {
    if (!this.#open) return;
    this.#open = false;
    try {
      this.#host.call("model", "close", this.#number);
    } catch (error) {
      // Where the invocation is ending, so is the stream, and what ended it is the error to see.
      if (!(error instanceof AppError)) throw error;
    }
  }
}

export class ModelClient {
  #host;

  constructor(host) {
    this.#host = host;
  }

  generate(prompt, options = {}) {
    const document = JSON.parse(this.#host.call("model", "generate", requestOf(prompt, options)));
    const choice = document.choices?.[0] ?? {};
    const text = choice.message?.content ?? "";
    const finishReason = choice.finish_reason ?? "stop";
    return {
      text,
      model: document.model ?? "",
      usage: usageOf(document),
      toolCalls: toolCallsOf(choice.message ?? {}),
      notices: noticesOf(document),
      finishReason,
      parsed: options.output === undefined ? undefined : parsedOf(text, finishReason),
    };
  }

  stream(prompt, options = {}) {
    return new Stream(this.#host, this.#host.call("model", "open", requestOf(prompt, options)));
  }

  embed(texts, { model } = {}) {
    const input = typeof texts === "string" ? [texts] : [...texts];
    const request = jsonText(model === undefined ? { input } : { input, model });
    const document = JSON.parse(this.#host.call("model", "embed", request));
    const vectors = (document.data ?? []).map((row) => row.embedding);
    return { vectors, model: document.model ?? "", usage: usageOf(document) };
  }

  countTokens(text) {
    return this.#host.call("model", "count-tokens", text);
  }
}
