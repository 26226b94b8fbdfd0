// Charts of the last minutes, drawn by uPlot. What a chart shows is in words too: in its key and its label.

const KEEP_S = 300;
const LEAST_S = 30;
const HEIGHT = 152;
const DASHES = [[], [7, 4], [2, 3]];
const COLOURS = ["--one", "--two", "--three"];

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const svg = (name, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

export class Chart {
  // series: their names, at most three. format: a value in words.
  constructor(figure, title, series, format) {
    [this.title, this.series, this.format] = [title, series, format];
    this.caption = figure.querySelector("figcaption");
    this.box = figure.querySelector(".plot");
    this.data = [[], ...series.map(() => [])];
    this.values = this.key();
    this.draw();
    new ResizeObserver(() => this.resize()).observe(this.box);
  }

  key() {
    const title = document.createElement("b");
    title.textContent = this.title;
    this.caption.replaceChildren(title);
    return this.series.map((name, index) => {
      const line = svg("svg", { width: 22, height: 8, "aria-hidden": "true" });
      const stroke = { x1: 0, y1: 4, x2: 22, y2: 4, "stroke-width": 2.5, "stroke-dasharray": DASHES[index].join(" ") };
      const drawn = svg("line", stroke);
      drawn.style.stroke = `var(${COLOURS[index]})`;
      line.append(drawn);
      const value = document.createElement("span");
      const entry = document.createElement("span");
      entry.className = "key";
      entry.append(line, value);
      this.caption.append(entry);
      return value;
    });
  }

  draw() {
    this.plot?.destroy();
    const axis = { stroke: style("--muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { show: false } };
    const font = "12px Segoe UI, Roboto, Helvetica Neue, Arial, DejaVu Sans, sans-serif";
    const options = {
      width: Math.max(this.box.clientWidth, 100),
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      select: { show: false },
      padding: [8, 22, 0, 0],
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, font, size: 22, space: 70, values: (_, splits) => splits.map(clock) },
        { ...axis, font, size: 64, space: 34, values: (_, splits) => splits.map(this.format) },
      ],
      series: [
        {},
        ...this.series.map((name, index) => ({
          label: name, stroke: style(COLOURS[index]), width: 2, dash: DASHES[index], points: { show: false },
        })),
      ],
    };
    this.plot = new uPlot(options, this.data, this.box);
    this.redraw();
  }

  resize() {
    const width = this.box.clientWidth;
    if (width && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: HEIGHT });
  }

  // values: one for each series, null if it is not known.
  add(atMs, values) {
    const [times] = this.data;
    this.data[0].push(atMs / 1000);
    values.forEach((value, index) => this.data[index + 1].push(value));
    while (times.length && times[0] < atMs / 1000 - KEEP_S) this.data.forEach((column) => column.shift());
    this.redraw();
    const words = this.series.map((name, index) => `${name} ${values[index] === null ? "–" : this.format(values[index])}`);
    words.forEach((text, index) => { this.values[index].textContent = text; });
    this.box.setAttribute("aria-label", `${this.title}, chart. Now: ${words.join(", ")}`);
  }

  // Nothing is drawn across the time in which nothing was known.
  gap(atMs) {
    if (!this.data[0].length) return;
    this.data[0].push(atMs / 1000);
    this.series.forEach((_, index) => this.data[index + 1].push(null));
  }

  redraw() {
    const times = this.data[0];
    const last = times.length ? times[times.length - 1] : Date.now() / 1000;
    const first = Math.min(times.length ? times[0] : last, last - LEAST_S);
    this.plot.batch(() => {
      this.plot.setData(this.data, false);
      this.plot.setScale("x", { min: first, max: last });
    });
  }
}

const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
});
