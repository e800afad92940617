// Files that actions take and return: in JSON, `{"name", "media_type", "base64"}`.

import { encodeUtf8, decodeUtf8, fromBase64, toBase64 } from "./bytes.js";
import { Invalid, Message } from "./errors.js";

// In base64 these are 1,000,000 characters; all that an action takes or returns is held to 1 MiB.
const MAX_FILE_BYTES = 750000;
const MAX_NAME = 255;
const BYTES = "application/octet-stream";
const MEDIA_TYPE = /^[a-z0-9][a-z0-9!#$&^_.+-]{0,62}\/[a-z0-9][a-z0-9!#$&^_.+-]{0,62}$/;
const NOT_PRINTED = /[\p{C}\p{Zl}\p{Zp}]/gu;
const TEXTS = { name: MAX_NAME, media_type: 127, base64: (MAX_FILE_BYTES / 3) * 4 };

/** A file that an action takes or returns, of at most 750,000 bytes. `content` is a Uint8Array or a text. */
export class File {
  constructor(name, content, mediaType = BYTES) {
    this.name = plainName(name);
    this.content = typeof content === "string" ? encodeUtf8(content) : content;
    this.mediaType = mediaType;
  }

  /** The content as UTF-8 text. */
  get text() {
    return decodeUtf8(this.content);
  }

  toJSON() {
    checkSize(this.content.length, this.name);
    return { name: this.name, media_type: this.mediaType, base64: toBase64(this.content) };
  }

  /** The file that JSON holds. */
  static from(document, place = "the value") {
    const isFile = Object.keys(TEXTS).every((name) => typeof document?.[name] === "string");
    if (!isFile) throw misfit(place, new Message("a file is an object with the texts name, media_type and base64"));
    if (!MEDIA_TYPE.test(document.media_type)) {
      throw misfit(place, new Message("the media type of a file is written as in application/pdf"));
    }
    let content;
    try {
      content = fromBase64(document.base64);
    } catch {
      throw misfit(place, new Message("the content of a file is base64"));
    }
    checkSize(content.length, place);
    return new File(document.name, content, document.media_type);
  }

  /** The JSON Schema of a file, for an action's `input` and `output`. */
  static schema({ title, description } = {}) {
    return {
      type: "object",
      ...(title === undefined ? {} : { title }),
      ...(description === undefined ? {} : { description }),
      "x-ui": "file",
      properties: Object.fromEntries(Object.entries(TEXTS).map(([name, maxLength]) => [name, { type: "string", maxLength }])),
      required: Object.keys(TEXTS),
      additionalProperties: false,
    };
  }
}

/** An input with its files as such, by its schema. */
export function withFiles(schema, value, place) {
  if (value === null || value === undefined || typeof schema !== "object") return value;
  if (schema.type === "object" && schema["x-ui"] === "file") return File.from(value, place);
  if (Array.isArray(value) && schema.items) return value.map((each, at) => withFiles(schema.items, each, `${place}[${at}]`));
  const file = (schema.anyOf ?? []).find((each) => each?.["x-ui"] === "file");
  return file === undefined ? value : withFiles(file, value, place);
}

function plainName(name) {
  const last = String(name).replaceAll("\\", "/").split("/").at(-1).replace(NOT_PRINTED, "");
  return [...last].slice(0, MAX_NAME).join("").replace(/^[. ]+|[. ]+$/g, "") || "file";
}

function checkSize(size, place) {
  if (size <= MAX_FILE_BYTES) return;
  throw misfit(place, new Message("the file has {size:,} bytes; {most:,} are the most", { size, most: MAX_FILE_BYTES }));
}

const misfit = (place, error) => new Invalid(new Message("{place}: {error}", { place, error }));
