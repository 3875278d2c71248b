"use strict";
// The page's own script. It asks for nothing over a network, and writes text only as text.

/** What the page carries for a table or a chart. */
const carried = (id) => JSON.parse(document.getElementById(id).textContent);

/** Columns as they are carried, one value standing for many equal ones, as rows of cells. */
function unpacked(columns, length) {
  const value = (column, row) => ("of" in column ? column.of[column.each[row]] : column.each[row]);
  return Array.from({ length }, (_, row) => columns.map((column) => ("all" in column ? column.all : value(column, row))));
}

/** An element with text or children; attributes by name. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Lets the reader keep a file. */
function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** Lines of CSV. What a spreadsheet would compute gets a quote in front. */
function csv(lines) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    let text = typeof value === "object" ? JSON.stringify(value) : String(value);
    if (typeof value === "string" && /^[=+\-@＝＋－＠\t\r]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return lines.map((line) => line.map(cell).join(",") + "\n").join("");
}

// ---- theme -----------------------------------------------------------------------------------------------------------

function offerTheme() {
  const button = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = `theme: ${theme}`;
  };
  button.addEventListener("click", () => show(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
  show("auto");
  button.hidden = false;
}

// ---- tables ----------------------------------------------------------------------------------------------------------

const ROWS_AT_ONCE = 400;

/** Rows of a table's body in the order they came, as `ordering` sorts them. */
const bodyRows = (table) => [...table.querySelectorAll("tbody tr:not(.heading)")].map((tr, index) => ({ tr, index }));

/** Makes the heads of a table say by which column its rows are ordered: up, down, and as they came. */
function ordering(table, changed) {
  const heads = [...table.tHead.rows[0].cells];
  const order = { column: null, descending: false };
  const number = (cell) => (cell.dataset.value === undefined ? null : Number(cell.dataset.value));

  /** What has no value comes last, whichever way the others run. */
  function compare(one, other) {
    const [a, b] = [one, other].map((row) => row.tr.cells[order.column]);
    const [x, y] = [number(a), number(b)];
    const direction = order.descending ? -1 : 1;
    if (x !== null && y !== null) return direction * (x - y) || one.index - other.index;
    if (x !== null || y !== null) return x === null ? 1 : -1;
    return direction * a.textContent.localeCompare(b.textContent, "en", { numeric: true }) || one.index - other.index;
  }

  heads.forEach((head, column) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const again = order.column === column;
      Object.assign(order, again && order.descending ? { column: null, descending: false } : { column, descending: again });
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (order.column !== null) head.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      changed();
    });
  });
  return { heads, sorted: (rows) => (order.column === null ? rows : rows.toSorted(compare)) };
}

/** Makes a table that stands by itself sort. */
function livenPlain(table) {
  const rows = bodyRows(table);
  const { sorted } = ordering(table, () => table.tBodies[0].append(...sorted(rows).map((row) => row.tr)));
}

/** A list of a table's columns, of which the reader may leave some out. */
function columnPicker(heads, rows) {
  const choices = heads.slice(1).map((head, index) => {
    const box = element("input", { type: "checkbox", name: "column", checked: "" });
    box.addEventListener("change", () => {
      for (const { cells } of [{ cells: heads }, ...rows.map((row) => row.tr)]) cells[index + 1].hidden = !box.checked;
    });
    const before = heads[index].textContent;
    const title = head.textContent.includes("interval") ? `${before}: ${head.textContent}` : head.textContent;
    return element("label", {}, box, ` ${title}`);
  });
  return element("details", { class: "columns" }, element("summary", {}, "Columns"), element("div", {}, ...choices));
}

