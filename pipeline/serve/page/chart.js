// The classes' shares of the picture over time: stacked areas on a canvas, or the same as a table.

export class AreaChart {
  constructor(canvas, table) {
    this.canvas = canvas;
    this.table = table;
    this.points = [];
    this.colors = new Map();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(points, colors) {
    this.points = points;
    this.colors = colors;
    this.draw();
  }

  // The classes present, the largest first.
  classes() {
    const sums = new Map();
    for (const { area } of this.points) {
      for (const [name, share] of Object.entries(area)) sums.set(name, (sums.get(name) ?? 0) + share);
    }
    return [...sums].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  }

  draw() {
    const names = this.classes();
    this.describe(names);
    const scale = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    if (!width) return;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const context = this.canvas.getContext("2d");
    context.scale(scale, scale);
    const { points } = this;
    if (points.length < 2) return;
    const first = points[0].at, span = points.at(-1).at - first || 1;
    const x = (p) => ((p.at - first) / span) * width;
    let below = points.map(() => 0);
    for (const name of names) {
      const above = points.map((p, i) => below[i] + (p.area[name] ?? 0));
      context.beginPath();
      points.forEach((p, i) => context.lineTo(x(p), height - above[i] * height));
      for (let i = points.length - 1; i >= 0; i--) context.lineTo(x(points[i]), height - below[i] * height);
      context.closePath();
      context.fillStyle = this.colors.get(name) ?? "#888";
      context.fill();
      below = above;
    }
  }

  describe(names) {
    const last = this.points.at(-1);
    const share = (name) => `${((last.area[name] ?? 0) * 100).toFixed(1)} %`;
    this.canvas.setAttribute("aria-description", last ? names.slice(0, 5).map((n) => `${n} ${share(n)}`).join(", ") : "nothing yet");
    if (this.table.hidden) return;
    const table = document.createElement("table");
    const header = table.createTHead().insertRow();
    for (const [text, kind] of [["Class", ""], ["Now", "number"], ["Mean", "number"]]) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.className = kind;
      cell.textContent = text;
      header.append(cell);
    }
    const body = table.createTBody();
    for (const name of last ? names : []) {
      const row = body.insertRow();
      const cell = document.createElement("th");
      cell.scope = "row";
      cell.textContent = name;
      row.append(cell);
      const mean = this.points.reduce((sum, p) => sum + (p.area[name] ?? 0), 0) / this.points.length;
      for (const text of [share(name), `${(mean * 100).toFixed(1)} %`]) {
        const number = row.insertCell();
        number.className = "number";
        number.textContent = text;
      }
    }
    this.table.replaceChildren(table);
  }
}
