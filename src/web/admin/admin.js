// The operator's page: asks the node every two seconds how it is, and shows it.
import { ask, wireDialogs } from "./admin-ask.js";
import { Past } from "./admin-rates.js";
import { wireTap } from "./admin-tap.js";
import { $, showBackplane, showCertificate, showConfig, showEnds, showNode, showNodes, showRooms, showTiles } from "./admin-view.js";

const PAUSE_MS = 2_000;
/** Rates need two answers: the second one comes soon. */
const FIRST_PAUSE_MS = 1_000;

const past = new Past();
let latest = null;
let settings = [];

function show(answer) {
  latest = answer;
  past.add(answer);
  showNode(answer);
  showTiles(answer, past);
  showNodes(answer);
  showRooms(answer);
  showEnds(answer, past);
  showBackplane(answer, past);
  showCertificate(answer);
}

function complain(error) {
  const since = latest ? ` What is shown is of ${new Date(latest.time_ms).toLocaleTimeString()}.` : "";
  $("banner").textContent = `The node does not answer (${error.message}).${since}`;
  $("banner").hidden = false;
  $("state").dataset.state = "away";
  $("state").textContent = "no answer";
}

async function watch() {
  for (let pause = FIRST_PAUSE_MS; ; pause = PAUSE_MS) {
    // A page that nobody looks at asks nothing.
    if (!document.hidden) {
      try {
        show(await ask("/api/overview"));
        $("banner").hidden = true;
      } catch (error) {
        complain(error);
      }
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

$("sign-out").addEventListener("click", async () => {
  await ask("/sign-out", { method: "POST" }).catch(() => {});
  location.assign("/");
});
$("config-details").addEventListener("toggle", async () => {
  if (!$("config-details").open || settings.length) return;
  settings = await ask("/api/config").catch(() => []);
  showConfig(settings, $("config-filter").value);
});
$("config-filter").addEventListener("input", () => showConfig(settings, $("config-filter").value));
wireDialogs(() => latest?.node.name ?? "");
wireTap();
watch();