/** Makes one table sort, filter, group and change its baseline. */
function liven(grid) {
  const source = carried(grid.dataset.source);
  const table = grid.querySelector("table");
  const tools = grid.querySelector(".tools");
  const [filter, group, baseline] = ["filter", "group", "baseline"].map((name) => tools.elements[name]);
  const { heads, sorted } = ordering(table, show);
  const place = (key) => heads.findIndex((head) => head.dataset.key === key);
  const [ratio, interval] = [place("ratio"), place("ratio_interval")];
  const rows = bodyRows(table).map((row) => ({
    ...row,
    words: row.tr.textContent.toLowerCase(),
    asMade: ratio < 0 ? [] : [ratio, interval].map((column) => row.tr.cells[column].cloneNode(true)),
  }));
  let all = false;

  function show() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = rows.filter((row) => words.every((word) => row.words.includes(word) || heading(row).toLowerCase().includes(word)));
    const groups = new Map();
    for (const row of kept) {
      if (!groups.has(heading(row))) groups.set(heading(row), []);
      groups.get(heading(row)).push(row);
    }
    table.classList.toggle("in-settings", source.in_settings && group.value === "0");
    let shown = 0;
    const bodies = [...groups].map(([title, members]) => {
      const first = shown;
      const ordered = sorted(members);
      for (const row of ordered) row.tr.classList.toggle("beyond", !all && ++shown > ROWS_AT_ONCE);
      const said = title !== "" ? "heading" : "heading unsaid";
      const head = element("tr", { class: !all && first >= ROWS_AT_ONCE ? `${said} beyond` : said },
        element("th", { scope: "rowgroup", colspan: heads.length }, element("span", {}, title)));
      const body = element("tbody", {}, head);
      body.append(...ordered.map((row) => row.tr));
      return body;
    });
    [...table.tBodies].forEach((body) => body.remove());
    table.append(...bodies);
    const beyond = all ? 0 : Math.max(0, kept.length - ROWS_AT_ONCE);
    grid.querySelector(".more").hidden = beyond === 0;
    grid.querySelector("[name=more]").textContent = `Show ${beyond} more rows`;
    tools.querySelector("output").textContent =
      kept.length === rows.length ? `${rows.length} rows` : `${kept.length} of ${rows.length} rows`;
    return [...groups.values()].flatMap(sorted);
  }

  function heading(row) {
    const grouping = source.groupings[group.value];
    return grouping.texts[grouping.rows[row.index]];
  }

  /** Every row's ratio to another baseline: ready strings, computed where all others were. */
  function divide() {
    const name = baseline.value;
    const reasons = new Map();
    for (const row of rows) {
      const cells = name === source.baseline ? row.asMade.map((cell) => cell.cloneNode(true)) : against(row, name, reasons);
      [ratio, interval].forEach((column, index) => row.tr.cells[column].replaceWith(cells[index]));
      for (const column of [ratio, interval]) row.tr.cells[column].hidden = heads[column].hidden;
    }
    heads[ratio].querySelector("button").textContent = `÷ ${name || "baseline"}`;
    const list = grid.querySelector(".refusals");
    list.replaceChildren(...[...reasons].map(([reason, mark]) => element("li", {}, element("sup", {}, mark), ` ${reason}`)));
    list.hidden = reasons.size === 0;
  }

  /** The cells of a row's ratio and its interval; why there is none goes to `reasons`. */
  function against(row, name, reasons) {
    const [text, between, refused] = name === "" ? ["–", "–", ""] : source.baselines[name][row.index];
    const value = text === "baseline" ? 1 : parseFloat(text);
    const cell = element("td", { class: "number", ...(Number.isNaN(value) ? {} : { "data-value": value }) }, text);
    if (refused) {
      if (!reasons.has(refused)) reasons.set(refused, String.fromCharCode(97 + reasons.size % 26));
      cell.append(element("sup", {}, reasons.get(refused)));
    }
    return [cell, element("td", { class: "number" }, between)];
  }

  let pause;
  filter.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(show, 120); });
  group.addEventListener("change", show);
  baseline?.addEventListener("change", () => { divide(); show(); });
  tools.addEventListener("submit", (event) => event.preventDefault());
  grid.querySelector("[name=more]").addEventListener("click", () => { all = true; show(); });
  tools.elements.csv.addEventListener("click", () => {
    const values = unpacked(source.columns, rows.length);
    // The columns have the ratios to the page's own baseline already.
    const picked = baseline && baseline.value !== source.baseline ? baseline.value : "";
    const ratios = (row) => (picked ? [picked, ...source.baselines[picked][row.index].slice(0, 2)] : []);
    const added = picked ? ["picked_baseline", "picked_ratio", "picked_ratio_interval"] : [];
    const names = [...source.columns.map((column) => column.name), ...added];
    download(`${grid.dataset.source}.csv`, "text/csv", csv([names, ...show().map((row) => [...values[row.index], ...ratios(row)])]));
  });
  tools.querySelector("output").before(columnPicker(heads, rows));
  tools.hidden = false;
  show();
}

