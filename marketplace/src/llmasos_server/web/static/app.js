"use strict";

// A passkey: the server's options in the page, the browser's response in the form, which is then sent as any form.
const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (each) => each.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

async function answer(kind, options) {
  options.challenge = bytes(options.challenge);
  if (options.user) options.user.id = bytes(options.user.id);
  for (const each of [...(options.excludeCredentials ?? []), ...(options.allowCredentials ?? [])]) each.id = bytes(each.id);
  const made = await navigator.credentials[kind]({ publicKey: options });
  const response = {};
  for (const part of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"])
    if (made.response[part]) response[part] = text(made.response[part]);
  return JSON.stringify({ id: made.id, rawId: text(made.rawId), type: made.type, response });
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  form.addEventListener("submit", async (event) => {
    if (form.elements.response.value) return;
    event.preventDefault();
    try {
      form.elements.response.value = await answer(form.dataset.passkey, JSON.parse(form.dataset.options));
      form.submit();
    } catch {
      form.querySelector("[data-failed]").hidden = false;
    }
  });
  if ("atOnce" in form.dataset) form.requestSubmit();
}

// Buttons that only a script can serve.
for (const button of document.querySelectorAll("[data-copy]")) button.hidden = false;
document.addEventListener("click", async ({ target }) => {
  const button = target.closest("[data-fill], [data-copy]");
  if (button?.dataset.fill) {
    const field = document.getElementById(button.dataset.fill);
    field.value = button.value;
    field.focus();
  } else if (button) {
    const shown = button.closest(".ended").querySelector("[data-copied]");
    await navigator.clipboard.writeText(button.dataset.copy || shown.innerText);
    button.querySelector("span").textContent = button.dataset.done;
  }
});

// Ctrl+Enter runs what is being written.
for (const form of document.querySelectorAll("form[data-keys]"))
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(form.querySelector("button.main"));
  });

// Search as one types: the same page with other words, of which the list is taken.
for (const form of document.querySelectorAll("form[data-search]")) {
  let waiting, wanted;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
      wanted = address;
      const response = await fetch(address);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const found = page.getElementById(form.dataset.search);
      if (wanted !== address || !found) return;
      document.getElementById(form.dataset.search).replaceChildren(...found.childNodes);
      history.replaceState(null, "", address);
    }, 150);
  });
}

// A run that has not ended: its events as they come, from the first one on; then its answer, as the server shows it.
function follow(live) {
  const source = new EventSource(live.dataset.events);
  const bar = live.querySelector("progress");
  const on = (name, show) => source.addEventListener(name, ({ data }) => show(JSON.parse(data)));
  const ended = async () => {
    source.close();
    const response = await fetch(live.dataset.answer);
    if (!response.ok) return location.reload();
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const button of page.querySelectorAll("[data-copy]")) button.hidden = false;
    live.replaceChildren(...page.body.children);
    live.ariaBusy = "false";
  };
  on("chunk", ({ text }) => live.querySelector("[data-streamed]").append(text));
  on("notice", ({ message }) => (live.querySelector("[data-note]").textContent = message));
  on("progress", ({ fraction, message }) => {
    bar.hidden = false;
    bar.value = fraction;
    live.querySelector("[data-note]").textContent = message;
  });
  source.addEventListener("end", ended);
  source.addEventListener("error", ({ data }) => (data || source.readyState === EventSource.CLOSED) && ended());
}
document.querySelectorAll("[data-events]").forEach(follow);

// A part of a page that changes by itself: it is taken from the same page until that no longer says so.
for (const region of document.querySelectorAll("[data-poll]")) {
  const again = async () => {
    const response = await fetch(location.href).catch(() => null);
    if (response?.redirected) return location.assign(response.url);
    const page = response && new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page?.getElementById(region.id);
    const goes = !fresh || "poll" in fresh.dataset;
    if (fresh && fresh.innerHTML !== region.innerHTML) region.replaceChildren(...fresh.childNodes);
    if (goes) setTimeout(again, 1000);
  };
  setTimeout(again, 1000);
}

// Installed as an app, the pages say so if the server cannot be reached.
navigator.serviceWorker?.register("/service-worker.js").catch(() => {});
