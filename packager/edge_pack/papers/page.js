(function () {
  var root = document.documentElement, button = document.getElementById("theme");
  var asked = location.hash === "#dark" || location.hash === "#light" ? location.hash.slice(1) : "";
  function dark() {
    if (root.dataset.theme) return root.dataset.theme === "dark";
    return matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function show() { button.textContent = dark() ? "Light" : "Dark"; }
  if (asked) root.dataset.theme = asked;
  button.hidden = false;
  button.addEventListener("click", function () { root.dataset.theme = dark() ? "light" : "dark"; show(); });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (one) { one.open = true; });
  });
  show();
})();
