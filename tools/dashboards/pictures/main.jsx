// Draws a dashboard with Grafana's own components: `data.json` has its panels, as their JSON is, each
// with what Prometheus answered. What Grafana's server and its panel plugins add is done below, in
// as little as a picture needs.

import {
  FieldType, Registry, ThemeContext, applyFieldOverrides, cacheFieldDisplayNames, createDataFrame, createTheme,
  dateTime, getFieldDisplayName, getFieldDisplayValues, identityOverrideProcessor, standardTransformers,
  standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, TimeSeries, VizRepeater } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';

const CELL = 30;
const GAP = 8;
const theme = createTheme({ colors: { mode: 'dark' } });

const transformers = new Map(Object.values(standardTransformers).map((each) => [each.id, each]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((each) => ({
    id: each.id,
    name: each.name,
    transformation: () => Promise.resolve(each),
  }))
);

// Which options of a field there are; in Grafana each panel plugin registers its own.
const option = (id, isCustom = false) => ({
  id,
  path: isCustom ? id.replace('custom.', '') : id,
  name: id,
  isCustom,
  process: identityOverrideProcessor,
  override: identityOverrideProcessor,
  shouldApply: () => true,
});
const CUSTOM = [
  'align', 'cellOptions', 'width', 'drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'gradientMode',
  'spanNulls', 'showPoints', 'pointSize', 'stacking', 'axisPlacement', 'hideFrom', 'lineStyle',
];
const options = new Registry(() => [
  ...['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links']
    .map((id) => option(id)),
  ...CUSTOM.map((name) => option(`custom.${name}`, true)),
]);
const LINE = { drawStyle: 'line', lineInterpolation: 'linear', pointSize: 5, axisPlacement: 'auto' };

const numbers = (values) => values.map(([, value]) => (Number.isFinite(Number(value)) ? Number(value) : null));

function legend(format, labels) {
  return format.replace(/\{\{(\w+)\}\}/g, (_, name) => labels[name] ?? '').trim();
}

function timeFrames(targets) {
  return targets.flatMap(({ refId, legendFormat, result }) =>
    result.map(({ metric, value, values = [value] }) =>
      createDataFrame({
        refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: values.map(([time]) => time * 1000), config: {} },
          {
            name: 'Value',
            type: FieldType.number,
            labels: metric,
            values: numbers(values),
            config: { displayNameFromDS: legend(legendFormat ?? '', metric) || 'Value' },
          },
        ],
      })
    )
  );
}

function tableFrames(targets) {
  return targets.filter(({ result }) => result.length).map(({ refId, result }) => {
    const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
    const value = targets.length > 1 ? `Value #${refId}` : 'Value';
    return createDataFrame({
      refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: result.map(({ value: [time] }) => time * 1000), config: {} },
        ...labels.map((name) => ({
          name,
          type: FieldType.string,
          values: result.map(({ metric }) => metric[name] ?? ''),
          config: { filterable: true },
        })),
        { name: value, type: FieldType.number, values: numbers(result.map((each) => each.value)), config: {} },
      ],
    });
  });
}

// Over the gaps of a scrape or two a line goes on; where the exporter was away, it does not.
function regular(frames, { from, to, step }) {
  return frames.map((frame) => {
    const [time, value] = frame.fields;
    const known = new Map(time.values.map((each, n) => [Math.round((each / 1000 - from) / step), value.values[n]]));
    const points = Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, n) => n);
    return {
      ...frame,
      length: points.length,
      fields: [
        { ...time, values: points.map((n) => (from + n * step) * 1000) },
        { ...value, values: points.map((n) => known.get(n) ?? null) },
      ],
    };
  });
}

