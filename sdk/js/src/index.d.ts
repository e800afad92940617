export interface Usage {
  promptTokens: number;
  completionTokens: number;
  /** Millionths of a US dollar; null where the price is unknown. */
  costMicroUsd: number | null;
}
export interface ToolCall {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
  raw: string;
}
export interface Completion<T = undefined> {
  text: string;
  model: string;
  parsed: T;
  usage: Usage;
  toolCalls: ToolCall[];
  notices: string[];
  finishReason: string;
}
export type Schema = Record<string, unknown>;
export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string | null;
  [key: string]: unknown;
}
export interface GenerateOptions {
  system?: string;
  model?: string;
  tier?: "fast" | "balanced" | "best";
  task?:
    | "chat" | "classify" | "extract" | "summarise" | "translate"
    | "write" | "code" | "reason" | "question" | "other";
  /** Of the answer, BCP 47. */
  language?: string;
  /** Fail rather than let a model answer that is not fit for the task and the language. */
  requireFit?: boolean;
  maxTokens?: number;
  temperature?: number;
  topP?: number;
  seed?: number;
  stop?: string[];
  tools?: Schema[];
  toolChoice?: string | Schema;
}
export class Stream implements Iterable<string> {
  [Symbol.iterator](): Generator<string>;
  readonly completion: Completion;
  close(): void;
}
export interface ModelClient {
  generate(prompt: string | Message[], options?: GenerateOptions): Completion;
  generate<T>(prompt: string | Message[], options: GenerateOptions & { output: Schema }): Completion<T>;
  stream(prompt: string | Message[], options?: GenerateOptions): Stream;
  embed(texts: string | string[], options?: { model?: string }): { vectors: number[][]; model: string; usage: Usage };
  countTokens(text: string): number;
}
export interface Entry {
  readonly value: Uint8Array;
  readonly text: string;
  readonly version: number;
  json(): unknown;
}
export interface StorageClient {
  entry(key: string): Entry | undefined;
  get(key: string): string | undefined;
  get(key: string, missing: string): string;
  getBytes(key: string): Uint8Array | undefined;
  getJson<T>(key: string, missing?: T): T;
  put(key: string, value: string | Uint8Array): number;
  putJson(key: string, value: unknown): number;
  compareAndSet(key: string, expected: number | undefined, value: string | Uint8Array): number;
  updateJson<T>(key: string, change: (value: T) => T, missing?: T): T;
  delete(key: string): boolean;
  keys(prefix?: string): Iterable<string>;
}
export interface Response {
  readonly status: number;
  readonly ok: boolean;
  readonly url: string;
  /** By their names in lower case. */
  readonly headers: Record<string, string>;
  /** The body as text. */
  readonly body: string;
  bytes(): Uint8Array;
  json(): unknown;
}
export interface HttpOptions {
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  json?: unknown;
}
export interface HttpClient {
  request(method: string, url: string, options?: HttpOptions): Response;
  get(url: string, options?: HttpOptions): Response;
  post(url: string, options?: HttpOptions): Response;
}
/**
 * One invocation. Using a capability that the manifest does not declare throws. One whose optional permission was
 * declined is undefined: ask `has` before using it, and do without.
 */
export class Context {
  readonly model: ModelClient;
  readonly storage: StorageClient;
  readonly http: HttpClient;
  readonly secrets: { names(): string[] };
  readonly apps: { call(app: string, action: string, inputs?: Record<string, unknown>): unknown };
  readonly output: { progress(fraction: number, message?: string): void };
  readonly log: Record<"debug" | "info" | "warning" | "error", (message: string) => void>;
  readonly config: Readonly<Record<string, unknown>>;
  readonly locale: string;
  /** Whether the action may use a capability: declared, and granted. */
  has(capability: "model" | "storage" | "http" | "secrets" | "apps"): boolean;
}
/** A file that an action takes or returns, of at most 750,000 bytes. An input of `File.schema()` comes as one. */
export class File {
  constructor(name: string, content: Uint8Array | string, mediaType?: string);
  readonly name: string;
  readonly content: Uint8Array;
  readonly mediaType: string;
  readonly text: string;
  toJSON(): { name: string; media_type: string; base64: string };
  static schema(texts?: { title?: string; description?: string }): Schema;
}
export interface ActionOptions {
  title?: string | { en: string; zh?: string };
  description?: string;
  /** A JSON Schema for each input. One with a `default` may be left out. */
  input?: Record<string, Schema>;
  required?: string[];
  output?: Schema;
}
export type Run<I> = (ctx: Context, inputs: I) => unknown;
export class App {
  action<I = Record<string, never>>(name: string, run: Run<I>): this;
  action<I = Record<string, unknown>>(name: string, options: ActionOptions, run: Run<I>): this;
  onInstall(run: (ctx: Context) => void): this;
  onUpgrade(run: (ctx: Context, fromVersion: string) => void): this;
  onUninstall(run: (ctx: Context) => void): this;
  onEvent(run: (ctx: Context, event: { name: "grants"; payload: Record<"held" | "added" | "removed", string[]> }) => void): this;
  describe(): Schema[];
}
export class AppError extends Error {
  readonly tag: string;
}
export class Denied extends AppError {}
export class CapabilityNotDeclared extends Denied {}
export class PermissionDeclined extends Denied {}
export class QuotaExceeded extends AppError {}
export class Invalid extends AppError {}
export class AppFailed extends Invalid {}
export class Unavailable extends AppError {}
export class AnswerUnusable extends Unavailable {}
export class TimedOut extends AppError {}
export class Cancelled extends AppError {}
export class NotFound extends AppError {}
export class Conflict extends AppError {}
