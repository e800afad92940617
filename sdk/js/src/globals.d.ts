// What the sandbox has besides the language itself; it is neither a browser nor Node.js.
declare const console: Record<"log" | "info" | "debug" | "warn" | "error", (...values: unknown[]) => void>;
declare function queueMicrotask(run: () => void): void;
declare function atob(text: string): string;
declare function btoa(text: string): string;
declare const performance: { now(): number };
declare class DOMException extends Error {
  constructor(message?: string, name?: string);
}
