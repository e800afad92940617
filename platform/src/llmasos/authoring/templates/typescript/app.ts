// %%title: greets people, and remembers nobody.

import { App, type Message } from "@llmasos/sdk";

const app = new App();

app.action<{ name: string }>(
  "greet",
  {
    title: { en: "Greet", zh: "问候" },
    description: "Write a warm greeting for somebody.",
    input: { name: { type: "string", description: "Who is greeted." } },
    output: { type: "string" },
  },
  (ctx, { name }) => {
    const tone = ctx.config.tone ?? "warm";
    // An earlier turn shows even a small model what is wanted.
    const turns: Message[] = [
      { role: "user", content: `Write one ${tone} sentence that greets Tom by name.` },
      { role: "assistant", content: "Good morning, Tom, it is lovely to see you here!" },
      { role: "user", content: `Write one ${tone} sentence that greets ${name} by name.` },
    ];
    const answer = ctx.model.generate(turns, { task: "write", temperature: 0.1, maxTokens: 60 });
    ctx.log.info(`answered by ${answer.model}`);
    return answer.text.trim();
  },
);

export default app;
