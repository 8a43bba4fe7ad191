/** How answers are asked for. */
import type { Page } from "../state/page.ts";
import { MAX_SAMPLES, type Settings } from "../state/settings.ts";

type NumberSetting = {
  [Key in keyof Settings]: Settings[Key] extends number | undefined ? Key : never;
}[keyof Settings];

interface NumberField {
  readonly key: NumberSetting;
  readonly label: string;
  readonly min?: number;
  readonly max?: number;
  readonly step: number | "any";
}

const NUMBERS: readonly NumberField[] = [
  { key: "temperature", label: "Temperature", min: 0, max: 2, step: "any" },
  { key: "topP", label: "Top p", min: 0, max: 1, step: "any" },
  { key: "topK", label: "Top k", min: -1, step: 1 },
  { key: "minP", label: "Min p", min: 0, max: 1, step: "any" },
  { key: "repetitionPenalty", label: "Repetition penalty", min: 0, step: "any" },
  { key: "maxTokens", label: "Max tokens", min: 1, step: 1 },
  { key: "seed", label: "Seed", step: 1 },
];

export function SettingsPanel({ page }: { readonly page: Page }) {
  const { settings, server } = page;
  const change = (changed: Partial<Settings>) => {
    settings.value = { ...settings.value, ...changed };
  };
  const { model, instructions, numSamples, tools, schema } = settings.value;
  const models = server.models.value;
  return (
    <section class="settings" aria-label="Settings">
      <h2>Settings</h2>
      {models.length > 1 && (
        <label>
          Model
          <select value={model} onChange={({ currentTarget }) => change({ model: currentTarget.value })}>
            <option value="">{models[0]!.id}</option>
            {models.slice(1).map(({ id }) => (
              <option key={id}>{id}</option>
            ))}
          </select>
        </label>
      )}
      <label>
        System prompt
        <textarea
          rows={3}
          value={instructions}
          onInput={({ currentTarget }) => change({ instructions: currentTarget.value })}
        />
      </label>
      <div class="numbers">
        {NUMBERS.map(({ key, label, ...bounds }) => (
          <label key={key}>
            {label}
            <input
              type="number"
              {...bounds}
              placeholder="default"
              value={settings.value[key] ?? ""}
              onInput={({ currentTarget: { value, valueAsNumber } }) =>
                change({ [key]: value === "" || Number.isNaN(valueAsNumber) ? undefined : valueAsNumber })
              }
            />
          </label>
        ))}
        <label>
          Samples
          <input
            type="number"
            min={1}
            max={MAX_SAMPLES}
            step={1}
            value={numSamples}
            onInput={({ currentTarget: { valueAsNumber } }) =>
              change({ numSamples: Math.min(Math.max(Math.trunc(valueAsNumber) || 1, 1), MAX_SAMPLES) })
            }
          />
        </label>
      </div>
      <details>
        <summary>Tools and JSON</summary>
        <label>
          Tools, as a JSON list
          <textarea
            rows={4}
            spellcheck={false}
            value={tools}
            onInput={({ currentTarget }) => change({ tools: currentTarget.value })}
          />
        </label>
        <label>
          JSON schema of the answer
          <textarea
            rows={4}
            spellcheck={false}
            value={schema}
            onInput={({ currentTarget }) => change({ schema: currentTarget.value })}
          />
        </label>
      </details>
    </section>
  );
}
