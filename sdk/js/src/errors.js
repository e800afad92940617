// What can go wrong between an app and its host: one class a case of the contract's `error` variant.

import { jsonText, wellFormed } from "./contract.js";

/** A sentence that the host can show in other languages: a template in English, and what its fields are filled with. */
export class Message {
  constructor(id, parameters = {}) {
    this.id = id;
    this.parameters = parameters;
  }
  toString() {
    return this.id.replace(/\{(\w+)(:,)?\}/g, (field, name, grouped) => {
      const value = this.parameters[name] ?? field;
      return grouped ? String(value).replace(/\B(?=(\d{3})+$)/g, ",") : value;
    });
  }
}

export class AppError extends Error {
  static tag = "unavailable";
  constructor(message) {
    super(wellFormed(String(message ?? "")));
    this.name = new.target.name;
    this.tag = new.target.tag;
    /** What the host is told: the message as a document if it is one, else its text. */
    this.told = message instanceof Message ? jsonText(message) : this.message;
  }
}
export class Denied extends AppError { static tag = "denied"; }
export class CapabilityNotDeclared extends Denied {}
export class PermissionDeclined extends Denied {}
export class QuotaExceeded extends AppError { static tag = "quota"; }
export class Invalid extends AppError { static tag = "invalid"; }
export class AppFailed extends Invalid {}
export class Unavailable extends AppError { static tag = "unavailable"; }
export class AnswerUnusable extends Unavailable {}
export class TimedOut extends AppError { static tag = "timeout"; }
export class Cancelled extends AppError { static tag = "cancelled"; }
export class NotFound extends AppError { static tag = "not-found"; }
export class Conflict extends AppError { static tag = "conflict"; }

const CASES = [Denied, QuotaExceeded, Invalid, Unavailable, TimedOut, Cancelled, NotFound, Conflict];
const BY_TAG = new Map(CASES.map((kind) => [kind.tag, kind]));

/** The error of a case of the contract's variant; an unknown case is `Unavailable`. */
export function fromTag(tag, message) {
  return new (BY_TAG.get(tag) ?? Unavailable)(message);
}
