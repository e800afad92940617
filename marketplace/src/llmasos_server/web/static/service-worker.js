"use strict";
const NAME = KEPT.join(" ");
const anonymous = (path) => new Request(path, { credentials: "omit", cache: "reload" });

self.addEventListener("install", (event) =>
  event.waitUntil(caches.open(NAME).then((kept) => kept.addAll(KEPT.map(anonymous)))));
self.addEventListener("activate", (event) =>
  event.waitUntil(caches.keys().then((names) =>
    Promise.all(names.filter((name) => name !== NAME).map((name) => caches.delete(name))))));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET") return;
  if (request.mode === "navigate") event.respondWith(fetch(request).catch(() => caches.match(KEPT[0])));
  else if (KEPT.includes(new URL(request.url).pathname, 1))
    event.respondWith(caches.match(request.url.split("#")[0]).then((found) => found ?? fetch(request)));
});
