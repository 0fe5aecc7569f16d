import { ask, byId, onClick, poll, setBar, setList, setText } from "./demo.js";

const STRATEGIES = ["fixed-window", "sliding-window", "gcra"];

// The fields of a response tell how many requests are left, also if it is a 429.
function show(strategy, { status, headers }) {
  const left = Number(headers.get("X-RateLimit-Remaining"));
  setText(byId(`${strategy}-left`), left);
  setBar(byId(strategy), left, 10);
  byId(strategy).dataset.kind = left > 3 ? "fresh" : left > 0 ? "stale" : "gone";
  setText(byId(`${strategy}-state`), status === 429 ? "refuses requests" : "");
}

poll(async () => {
  for (const strategy of STRATEGIES) show(strategy, await ask(`/limits/${strategy}`));
});

async function send() {
  for (const strategy of STRATEGIES) show(strategy, await ask(`/limits/${strategy}`, {}));
}

onClick("send", send);
onClick("send12", async () => {
  for (let number = 0; number < 12; number++) await send();
});

onClick("burst", async () => {
  const requests = [...Array(12).keys()].map((number) => ask(`/limits/exact?${number}`));
  const answers = await Promise.all(requests);
  const refused = answers.filter((answer) => answer.status === 429);
  const wait = refused.length ? ` Retry after ${refused[0].headers.get("Retry-After")} s.` : "";
  setText(byId("passed"), `${answers.length - refused.length} of ${answers.length} passed.${wait}`);
  setList(
    byId("burst-answers"),
    answers.map(({ status }) => ({ text: status, kind: status === 429 ? "bad" : "good" })),
  );
});
