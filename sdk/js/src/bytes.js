// Bytes and texts. A component has neither `atob` nor `TextEncoder`.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const VALUES = new Int8Array(128).fill(-1);
for (let value = 0; value < 64; value += 1) VALUES[DIGITS.charCodeAt(value)] = value;

/** Bytes as base64. */
export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 3) {
    const group = (bytes[at] << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
    text += DIGITS[group >> 18] + DIGITS[(group >> 12) & 63];
    text += at + 1 < bytes.length ? DIGITS[(group >> 6) & 63] : "=";
    text += at + 2 < bytes.length ? DIGITS[group & 63] : "=";
  }
  return text;
}

/** The bytes of base64, as strict as the host's reader. */
export function fromBase64(text) {
  const length = text.length - (text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0);
  if (text.length % 4 !== 0) throw new TypeError("base64 comes in groups of four");
  const bytes = new Uint8Array(Math.floor((length * 3) / 4));
  let [held, bits, at] = [0, 0, 0];
  for (let index = 0; index < length; index += 1) {
    const value = VALUES[text.charCodeAt(index)] ?? -1;
    if (value < 0) throw new TypeError(`${text[index]} is not of base64`);
    held = ((held << 6) | value) & 0xffffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[at] = (held >> bits) & 255;
      at += 1;
    }
  }
  return bytes;
}

/** A text's bytes in UTF-8. */
export function encodeUtf8(text) {
  const bytes = [];
  for (const character of text) {
    const code = character.codePointAt(0);
    if (code < 0x80) bytes.push(code);
    else if (code < 0x800) bytes.push(0xc0 | (code >> 6), 0x80 | (code & 63));
    else if (code < 0x10000) bytes.push(0xe0 | (code >> 12), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
    else bytes.push(0xf0 | (code >> 18), 0x80 | ((code >> 12) & 63), 0x80 | ((code >> 6) & 63), 0x80 | (code & 63));
  }
  return Uint8Array.from(bytes);
}

// The least code of each length: a longer form of a smaller one is no UTF-8.
const LEAST = [0, 0, 0x80, 0x800, 0x10000];

/** The text of bytes in UTF-8; what is none becomes U+FFFD. */
export function decodeUtf8(bytes) {
  const parts = [];
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at];
    const length = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 : first >= 0xe0 && first < 0xf0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0;
    let code = length === 1 ? first : first & (0xff >> (length + 1));
    let read = 1;
    while (read < length && (bytes[at + read] & 0xc0) === 0x80) {
      code = (code << 6) | (bytes[at + read] & 63);
      read += 1;
    }
    const isCharacter = length > 0 && read === length && code >= LEAST[length] && code < 0x110000 && (code < 0xd800 || code > 0xdfff);
    parts.push(isCharacter ? String.fromCodePoint(code) : "\ufffd");
    at += isCharacter ? length : 1;
  }
  return parts.join("");
}

/** A value as the contract carries it: text as it is, bytes as base64. */
export const carriedValue = (value) => (value instanceof Uint8Array ? [toBase64(value), true] : [value, false]);
