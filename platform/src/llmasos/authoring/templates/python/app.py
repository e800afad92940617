"""%%title: greets people, and remembers nobody."""

from llmasos_sdk import App, Context

app = App()


@app.action(title={"en": "Greet", "zh": "问候"})
def greet(ctx: Context, name: str) -> str:
    """Write a warm greeting for somebody.

    Args:
        name: Who is greeted.
    """
    tone = ctx.config.get("tone", "warm")
    prompt = f"Write one short, {tone} sentence that greets {name} by name."
    answer = ctx.model.generate(prompt, task="write", max_tokens=60)
    ctx.log.info(f"answered by {answer.model}")
    return answer.text.strip()
