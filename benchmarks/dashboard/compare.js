// Two commits side by side: every figure that both have, the largest change first within its subject.
const data = JSON.parse(document.getElementById("data").textContent);
const [from, to] = ["from", "to"].map((id) => document.getElementById(id));
for (const select of [from, to]) {
  data.commits.forEach(([short, day, subject], i) => select.prepend(new Option(`${short} ${day} ${subject}`, i)));
}

// As `ratio` in changes.py: median of all after / before, and its interval by ranks.
function ratio(before, after) {
  const [m, n] = [before.length, after.length];
  const spread = Math.sqrt((m * n * (m + n + 1)) / 12);
  const rank = Math.floor((m * n) / 2 - data.deviations * spread);
  if (rank < 0 || !m || !n || Math.min(...before) <= 0) return null;
  const all = after.flatMap((a) => before.map((b) => a / b)).sort((a, b) => a - b);
  const middle = all.length >> 1;
  const median = all.length % 2 ? all[middle] : (all[middle - 1] + all[middle]) / 2;
  return [all[rank], median, all[all.length - 1 - rank]];
}

function percent(times) {
  if (!Number.isFinite(times)) return "from nothing";
  return times >= 2 ? `x ${times.toFixed(1)}` : `${times < 1 ? "\u2212" : "+"}${Math.abs(100 * (times - 1)).toFixed(1)} %`;
}

const digits = (x) => (Math.abs(x) < 1000 ? String(Number(x.toPrecision(3))) : Math.round(x).toLocaleString("en"));

function compared(a, b) {
  const rows = [];
  for (const [name, what, machine, values] of data.figures) {
    if (!(a in values && b in values)) continue;
    const [[before, old], [after, current]] = [values[a], values[b]];
    const both = Object.keys(old).filter((session) => session in current);
    const found = ratio(both.flatMap((one) => old[one]), both.flatMap((one) => current[one]));
    const times = found ? found[1] : before ? after / before : after ? Infinity : 1;
    rows.push({ name, what, machine, before, after, found, times });
  }
  const size = (row) => Math.abs(Math.log(row.times || 1e-9));
  const order = (row) => data.subjects.indexOf(data.about[row.name][0]);
  return rows.sort((x, y) => order(x) - order(y) || size(y) - size(x));
}

function draw() {
  const [a, b] = [Number(from.value), Number(to.value)];
  const rows = compared(a, b);
  document.querySelector("#compared tbody").replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      const [subject, label, unit] = data.about[row.name];
      const head = document.createElement("th");
      head.scope = "row";
      const link = Object.assign(document.createElement("a"), { href: `benchmarks/${row.name}.html`, textContent: label });
      const about = Object.assign(document.createElement("small"), { textContent: `${subject}, ${unit}` });
      head.append(row.what, " ", link, about);
      line.append(head);
      const same = row.found ? row.found[0] <= 1 && row.found[2] >= 1 : row.times === 1;
      const change = same ? "same" : percent(row.times);
      const interval = row.found ? `${row.found[0].toFixed(3)} to ${row.found[2].toFixed(3)}` : "";
      for (const [text, style] of [
        [change, same || !row.found ? "number" : row.times > 1 ? "number worse" : "number better"],
        [digits(row.before), "number"],
        [digits(row.after), "number"],
        [interval, "number"],
        [row.machine, ""],
      ]) {
        line.append(Object.assign(document.createElement("td"), { textContent: text, className: style }));
      }
      return line;
    }),
  );
  const [low, high] = [Math.min(a, b), Math.max(a, b)];
  const steps = data.between.slice(low, high);
  const [count, kernels] = [steps.reduce((sum, one) => sum + one[0], 0), steps.flatMap((one) => one[1])];
  const named = kernels.length && kernels.length <= 5 ? `: ${kernels.map((one) => one.join(" ")).join("; ")}` : "";
  document.getElementById("between").textContent =
    `Commits after the earlier one, up to the later one: ${count}. Those that touch kernels: ${kernels.length}${named}. Figures measured at both: ${rows.length}.`;
}

// #from..to in the address; without, the two that have the most figures in common with the newest one
function read() {
  const asked = decodeURIComponent(location.hash.slice(1)).split("..");
  const at = asked.map((one) => data.commits.findIndex(([short]) => one && short.startsWith(one)));
  const last = data.commits.length - 1;
  const count = (i) => compared(i, last).length;
  const best = data.commits.map((_, i) => i).slice(0, -1).sort((x, y) => count(y) - count(x) || y - x)[0] ?? last;
  [from.value, to.value] = at.length === 2 && at[0] >= 0 && at[1] >= 0 ? at : [best, last];
  draw();
}

for (const select of [from, to]) {
  select.addEventListener("change", () => {
    history.replaceState(null, "", `#${data.commits[from.value][0]}..${data.commits[to.value][0]}`);
    draw();
  });
}
addEventListener("hashchange", read);
read();