async function framesOf(panel, shown) {
  const table = panel.type === 'table';
  const lines = panel.type === 'timeseries';
  let frames = table ? tableFrames(panel.targets) : timeFrames(panel.targets);
  if (lines) {
    frames = regular(frames, shown);
  }
  for (const transformation of panel.transformations ?? []) {
    frames = await firstValueFrom(transformDataFrame([transformation], frames, { interpolate: (text) => text }));
  }
  const { defaults, overrides } = panel.fieldConfig;
  const custom = lines ? { ...LINE, ...defaults.custom } : defaults.custom;
  const steps = defaults.thresholds?.steps?.map((step) => ({ ...step, value: step.value ?? -Infinity }));
  const color = defaults.color ?? (lines ? { mode: 'palette-classic' } : { mode: 'thresholds' });
  const thresholds = { mode: 'absolute', steps: steps ?? [{ value: -Infinity, color: 'text' }] };
  const shownFrames = applyFieldOverrides({
    data: frames,
    fieldConfig: { defaults: { ...defaults, custom, color, thresholds }, overrides },
    fieldConfigRegistry: options,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(shownFrames);
  return shownFrames;
}

function Empty({ panel }) {
  const style = { color: theme.colors.text.secondary, padding: 16, textAlign: 'center' };
  return <div style={style}>{panel.fieldConfig.defaults.noValue}</div>;
}

function Content({ panel, frames, shown, width, height }) {
  if (frames.every((frame) => frame.length === 0)) {
    return <Empty panel={panel} />;
  }
  if (panel.type === 'timeseries') {
    const range = { from: dateTime(shown.from * 1000), to: dateTime(shown.to * 1000) };
    return (
      <TimeSeries
        frames={frames} timeRange={{ ...range, raw: range }} timeZone="utc" width={width} height={height}
        legend={panel.options.legend} options={panel.options}
      />
    );
  }
  if (panel.type === 'table') {
    const sort = (panel.options.sortBy ?? []).filter(({ displayName }) =>
      frames[0].fields.some((field) => getFieldDisplayName(field, frames[0]) === displayName)
    );
    return <TableNG data={frames[0]} width={width} height={height} sortBy={sort} cellHeight="sm" />;
  }
  const { defaults, overrides } = panel.fieldConfig;
  const values = getFieldDisplayValues({
    fieldConfig: { defaults, overrides },
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
    theme,
    data: frames,
    sparkline: panel.options.graphMode !== 'none',
    timeZone: 'utc',
  });
  return (
    <VizRepeater
      getValues={() => values} width={width} height={height} orientation="auto" itemSpacing={3}
      renderCounter={0} source={frames} autoGrid={false}
      renderValue={({ value, width: w, height: h, count }) => (
        <BigValue
          value={value.display} sparkline={value.sparkline} width={w} height={h} count={count} theme={theme}
          colorMode={panel.options.colorMode} graphMode={panel.options.graphMode} wideLayout
          justifyMode="auto" textMode={count > 1 ? 'value_and_name' : 'auto'}
        />
      )}
    />
  );
}

function Placed({ panel, frames, shown, column, top }) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * column - GAP;
  const height = h * (CELL + GAP) - GAP;
  const style = { position: 'absolute', left: x * column, top: top + y * (CELL + GAP), width, height };
  if (panel.type === 'row') {
    return <h4 style={{ ...style, margin: 0, lineHeight: `${CELL}px` }}>{panel.title}</h4>;
  }
  return (
    <div style={style}>
      <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
        {(w_, h_) => <Content panel={panel} frames={frames} shown={shown} width={w_} height={h_} />}
      </PanelChrome>
    </div>
  );
}

async function draw() {
  const { board, panels, variables, shown } = await (await fetch('./data.json')).json();
  const drawn = await Promise.all(
    panels.map(async (panel) => ({ panel, frames: panel.type === 'row' ? [] : await framesOf(panel, shown) }))
  );
  const width = document.documentElement.clientWidth - 2 * GAP;
  const top = 64;
  const rows = Math.max(...panels.map(({ gridPos: { y, h } }) => y + h));
  const page = { position: 'relative', height: top + rows * (CELL + GAP), background: theme.colors.background.canvas };
  createRoot(document.getElementById('root')).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div id="page" style={page}>
        <h3 style={{ margin: 0, padding: '8px 0 0' }}>{board}</h3>
        <div style={{ color: theme.colors.text.secondary }}>
          {variables.map(([label, value]) => <span key={label} style={{ marginRight: 24 }}>{label}: <b>{value}</b></span>)}
        </div>
        {drawn.map(({ panel, frames }) => (
          <Placed key={panel.id} panel={panel} frames={frames} shown={shown} column={width / 24} top={top} />
        ))}
      </div>
    </ThemeContext.Provider>
  );
  await document.fonts.ready;
  setTimeout(() => document.body.setAttribute('data-drawn', 'true'), 1500);
}

draw();
