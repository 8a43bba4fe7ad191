/** How answers are asked for. Kept in the browser, over visits. */
import { effect, type Signal, signal } from "@preact/signals";

export interface Settings {
  /** "": the server's first. */
  readonly model: string;
  readonly instructions: string;
  /** Undefined: as the model has it. */
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly topK: number | undefined;
  readonly minP: number | undefined;
  readonly repetitionPenalty: number | undefined;
  readonly maxTokens: number | undefined;
  readonly seed: number | undefined;
  readonly numSamples: number;
  /** JSON: a list of function tools. */
  readonly tools: string;
  /** A JSON schema that answers must match. */
  readonly schema: string;
}

export const MAX_SAMPLES = 8;

const DEFAULTS: Settings = {
  model: "",
  instructions: "",
  temperature: undefined,
  topP: undefined,
  topK: undefined,
  minP: undefined,
  repetitionPenalty: undefined,
  maxTokens: 512,
  seed: undefined,
  numSamples: 1,
  tools: "",
  schema: "",
};

const STORAGE_KEY = "densemamba.settings";

export function keptSettings(storage: Storage): Signal<Settings> {
  const settings = signal<Settings>({ ...DEFAULTS, ...(parsed(storage.getItem(STORAGE_KEY)) as Partial<Settings>) });
  effect(() => storage.setItem(STORAGE_KEY, JSON.stringify(settings.value)));
  return settings;
}

function parsed(json: string | null): unknown {
  try {
    return JSON.parse(json ?? "{}");
  } catch {
    return {};
  }
}

/** The fields of a request. @throws an error that says which setting is no JSON */
export function toFields(settings: Settings): Record<string, unknown> {
  const { model, instructions } = settings;
  const tools = parseSetting("Tools", settings.tools);
  const schema = parseSetting("The schema", settings.schema);
  const fields = {
    model: model || undefined,
    instructions: instructions || undefined,
    temperature: settings.temperature,
    top_p: settings.topP,
    top_k: settings.topK,
    min_p: settings.minP,
    repetition_penalty: settings.repetitionPenalty,
    max_output_tokens: settings.maxTokens,
    tools: Array.isArray(tools) ? tools.map(flatTool) : tools,
    text: schema && { format: { type: "json_schema", name: "answer", schema } },
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function parseSetting(name: string, json: string): unknown {
  if (json.trim() === "") return undefined;
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Error(`${name} must be JSON: ${(error as Error).message}`);
  }
}

/** As chats have it, or as responses do. */
function flatTool(tool: unknown): unknown {
  const { type, function: nested } = tool as { type?: string; function?: object };
  return nested === undefined ? tool : { type, ...nested };
}
