// Picks the sentences that carry a text, and gives it a headline.

import { App, Invalid } from "@llmasos/sdk";

const app = new App();

// Common words say which language it is, not what it is about.
const SMALL = new Set(
  ("a an and are as at be but by for from had has have he her his i in is it its not of on or she that the their " +
    "they this to was we were which will with you").split(" "),
);

// PageRank's own damping; the ranks settle to three digits well before this many rounds.
const DAMPING = 0.85;
const ROUNDS = 40;

// Comparing every sentence with every other grows with their square; this many stay within a second of compute.
const MOST_SENTENCES = 400;

// A headline is written from what was picked, cut to what a small model reads well.
const HEADLINE_CHARACTERS = 1200;

export function sentencesOf(text) {
  const pieces = text.replace(/\s*\n\s*\n\s*/g, "\u0000").split(/(?<=[.!?。！？]["'”’）)]*)\s+|(?<=[。！？])|\u0000/u);
  return pieces.map((piece) => piece.replace(/\s+/g, " ").trim()).filter((piece) => wordsOf(piece).size >= 3);
}

// Words for scripts that have spaces; pairs of characters for Chinese, where a word is mostly two of them.
export function wordsOf(sentence) {
  const words = new Set();
  for (const run of sentence.toLowerCase().match(/[\p{Script=Han}]+|[\p{L}\p{N}']+/gu) ?? []) {
    if (/\p{Script=Han}/u.test(run)) {
      for (let at = 0; at + 1 < run.length; at += 1) words.add(run.slice(at, at + 2));
    } else if (!SMALL.has(run)) {
      words.add(run);
    }
  }
  return words;
}

// Mihalcea and Tarau, "TextRank" (2004): shared words, over the logarithms of the lengths.
function likeness(one, other) {
  let shared = 0;
  for (const word of one) if (other.has(word)) shared += 1;
  return shared === 0 ? 0 : shared / (Math.log(one.size + 1) + Math.log(other.size + 1));
}

export function rank(sentences) {
  const words = sentences.map(wordsOf);
  const edges = words.map((one, at) => words.map((other, to) => (at === to ? 0 : likeness(one, other))));
  const sums = edges.map((row) => row.reduce((sum, weight) => sum + weight, 0));
  let ranks = sentences.map(() => 1);
  for (let round = 0; round < ROUNDS; round += 1) {
    const before = ranks;
    ranks = before.map(
      (_, at) =>
        1 - DAMPING + DAMPING * edges[at].reduce((sum, w, from) => sum + (w && (w / sums[from]) * before[from]), 0),
    );
  }
  return ranks;
}

export function pick(text, count) {
  const sentences = sentencesOf(text);
  if (sentences.length === 0) throw new Invalid("there is no sentence in the text: give at least one of three words");
  if (sentences.length > MOST_SENTENCES) {
    throw new Invalid(`the text has ${sentences.length} sentences; ${MOST_SENTENCES} are the most`);
  }
  const ranks = rank(sentences);
  const best = sentences.map((_, at) => at).sort((one, other) => ranks[other] - ranks[one] || one - other);
  return best.slice(0, count).sort((one, other) => one - other).map((at) => sentences[at]);
}

app.action(
  "summarise",
  {
    title: { en: "Summarise a text", zh: "生成摘要" },
    description: "Pick the sentences that carry a text, in their order, and write a headline.",
    input: {
      text: {
        type: "string",
        title: "Text",
        "x-title": { en: "Text", zh: "文本" },
        description: "The text.",
        minLength: 1,
        maxLength: 200000,
        "x-ui": "textarea",
      },
      sentences: {
        type: "integer",
        title: "Sentences",
        "x-title": { en: "Sentences", zh: "句数" },
        description: "How many sentences to pick.",
        minimum: 1,
        maximum: 20,
        default: 3,
      },
    },
    required: ["text"],
    output: {
      type: "object",
      properties: { headline: { type: "string" }, sentences: { type: "array", items: { type: "string" } } },
      required: ["headline", "sentences"],
    },
  },
  (ctx, { text, sentences }) => {
    const picked = pick(text, sentences);
    const prompt = `Write a headline of at most eight words for this text.\n\n${picked.join(" ").slice(0, HEADLINE_CHARACTERS)}`;
    const answer = ctx.model.generate(prompt, { task: "write", temperature: 0, maxTokens: 32 }).text;
    const headline = answer.trim().split("\n")[0].replace(/^["'“”*#\s]+|["'“”*\s]+$/g, "");
    return { headline, sentences: picked };
  },
);

export default app;
