// Requests to the server of this page, and its events.

const BASE = location.pathname;

export const address = (path) => BASE + path;

/** An answer other than success, with the server's reason. */
export class Refused extends Error {
  /** @param {string} reason @param {number} status */
  constructor(reason, status) {
    super(reason);
    this.status = status;
  }
}

/**
 * @param {string} path below the address of the page
 * @param {RequestInit} [options]
 */
export async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(address(path), options);
  } catch {
    throw new Error("the program does not answer; is it still running?");
  }
  if (answer.ok) return answer;
  const received = await answer.json().catch(() => ({}));
  throw new Refused(received.error ?? `status ${answer.status}`, answer.status);
}

/** @param {string} path @returns {Promise<any>} */
export const get = async (path) => (await ask(path)).json();

/** @param {string} path @param {object} [values] @returns {Promise<any>} */
export async function post(path, values = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(values) })).json();
}

/**
 * Calls a function with the value of each event of its name, and `again` when the connection is back after it was lost.
 *
 * @param {Record<string, (value: any) => void>} acts
 * @param {() => void} again
 */
export function listen(acts, again) {
  const source = new EventSource(address("events"));
  let lost = false;
  for (const [name, act] of Object.entries(acts)) source.addEventListener(name, (event) => act(JSON.parse(event.data)));
  source.addEventListener("error", () => { lost = true; });
  source.addEventListener("open", () => {
    if (lost) again();
    lost = false;
  });
}