// ---- charts ----------------------------------------------------------------------------------------------------------

/** Draws one chart and livens what stands around it. */
async function draw(figure) {
  const source = carried(figure.dataset.source);
  const place = figure.querySelector(".drawing");
  const rows = unpacked(source.columns, source.length);
  const values = rows.map((row) => Object.fromEntries(source.columns.map((column, index) => [column.name, row[index]])));
  const { specification } = source;
  specification.data.find((each) => each.name === "data").values = values;
  const { view } = await vegaEmbed(place, specification, {
    // Vega's name for errors alone: that some setting leaves a layer without marks is none.
    logLevel: 1,
    mode: "vega", renderer: "svg", actions: false, ast: true, defaultStyle: false, tooltip: { disableDefaultStyle: true },
  });
  // To a screen reader it is one picture that says what it shows; mark by mark, the table below is read with less pain.
  place.setAttribute("role", "img");
  place.removeAttribute("aria-roledescription");
  place.setAttribute("aria-label", [...figure.querySelectorAll("figcaption > *")].map((each) => each.textContent).join(": "));
  place.querySelector("svg").setAttribute("aria-hidden", "true");
  figure.querySelector("[name=setting]")?.addEventListener("change", (event) => {
    view.signal("setting", event.target.value).runAsync();
  });
  const data = source.columns.map((column, index) => ({ ...column, index }));
  figure.querySelector("[name=csv]").addEventListener("click", () => {
    const numbers = data.filter((column) => !column.text);
    const lines = rows.map((row) => numbers.map((column) => row[column.index]));
    download(`${figure.id}.csv`, "text/csv", csv([numbers.map((column) => column.name), ...lines]));
  });
  figure.querySelector("[name=svg]").addEventListener("click", async () => {
    const ink = getComputedStyle(figure).color;
    download(`${figure.id}.svg`, "image/svg+xml", (await view.toSVG()).replaceAll("currentColor", ink));
  });
  figure.querySelector("details").addEventListener("toggle", () => tabulate(figure, source), { once: true });
}

/** The chart's numbers as people read them, below it. */
function tabulate(figure, source) {
  const named = Object.fromEntries(source.columns.map((column) => [column.name, column]));
  const columns = source.table.map((column) => ({ ...column, ...("as" in column ? named[column.as] : {}) }));
  const style = (column) => ({ class: column.numeric ? "number" : "" });
  const head = columns.map((column) => element("th", { scope: "col", ...style(column) }, column.title));
  const lines = unpacked(columns, source.length).map((cells) => element("tr", {}, ...cells.map((cell, index) =>
    index ? element("td", style(columns[index]), cell) : element("th", { scope: "row" }, cell))));
  figure.querySelector("details .scroll").replaceChildren(
    element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines)));
}

/** One chart after another, so that the page can be read meanwhile. */
async function drawAll() {
  for (const figure of document.querySelectorAll("figure[data-source]")) {
    try {
      await draw(figure);
    } catch (error) {
      figure.querySelector(".drawing").replaceChildren(element("p", { class: "missing" }, `This chart could not be drawn: ${error.message}`));
      console.error(error);
    }
    await new Promise((done) => setTimeout(done));
  }
  document.documentElement.dataset.drawn = "true";
}

// What is folded on a screen is wanted on paper.
addEventListener("beforeprint", () => document.querySelectorAll("details.block").forEach((each) => { each.open = true; }));
offerTheme();
document.querySelectorAll(".grid").forEach(liven);
document.querySelectorAll("table.sortable").forEach(livenPlain);
drawAll();
