// Runs an action in the sandbox of `llmasos test --sandbox`, over the fakes of the test. The command runs the app, and
// listens on a Unix socket for the calls of the tests. `call` is synchronous and Node's sockets are not, so that a
// worker has the socket, and this thread waits for what it receives.

import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads";

import { AppError, AppFailed, fromTag, Unavailable } from "../errors.js";

class Connection {
  #port;
  #received = new Int32Array(new SharedArrayBuffer(4));
  #worker;

  constructor(path) {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData = { path, port: port2, received: this.#received };
    const worker = new URL("./sandbox-worker.js", import.meta.url);
    this.#worker = new Worker(worker, { workerData, transferList: [port2], execArgv: [] });
    this.#worker.unref();
  }

  send(message) {
    this.#port.postMessage(JSON.stringify(message));
  }

  /** The next line from the sandbox; undefined if it has ended. */
  receive() {
    for (;;) {
      const seen = Atomics.load(this.#received, 0);
      const message = receiveMessageOnPort(this.#port);
      if (message !== undefined) return message.message === null ? undefined : JSON.parse(message.message);
      Atomics.wait(this.#received, 0, seen);
    }
  }

  close() {
    this.#port.close();
    this.#worker.terminate();
  }
}

/** Run an action, and return its output as JSON text. What it printed is printed here. */
export function callInSandbox(path, action, input, host) {
  const connection = new Connection(path);
  try {
    connection.send({ action, input });
    for (;;) {
      const told = connection.receive();
      if (told === undefined) throw new Unavailable("the sandbox has ended: run `llmasos test --sandbox` again");
      if (told.call !== undefined) {
        connection.send(served(host, ...told.call));
        continue;
      }
      if (told.log !== "") process.stdout.write(told.log);
      if (told.error !== null) throw errorOf(told.error);
      return told.output;
    }
  } finally {
    connection.close();
  }
}

/** The answer to a host call. A fake that failed with an error of its own ends the call, as without the sandbox. */
function served(host, capability, name, given) {
  try {
    return { value: host.call(capability, name, ...given) ?? null };
  } catch (error) {
    if (!(error instanceof AppError)) throw new AppFailed(`the app failed: ${error}`);
    return { error: { tag: error.tag, message: error.told } };
  }
}

/** The error, which has crossed as its case alone. An app that failed is known by its words. */
function errorOf({ tag, message }) {
  return message.startsWith("the app failed: ") ? new AppFailed(message) : fromTag(tag, message);
}
