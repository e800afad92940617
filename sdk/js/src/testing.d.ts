import type { App } from "./index.js";
export class ScriptedModel {
  constructor(...script: unknown[]);
  readonly requests: any[];
  readonly openStreams: number;
  answers(...script: unknown[]): void;
}
export class MemoryStorage {
  constructor(options?: { maxBytes?: number });
  readonly values: Record<string, string>;
}
export class FakeHost {
  constructor(fakes?: {
    model?: ScriptedModel;
    storage?: MemoryStorage;
    config?: Record<string, unknown>;
    locale?: string;
    http?: (request: any) => Record<string, unknown>;
    secrets?: string[];
    apps?: Record<string, Record<string, (inputs: any) => unknown>>;
    declined?: string[];
  });
  readonly chunks: string[];
  readonly progress: [number, string][];
  readonly logs: [string, string][];
}
export function call(app: App, action: string, inputs?: Record<string, unknown>, host?: FakeHost): any;
