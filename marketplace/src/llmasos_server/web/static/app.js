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

// An example of a field is put into it.
for (const button of document.querySelectorAll("[data-fill]"))
  button.addEventListener("click", () => {
    const field = document.getElementById(button.dataset.fill);
    field.value = button.value;
    field.focus();
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
