/** Lines over a number of tokens, drawn by uPlot in the page's colours. */
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

interface PlotProps {
  readonly data: uPlot.AlignedData;
  /** What it shows, for those who do not see it. */
  readonly label: string;
  /** `color` names a variable of the style sheet. */
  readonly series: readonly { readonly label: string; readonly color: string }[];
  /** Of values, which are bytes. */
  readonly format: (value: number) => string;
}

const HEIGHT = 170;
/** Between two ticks of bytes. */
const STEPS = Array.from({ length: 50 }, (_, exponent) => 2 ** exponent);

export function Plot({ data, label, series, format }: PlotProps) {
  const element = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const holder = element.current!;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      plot.current?.destroy();
      const color = (name: string) => getComputedStyle(holder).getPropertyValue(name);
      const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
      const options: uPlot.Options = {
        width: Math.max(holder.clientWidth, 100),
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false } },
        axes: [
          { ...axis, size: 30, values: (_, ticks) => ticks.map((tick) => String(tick)) },
          { ...axis, size: 64, incrs: STEPS, values: (_, ticks) => ticks.map(format) },
        ],
        series: [
          {},
          ...series.map((each) => ({
            label: each.label,
            stroke: color(each.color),
            width: 2,
            points: { show: false },
          })),
        ],
      };
      plot.current = new uPlot(options, latest.current, holder);
    };
    draw();
    const observer = new ResizeObserver(() => {
      plot.current!.setSize({ width: Math.max(holder.clientWidth, 100), height: HEIGHT });
    });
    observer.observe(holder);
    dark.addEventListener("change", draw);
    return () => {
      dark.removeEventListener("change", draw);
      observer.disconnect();
      plot.current?.destroy();
    };
  }, []);

  useEffect(() => {
    plot.current?.setData(latest.current);
  }, [JSON.stringify(data)]);

  return (
    <>
      <ul class="legend">
        {series.map((each) => (
          <li key={each.label} style={{ "--color": `var(${each.color})` }}>
            {each.label}
          </li>
        ))}
      </ul>
      <div role="img" aria-label={label} ref={element} />
    </>
  );
}
