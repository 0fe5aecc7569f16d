import { ask, byId, inWords, onClick, poll, seconds, setBadge, setBar, setList, setText } from "./demo.js";

const STALE = 20; // seconds that the value is kept after its ttl
let freshness = "gone";

poll(async () => {
  const { body } = await ask("/cache/state");
  freshness = body.left > STALE ? "fresh" : body.left > 0 ? "stale" : "gone";
  setText(byId("number"), body.left > 0 ? body.number : "none");
  setBadge(byId("freshness"), freshness, { fresh: "good", stale: "fair", gone: "bad" }[freshness]);
  setBar(byId("life"), body.left, 30);
  byId("life").dataset.kind = freshness;
  setText(byId("age"), body.left > 0 ? seconds(body.age) : "-");
  setText(byId("left"), body.left > 0 ? seconds(body.left) : "-");
});

function show(answers) {
  const computed = answers.filter((answer) => answer.body.computed);
  const waited = answers.map((answer) => answer.milliseconds);
  const others = answers.filter((answer) => !answer.body.computed).map((answer) => answer.milliseconds);
  const fastest = others.length ? ` The others had it after ${inWords(Math.min(...others))} to ${inWords(Math.max(...others))}.` : "";
  setText(
    byId("answer"),
    answers.length === 1
      ? `${computed.length ? "Computed" : `From the store (${freshness})`}, after ${inWords(waited[0])}.`
      : `${computed.length} of ${answers.length} computed it.${fastest}`,
  );
  setList(
    byId("answers"),
    answers.map((answer) => ({
      text: answer.body.computed ? "computed" : inWords(answer.milliseconds),
      kind: answer.body.computed ? "fair" : "good",
    })),
  );
}

// The address differs, because a browser sends requests for one address one after the other.
const report = (number) => ask(`/cache/report?${number}`);

onClick("once", async () => show([await report(0)]));
onClick("ten", async () => show(await Promise.all([...Array(10).keys()].map(report))));
onClick("delete", async () => {
  await ask("/cache/delete", {});
  setText(byId("answer"), "The value is deleted.");
  setList(byId("answers"), []);
});
