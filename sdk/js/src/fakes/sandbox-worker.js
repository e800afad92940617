// Carries lines between the sandbox's socket and the thread of the test, which waits for them.

import { connect } from "node:net";
import { createInterface } from "node:readline";
import { workerData } from "node:worker_threads";

const { path, port, received } = workerData;

function pass(line) {
  port.postMessage(line);
  Atomics.add(received, 0, 1);
  Atomics.notify(received, 0);
}

const socket = connect(path);
socket.on("error", () => {}); // it then closes
socket.on("close", () => pass(null));
createInterface({ input: socket, crlfDelay: Infinity }).on("line", pass);
port.on("message", (line) => socket.write(`${line}\n`));
