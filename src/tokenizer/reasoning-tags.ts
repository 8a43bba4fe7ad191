/**
 * The tags around what a model thinks before it answers. Models are trained on one pair; chat
 * templates show which.
 */

export interface ReasoningTags {
  readonly open: string;
  readonly close: string;
}

/** A tag that begins like another one comes first. */
const TAGS = {
  thinking: { open: "<thinking>", close: "</thinking>" },
  think: { open: "<think>", close: "</think>" },
  mistral: { open: "[THINK]", close: "[/THINK]" },
  cohere: { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
} as const satisfies Record<string, ReasoningTags>;

/**
 * `auto`: the tags that the chat template has, if it has any. `off`: text in tags is text like any
 * other.
 */
export type ReasoningFormat = "auto" | "off" | keyof typeof TAGS;

export function findReasoningTags(format: ReasoningFormat, template: string): ReasoningTags | undefined {
  if (format === "off") return undefined;
  if (format !== "auto") return TAGS[format];
  // NOTE: a template may leave its opening tag open, as RWKV's do.
  return Object.values(TAGS).find(({ open, close }) => {
    return template.includes(open.slice(0, -1)) || template.includes(close);
  });
}
