// What the pages share: requests, polling, and figures on the page.

export const byId = (id) => document.getElementById(id);

const csrfToken = () => (document.cookie.match(/(?:^|; )demo_csrf=([^;]*)/) || [])[1] || "";

// Send a GET, or a POST with data as JSON. Return the status, headers, body and milliseconds.
export async function ask(path, data, { expects503 = false } = {}) {
  const began = performance.now();
  const options = { cache: "no-store", headers: { Accept: "application/json" } };
  if (data !== undefined) {
    options.method = "POST";
    options.body = JSON.stringify(data);
    Object.assign(options.headers, {
      "Content-Type": "application/json",
      "X-CSRF-Token": csrfToken(),
    });
  }
  const response = await fetch(path, options);
  const milliseconds = performance.now() - began;
  const isJSON = (response.headers.get("Content-Type") || "").includes("json");
  const body = isJSON ? await response.json() : {};
  if (response.status === 503 && !expects503) throw new Unavailable();
  return { status: response.status, headers: response.headers, body, milliseconds };
}

class Unavailable extends Error {}

// Tell in the page what went wrong, and take it back when it works again.
function notice(error) {
  const text = !error
    ? ""
    : error instanceof Unavailable
      ? "The store is unavailable, so this page gets 503. The page Outage starts it."
      : "The demo does not answer. Has it ended?";
  setText(byId("notice"), text);
  byId("notice").hidden = !text;
}

// The actions of a page run one after the other. So no poll is under way while a button changes
// the session or its id.
let last = Promise.resolve();
export function inTurn(work) {
  const result = last.then(work).then(
    () => notice(),
    (error) => {
      notice(error);
      if (!(error instanceof Unavailable || error instanceof TypeError)) console.error(error);
    },
  );
  last = result;
  return result;
}

// Call a function now and then again, but not while nobody looks.
export async function poll(show, seconds = 0.5) {
  if (!document.hidden) await inTurn(show);
  setTimeout(() => poll(show, seconds), seconds * 1000);
}

export function onClick(id, work) {
  byId(id).addEventListener("click", () => inTurn(work));
}

export function onSubmit(id, work) {
  byId(id).addEventListener("submit", (event) => {
    event.preventDefault();
    inTurn(work);
  });
}

// Change the text of an element only if it differs, so that a screen reader says it once.
export function setText(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

export function setBadge(element, text, kind) {
  setText(element, text);
  element.dataset.kind = kind;
}

export function setBar(bar, value, most) {
  bar.setAttribute("aria-valuenow", Math.round(value * 10) / 10);
  bar.firstElementChild.style.width = `${Math.min((100 * value) / most, 100)}%`;
}

// Fill a list with items: {text, kind, title}.
export function setList(list, items) {
  list.replaceChildren(
    ...items.map(({ text, kind = "", title = "" }) => {
      const item = document.createElement("li");
      item.textContent = text;
      item.className = kind;
      if (title) item.title = title;
      return item;
    }),
  );
}

export const seconds = (value) => `${value.toFixed(1)} s`;
export const inWords = (milliseconds) =>
  milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : `${Math.round(milliseconds).toLocaleString("en")} ms`;
