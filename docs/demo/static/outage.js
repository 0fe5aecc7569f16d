import { ask, byId, inWords, onClick, poll, setBadge, setList, setText } from "./demo.js";

const KINDS = { running: "good", paused: "fair", stopped: "bad" };
const WORDS = { running: "running", paused: "hanging", stopped: "stopped" };
const PATHS = {
  cache: "/outage/cache",
  session: "/outage/session",
  limit: "/outage/limit",
  health: "/health",
};
const strips = { cache: [], session: [], limit: [], health: [] };
const slowest = [];

function showState({ state, is_server: isServer, keeps_data: keepsData }) {
  setBadge(byId("state"), WORDS[state], KINDS[state]);
  byId("memory").hidden = isServer;
  byId("controls").hidden = !isServer;
  setText(byId("keeps"), keepsData ? "Its data survive a stop." : "A stop loses its data, so sessions start again.");
}

// What a visitor gets from each view: a kind for the colour, words, and what differs each time.
const MEANINGS = {
  cache: ({ body }) =>
    body.computed ? ["fair", "not in the store: computed"] : ["good", "found in the store"],
  session: ({ body, headers, status }) =>
    status === 503
      ? ["bad", `503, with Retry-After: ${headers.get("Retry-After")}`]
      : ["good", "200", `visit ${body.visits}`],
  limit: ({ body, headers }) =>
    body.counted
      ? ["good", "passed", `${headers.get("X-RateLimit-Remaining")} left`]
      : ["fair", "passed, but not counted"],
  health: ({ body, status }) =>
    status === 503
      ? ["bad", "503: do not send visitors here"]
      : ["good", "200", `${body.stores.length} stores checked`],
};

function show(name, answer) {
  const [kind, words, ...details] = MEANINGS[name](answer);
  const detail = [...details, inWords(answer.milliseconds)].join(", ");
  setText(byId(name), words);
  setText(byId(`${name}-detail`), detail);
  strips[name].push({ text: "", kind, title: `${words}, ${detail}` });
  strips[name].splice(0, strips[name].length - 40);
  setList(byId(`${name}-strip`), strips[name]);
  return answer.milliseconds;
}

async function probe() {
  const names = Object.keys(PATHS);
  const answers = await Promise.all(names.map((name) => ask(PATHS[name], undefined, { expects503: true })));
  slowest.push(Math.max(...names.map((name, index) => show(name, answers[index]))));
  slowest.splice(0, slowest.length - 60);
  setText(byId("slowest"), inWords(Math.max(...slowest)));
  showState((await ask("/outage/store")).body);
}

poll(probe, 1);

for (const action of ["stop", "pause", "start"]) {
  onClick(action, async () => showState((await ask(`/outage/store/${action}`, {})).body));
}
