// Light, dark, or as the system has it. Loaded before the page is drawn, so that it does not flash.
const order = ["auto", "light", "dark"];
const names = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };

function stored() {
  try { return localStorage.getItem("roadlens-theme") || "auto"; } catch { return "auto"; }
}

function apply(theme) {
  if (theme === "auto") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.dataset.theme = theme;
}

apply(stored());

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  if (!button) return;
  const label = () => { button.setAttribute("aria-label", names[stored()]); button.title = names[stored()]; button.dataset.theme = stored(); };
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(stored()) + 1) % order.length];
    try { localStorage.setItem("roadlens-theme", next); } catch { /* private mode: for this page only */ }
    apply(next);
    label();
    document.dispatchEvent(new Event("themechange"));
  });
  label();
});
