// Where the page is: the fragment, as #/devices/pi-1?state=silent. Works below any path of a proxy
// and needs nothing of the server.
import { useEffect, useState } from "./html.js";

export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of a page, for an href: link(["devices", id], {hours: 6}). */
export function link(parts, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  const text = new URLSearchParams(kept).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

/**
 * The same page with other filters; no new entry in the history. Upon the address as it is now: a
 * filter that was typed before another was clicked takes nothing of that back.
 */
export function refine(route, query) {
  const now = parse(location.hash);
  if (now.parts.join("/") !== route.parts.join("/")) return;
  history.replaceState(null, "", link(now.parts, { ...now.query, ...query }));
  dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [route, put] = useState(() => parse(location.hash));
  useEffect(() => {
    const heard = () => put(parse(location.hash));
    addEventListener("hashchange", heard);
    return () => removeEventListener("hashchange", heard);
  }, []);
  return route;
}
