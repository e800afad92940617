import type { App } from "./index.js";
export class ToolCall {
  constructor(id: string, name: string, args?: Record<string, unknown>);
}
export class ScriptedModel {
  constructor(...script: unknown[]);
  readonly requests: any[];
  readonly openStreams: number;
  maxOutputTokens: number;
  notices: string[];
  isFit: boolean;
  answers(...script: unknown[]): void;
}
export class MemoryStorage {
  constructor(options?: { values?: Record<string, string>; maxBytes?: number });
  readonly values: Record<string, string>;
}
export class FakeHost {
  constructor(fakes?: {
    model?: ScriptedModel;
    storage?: MemoryStorage;
    config?: Record<string, unknown>;
    locale?: string;
    http?: (request: any) => { status: number; headers?: Record<string, string>; body?: string | Uint8Array };
    secrets?: string[];
    apps?: Record<string, Record<string, (inputs: any) => unknown>>;
    declined?: string[];
  });
  readonly chunks: string[];
  readonly progress: [number, string][];
  readonly logs: [string, string][];
  readonly httpRequests: any[];
}
export function call(app: App, action: string, inputs?: Record<string, unknown>, host?: FakeHost): any;
