import { ask, byId, inTurn, onClick, onSubmit, poll, setText } from "./demo.js";

let user = null;
let drawn = "";

function row({ handle, age, is_current: isCurrent }) {
  const line = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  name.textContent = isCurrent ? "this one" : "another one";
  const since = document.createElement("td");
  since.textContent = age < 60 ? "just now" : `${Math.floor(age / 60)} min ago`;
  const action = document.createElement("td");
  const button = document.createElement("button");
  button.className = "quiet";
  button.textContent = "End";
  button.setAttribute("aria-label", `End ${name.textContent}`);
  button.addEventListener("click", () =>
    inTurn(async () => {
      await ask("/login/end", { handle });
      await show(isCurrent ? "You have ended this session." : "The other browser is logged out.");
    }),
  );
  action.append(button);
  line.append(name, since, action);
  return line;
}

// Draw the sessions only if they have changed, so that a focused button stays where it is.
function draw(sessions) {
  const seen = JSON.stringify(sessions.map(({ handle, age }) => [handle, Math.floor(age / 60)]));
  if (seen === drawn) return;
  drawn = seen;
  byId("sessions").replaceChildren(...sessions.map(row));
}

async function show(event = "Another browser has ended your session: you are logged out.") {
  const { body } = await ask("/login/state");
  byId("out").hidden = Boolean(body.user);
  byId("in").hidden = !body.user;
  setText(byId("name"), body.user || "");
  byId("table").hidden = body.sessions === null;
  draw(body.sessions || []);
  const count = body.sessions === null
    ? "memcached cannot list sessions, but it can end all of them."
    : `You are logged in with ${body.sessions.length === 1 ? "one browser" : `${body.sessions.length} browsers`}.`;
  setText(byId("count"), count);
  if (body.user !== user && (user || body.user)) {
    setText(byId("event"), body.user ? `You are logged in as ${body.user}.` : event);
  } else if (arguments.length) {
    setText(byId("event"), event);
  }
  user = body.user;
}

poll(() => show(), 1);

onSubmit("form", async () => {
  await ask("/login/in", { user: byId("user").value });
  await show();
});
onClick("log-out", async () => {
  await ask("/login/out", {});
  await show("You have logged out here. Other browsers are still logged in.");
});
onClick("log-out-everywhere", async () => {
  const { ended } = (await ask("/login/out-everywhere", {})).body;
  await show(`You are logged out everywhere${ended ? `: ${ended} ended` : ""}.`);
});
