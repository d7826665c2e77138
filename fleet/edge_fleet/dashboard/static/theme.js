// Before the first paint: the theme that was chosen here, else the system's. Not a module, since
// modules wait until the page is parsed.
(() => {
  try {
    const chosen = localStorage.getItem("edge-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is switched off: the system's theme it is.
  }
})();
