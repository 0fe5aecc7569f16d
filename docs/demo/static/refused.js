import { byId, setText } from "./demo.js";

const shown = byId("seconds");
const end = performance.now() + 1000 * Number(shown.dataset.seconds);

function show() {
  const left = Math.max(Math.ceil((end - performance.now()) / 1000), 0);
  setText(shown, left || "Now");
  if (left) setTimeout(show, 200);
  else setText(byId("wait"), "you can open it again.");
}

show();
