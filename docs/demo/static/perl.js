import { ask, byId, onClick, poll, setText } from "./demo.js";

let shown = null;

const printable = (code) => (code > 32 && code < 127 ? String.fromCharCode(code) : ".");

// Show bytes as lines of 8, in hexadecimal and as characters, and mark those that differ.
function dump(bytes, before) {
  const isNew = (index) => before !== null && bytes[index] !== before[index];
  const lines = [];
  for (let start = 0; start < bytes.length; start += 8) {
    const part = bytes.slice(start, start + 8);
    lines.push(...part.map((byte, index) => span(`${byte} `, isNew(start + index))));
    lines.push("   ".repeat(8 - part.length) + " ");
    lines.push(...part.map((byte, index) => span(printable(parseInt(byte, 16)), isNew(start + index))));
    lines.push("\n");
  }
  byId("bytes").replaceChildren(...lines);
}

function span(text, isMarked) {
  if (!isMarked) return text;
  const element = document.createElement("mark");
  element.textContent = text;
  return element;
}

async function show() {
  const { body } = await ask("/perl/state");
  const bytes = body.data ? body.data.match(/../g) : null;
  if (String(bytes) === String(shown)) return;
  setText(byId("values"), body.values ? JSON.stringify(body.values, null, 2) : "nothing yet");
  if (bytes) dump(bytes, shown);
  else setText(byId("bytes"), "nothing yet");
  shown = bytes;
}

poll(show, 1);

onClick("log-in", async () => {
  shown = null;
  await ask("/perl/log-in", {});
  await show();
  setText(byId("event"), "Perl has stored a session, and the browser has its cookie.");
});
onClick("visit", async () => {
  await ask("/perl/visit", {});
  await show();
  setText(byId("event"), shown ? "Pyramid has counted a visit in Perl's session." : "Log in with Perl first.");
});
