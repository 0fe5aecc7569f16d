import { ask, byId, onSubmit, poll, seconds, setText } from "./demo.js";

function show(name, record) {
  setText(byId(`${name}-key`), record ? record.key : "-");
  setText(byId(`${name}-bytes`), record ? `${record.bytes} bytes` : "-");
  setText(byId(`${name}-ttl`), record ? seconds(record.ttl) : "-");
  setText(byId(`${name}-data`), record ? record.data : "nothing yet");
}

async function showAll() {
  const { body } = await ask("/record/state");
  show("session", body.session);
  show("cache", body.cache);
}

poll(showAll);

onSubmit("form", async () => {
  await ask("/record/add", { note: byId("note").value });
  await showAll();
});
