// The filter over the rows. Without this script the page reads the same; only the filter is missing.
(() => {
  "use strict";
  const form = document.querySelector(".filter");
  const rows = [...document.querySelectorAll("details.row")];
  const plans = [...document.querySelectorAll("details.planrows")];
  const none = document.querySelector(".none");
  const text = new Map();
  const words = (row) => {
    if (!text.has(row)) text.set(row, (row.id + " " + row.textContent).toLowerCase().replace(/\s+/g, " "));
    return text.get(row);
  };
  const apply = () => {
    const want = form.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { plan, chapter, state } = form.elements;
    let shown = 0;
    for (const row of rows) {
      const fits =
        (!plan.value || row.id.startsWith(plan.value + "/")) &&
        (!chapter.value || row.dataset.c === chapter.value) &&
        (!state.value || row.dataset.s === state.value) &&
        want.every((word) => words(row).includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    for (const group of plans) {
      const left = group.querySelectorAll("details.row:not([hidden])").length;
      group.hidden = !left;
      group.querySelector("summary small").textContent = left + (left === 1 ? " row" : " rows");
    }
    none.hidden = shown > 0;
    form.querySelector("output").textContent = shown + " of " + rows.length + " rows";
  };
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.matches("details")) return;
    if (target.hidden) form.reset(), apply();
    for (let part = target; part; part = part.parentElement.closest("details")) part.open = true;
    target.scrollIntoView();
  };
  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 80); });
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-plan],a[data-chapter],a[data-state]");
    if (!link) return;
    form.reset();
    for (const name of ["plan", "chapter", "state"]) if (link.dataset[name]) form.elements[name].value = link.dataset[name];
    setTimeout(apply);
  });
  addEventListener("hashchange", open);
  form.hidden = false;
  apply();
  open();
})();
