import { ask, byId, inTurn, onClick, poll, setList, setText } from "./demo.js";

async function show() {
  const { body } = await ask("/session/state");
  setText(byId("changes"), body.changes);
  setText(byId("age"), `${body.age} s`);
  setText(byId("id"), body.id ? `${body.id}…` : "no session yet");
  if (byId("cart").children.length !== body.cart.length) {
    setList(byId("cart"), body.cart.map((text) => ({ text })));
  }
  if (body.messages.length) setText(byId("message"), body.messages.join(" "));
}

poll(show);

for (const button of document.querySelectorAll("button.add")) {
  button.addEventListener("click", () =>
    inTurn(async () => {
      await ask("/session/add", { item: button.dataset.item });
      await show();
    }),
  );
}
onClick("new-id", async () => {
  await ask("/session/id", {});
  await show();
  setText(byId("message"), "The session has a new id, and its cart.");
});
onClick("end", async () => {
  await ask("/session/end", {});
  await show();
  setText(byId("message"), "The session has ended. The store has nothing left of it.");
});
