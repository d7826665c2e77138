// The frame around every page: login, navigation, the line to the server, and faults of a page.
import { get, hasToken, keep, onToken, useGet } from "./api.js";
import { Component, html, render, useEffect, useRef, useState } from "./html.js";
import { start, stop, useConnection } from "./live.js";
import { Badge, Fault, Loading } from "./parts.js";
import { views } from "./registry.js";
import { may } from "./roles.js";
import { link, useRoute } from "./router.js";

function Login() {
  const [text, put] = useState("");
  const [said, say] = useState(null);
  const [asking, ask] = useState(false);
  async function enter(event) {
    event.preventDefault();
    if (!text.trim()) return say({ message: "Paste a token first." });
    ask(true);
    say(null);
    keep(text.trim());
    try {
      await get("me");
    } catch (error) {
      keep(null);
      const wrong = error.status === 401;
      say(wrong ? { message: "This token is not valid: mistyped, expired or revoked." } : error);
      ask(false);
      return undefined;
    }
    return location.reload();
  }
  return html`<main class="login" id="main">
    <form onSubmit=${enter}>
      <h1>edge-fleet</h1>
      <label class="field"><span>Token</span>
        <input
          type="password"
          name="token"
          autocomplete="current-password"
          autofocus
          spellcheck=${false}
          value=${text}
          aria-describedby="hint"
          onInput=${(event) => put(event.target.value)}
        /></label>
      <button type="submit" class="main" disabled=${asking}>${asking ? "Asking…" : "Open"}</button>
      ${said && html`<${Fault} error=${said} />`}
      <p class="soft" id="hint">
        Made on the server by <code>edge-fleet api-tokens create NAME --role operator</code>; kept
        until this tab is closed.
      </p>
    </form>
  </main>`;
}

function themeNow() {
  const chosen = document.documentElement.dataset.theme;
  if (chosen) return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

function ThemeSwitch() {
  const [theme, put] = useState(themeNow());
  const other = theme === "dark" ? "light" : "dark";
  function change() {
    document.documentElement.dataset.theme = other;
    try {
      localStorage.setItem("edge-theme", other);
    } catch {
      // Storage is switched off: it holds until the page is left.
    }
    put(other);
  }
  return html`<button class="quiet icon-button" aria-label="Use the ${other} theme" onClick=${change}>
    <svg viewBox="0 0 16 16" class="glyph" aria-hidden="true">
      <circle cx="8" cy="8" r="5.5" /><path class="half" d="M8 2.5a5.5 5.5 0 0 1 0 11z" />
    </svg>
  </button>`;
}

function Line() {
  const now = useConnection();
  const words = { live: "Live", connecting: "Connecting", broken: "Not connected" };
  return html`<span class="line ${now}" title="Events come as they happen while this is live.">
    <i aria-hidden="true"></i><span class="no-phone">${words[now]}</span>
  </span>`;
}

function Banner() {
  const now = useConnection();
  return html`<div role="status" aria-live="polite">
    ${
      now === "broken" &&
      html`<p class="banner">The server does not answer. What is shown may be old; this page
        connects again by itself.</p>`
    }
  </div>`;
}

function Navigation({ here, alarms, me }) {
  return html`<nav class="menu" aria-label="Pages">
    ${Object.entries(views)
      .filter(([, view]) => view.menu && may(me, view.role ?? "viewer"))
      .map(
        ([name, view]) => html`<a
          key=${name}
          href=${link(name ? [name] : [])}
          aria-current=${name === here ? "page" : undefined}
          >${view.menu}${
            name === "alarms" && alarms > 0 && html`<${Badge} tone="bad">${alarms}<//>`
          }</a
        >`,
      )}
  </nav>`;
}

/** A page that fails says so in its place; the rest goes on. */
class Shield extends Component {
  constructor() {
    super();
    this.state = { error: null };
  }

  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  componentWillReceiveProps(next) {
    if (next.place !== this.props.place) this.setState({ error: null });
  }

  render({ children }, { error }) {
    if (error === null) return children;
    return html`<${Fault} error=${{ message: `This page failed: ${error.message}` }} />`;
  }
}

const loaded = new Map();

function View({ name, route, me }) {
  const [, tick] = useState(0);
  const found = loaded.get(name);
  useEffect(() => {
    if (found && !(found instanceof Error)) return;
    views[name].load().then(
      (module) => loaded.set(name, module.default),
      (error) => loaded.set(name, error),
    ).finally(() => tick((n) => n + 1));
  }, [name]);
  if (found instanceof Error) {
    const again = () => location.reload();
    return html`<${Fault} error=${{ message: "This page could not be loaded." }} retry=${again} />`;
  }
  return found ? html`<${found} route=${route} me=${me} />` : html`<${Loading} what="page" />`;
}

function Frame() {
  const route = useRoute();
  const me = useGet("me");
  const overview = useGet("overview", {}, 15_000);
  const name = route.parts[0] ?? "";
  const known = Object.hasOwn(views, name);
  const place = route.parts.join("/");
  const main = useRef(null);
  const first = useRef(true);
  useEffect(() => {
    start();
    return stop;
  }, []);
  useEffect(() => {
    const fleet = overview.data?.fleet;
    document.title = [views[name]?.menu ?? route.parts[1], fleet, "edge-fleet"]
      .filter(Boolean).join(" · ");
  }, [place, overview.data?.fleet]);
  useEffect(() => {
    const here = document.querySelector(".menu [aria-current]"); // on a phone it may be out of sight
    here?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (!first.current) {
      scrollTo(0, 0);
      main.current?.focus({ preventScroll: true }); // where a screen reader goes on
    }
    first.current = false;
  }, [place]);
  return html`<button class="skip" onClick=${() => main.current.focus()}>Skip to content</button>
    <header class="top">
      <a class="brand" href="#/"><img src="icon.svg" alt="" width="22" height="22" />
        <span class="brand-name">${overview.data?.fleet || "edge-fleet"}</span></a>
      <${Navigation} here=${name} alarms=${overview.data?.unacknowledged ?? 0} me=${me.data} />
      <div class="who">
        <${Line} />
        ${
          me.data &&
          html`<span class="no-phone" title="Whose token this is">${me.data.name}</span>
            <${Badge} tone="info">${me.data.role}<//>`
        }
        <${ThemeSwitch} />
        <button class="quiet" onClick=${() => keep(null)}>Log out</button>
      </div>
    </header>
    <${Banner} />
    <main id="main" tabindex="-1" ref=${main}>
      <${Shield} place=${place}>
        ${
          known
            ? html`<${View} key=${name} name=${name} route=${route} me=${me.data} />`
            : html`<h1>There is no such page</h1><p><a href="#/">To the fleet</a></p>`
        }
      <//>
    </main>`;
}

function App() {
  const [inside, put] = useState(hasToken());
  useEffect(() => onToken((token) => token === null && put(false)), []);
  return inside ? html`<${Frame} />` : html`<${Login} />`;
}

const root = document.getElementById("app");
root.replaceChildren(); // what stood there until the modules came
render(html`<${App} />`, root);
