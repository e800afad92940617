// Digest, without a host. Run with the SDK resolvable: see test_digest.py.

import assert from "node:assert/strict";
import { test } from "node:test";

import app, { pick, rank, sentencesOf, wordsOf } from "../app.js";
import { FakeHost, ScriptedModel, call } from "@llmasos/sdk/testing";

const TEXT = `The lighthouse of Brava was built in 1875 to warn ships. Ships had run aground on the rocks of Brava for centuries.
My cousin likes cheese. The light of the lighthouse can be seen by ships from twenty miles. Since the lighthouse was
built, no ship has run aground on the rocks. Tomorrow it may rain.`;

test("sentences that others lean on are picked, in their order", () => {
  const picked = pick(TEXT, 2);
  assert.equal(picked.length, 2);
  assert.ok(picked.every((sentence) => /lighthouse|rocks/.test(sentence)));
  assert.ok(TEXT.replace(/\s+/g, " ").indexOf(picked[0]) < TEXT.replace(/\s+/g, " ").indexOf(picked[1]));
});

test("nothing is made up: every sentence is the text's own", () => {
  const flat = TEXT.replace(/\s+/g, " ");
  for (const sentence of pick(TEXT, 20)) assert.ok(flat.includes(sentence));
});

test("Chinese is cut at its own marks", () => {
  assert.deepEqual(sentencesOf("灯塔建于一八七五年。它警告过往船只！"), ["灯塔建于一八七五年。", "它警告过往船只！"]);
  assert.ok(wordsOf("灯塔").has("灯塔"));
});

test("ranks stay with their sentence, and a sentence that shares nothing ranks lowest", () => {
  const ranks = rank(["ships pass the old lighthouse", "the old lighthouse warns ships", "cheese tastes good"]);
  assert.ok(ranks[2] < Math.min(ranks[0], ranks[1]));
});

test("the headline is the model's first line, without quotes", () => {
  const host = new FakeHost({ model: new ScriptedModel('"The Light of Brava"\nMore.') });
  const answer = call(app, "summarise", { text: TEXT, sentences: 1 }, host);
  assert.equal(answer.headline, "The Light of Brava");
  assert.equal(answer.sentences.length, 1);
});

test("a text without sentences, and one with too many, say what to do", () => {
  const host = new FakeHost({ model: new ScriptedModel("x") });
  assert.throws(() => call(app, "summarise", { text: "..." }, host), /three words/);
  assert.throws(() => call(app, "summarise", { text: "one two three. ".repeat(401) }, host), /400 are the most/);
});
