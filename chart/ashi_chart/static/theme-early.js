// Not a module, so that it runs before anything is drawn: no flash of the other theme. settings.js goes on from here.
(() => {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem("ashi.settings") ?? "{}") ?? {};
  } catch {
    // Storage is forbidden: the system's theme.
  }
  const system = matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
  const root = document.documentElement;
  root.dataset.theme = stored.theme === "dark" || stored.theme === "light" ? stored.theme : system;
  root.dataset.candles = stored.candles ?? "green-red";
  root.lang = (stored.language || navigator.language).toLowerCase().startsWith("ja") ? "ja" : "en";
})();
