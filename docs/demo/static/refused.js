import { byId, setText } from "./demo.js";

const shown = byId("seconds");
const end = performance.now() + 1000 * Number(shown.dataset.seconds);

function show() {
  const left = Math.max(Math.ceil((end - performance.now()) / 1000), 0);
  setText(shown, left);
  if (left) setTimeout(show, 200);
  else setText(byId("wait"), "The page can be opened again.");
}

show();
