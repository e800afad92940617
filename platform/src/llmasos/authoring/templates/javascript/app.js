// %%title: greets people, and remembers nobody.

import { App } from "@llmasos/sdk";

const app = new App();

app.action(
  "greet",
  {
    title: { en: "Greet", zh: "问候" },
    description: "Write a warm greeting for somebody.",
    input: { name: { type: "string", description: "Who is greeted." } },
    output: { type: "string" },
  },
  (ctx, { name }) => {
    const tone = ctx.config.tone ?? "warm";
    const prompt = `Write one short, ${tone} sentence that greets ${name} by name.`;
    const answer = ctx.model.generate(prompt, { task: "write", maxTokens: 60 });
    ctx.log.info(`answered by ${answer.model}`);
    return answer.text.trim();
  },
);

export default app;
