/**
 * How models write calls of tools. Each model is trained on one format; chat templates show which.
 * Knows no parsing: `generation/tool-calls.ts` reads what is written here.
 */

export interface ToolFormat {
  /** Before the calls, before each call's arguments, after them, between calls, after all. */
  readonly begin: string;
  readonly call: (name: string) => { readonly begin: string; readonly end: string };
  readonly separator: string;
  readonly end: string;
  /** Begins calls, wherever it is in an answer. */
  readonly open: string | undefined;
  /** Calls may begin without it too: they are JSON at the start of a line. */
  readonly isBare: boolean;
  /** Ends a call that `open` began, unless something else follows it. */
  readonly close: string | undefined;
  /** What may stand between name and arguments of a call that is not one JSON object. */
  readonly marks: readonly string[];
  /** An answer has no more than one call: templates cannot show several. */
  readonly isSingle: boolean;
  /** Templates take only ids of nine letters and digits. */
  readonly hasShortIds: boolean;
}

const JSON_CALL = {
  begin: "",
  call: (name) => ({ begin: `{"name": "${name}", "arguments": `, end: "}" }),
  separator: "\n",
  end: "",
  open: undefined,
  isBare: true,
  close: undefined,
  marks: [],
  isSingle: false,
  hasShortIds: false,
} as const satisfies ToolFormat;

const MISTRAL_MARKS = ["[CALL_ID]", "[ARGS]"];

const FORMATS = {
  /** Also Qwen's. */
  hermes: {
    ...JSON_CALL,
    call: (name) => ({ begin: `<tool_call>\n{"name": "${name}", "arguments": `, end: "}\n</tool_call>" }),
    open: "<tool_call>",
    isBare: false,
    close: "</tool_call>",
  },
  /** With or without the tag. */
  llama3_json: {
    ...JSON_CALL,
    call: (name) => ({ begin: `{"name": "${name}", "parameters": `, end: "}" }),
    open: "<|python_tag|>",
    isSingle: true,
  },
  /** A list until 2024. */
  mistral: {
    ...JSON_CALL,
    begin: "[TOOL_CALLS] [",
    separator: ", ",
    end: "]",
    open: "[TOOL_CALLS]",
    isBare: false,
    marks: MISTRAL_MARKS,
    hasShortIds: true,
  },
  /** For templates that know no tools. */
  json: JSON_CALL,
} as const satisfies Record<string, ToolFormat>;

/** Mistral's since 2025. */
const NAMED_CALLS: ToolFormat = {
  ...FORMATS.mistral,
  begin: "",
  call: (name) => ({ begin: `[TOOL_CALLS]${name}[ARGS]`, end: "" }),
  separator: "",
  end: "",
};

/** vLLM's names. `auto`: the format that the chat template shows, or `json`. */
export type ToolFormatName = "auto" | keyof typeof FORMATS;

export function findToolFormat(name: ToolFormatName, template: string): ToolFormat {
  const found = name === "auto" ? nameIn(template) : name;
  return found === "mistral" && template.includes("[ARGS]") ? NAMED_CALLS : FORMATS[found];
}

function nameIn(template: string): keyof typeof FORMATS {
  if (template.includes(FORMATS.mistral.open)) return "mistral";
  if (template.includes(FORMATS.hermes.open)) return "hermes";
  // Its tag is for other tools; not every template has it.
  const isLlama = template.includes(FORMATS.llama3_json.open) || /\\?"parameters\\?": /.test(template);
  return isLlama ? "llama3_json" : "json";
}

/** Whether a template shows tools to the model, and calls in messages. */
export function knowsTools(template: string): boolean {
  return /\btools\b/.test(template);
}

export function knowsCalls(template: string): boolean {
  return /\btool_calls\b/.test(template);
}

/** @param calls with their arguments as JSON */
export function writeCalls(
  format: ToolFormat,
  calls: readonly { readonly name: string; readonly arguments: string }[],
): string {
  const written = calls.map((call) => {
    const { begin, end } = format.call(call.name);
    return begin + call.arguments + end;
  });
  return format.begin + written.join(format.separator) + format.end;
}
