import { ask, byId, onClick, setList, setText } from "./demo.js";

const TABS = [...Array(10).keys()].map((index) => index + 1);

async function run(onConflict) {
  setText(byId(onConflict), "…");
  setList(byId(`${onConflict}-tabs`), TABS.map((text) => ({ text, kind: "waiting" })));
  await ask(`/tabs/${onConflict}/begin`, {});
  await Promise.all(TABS.map((tab) => ask(`/tabs/${onConflict}/add/${tab}`, {})));
  const { kept } = (await ask(`/tabs/${onConflict}/kept`)).body;
  setText(byId(onConflict), `${kept.length} of ${TABS.length}`);
  setList(
    byId(`${onConflict}-tabs`),
    TABS.map((tab) => ({
      text: tab,
      kind: kept.includes(tab) ? "good" : "bad",
      title: kept.includes(tab) ? "kept" : "lost",
    })),
  );
}

for (const onConflict of ["merge", "overwrite"]) {
  setList(byId(`${onConflict}-tabs`), TABS.map((text) => ({ text, kind: "waiting" })));
}

onClick("run", async () => {
  await run("merge");
  await run("overwrite");
});
