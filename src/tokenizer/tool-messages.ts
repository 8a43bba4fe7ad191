/**
 * Tools, calls and results as chat templates take them, and as plain text for templates that know
 * none of them.
 */
import { type ToolFormat, writeCalls } from "./tool-formats.ts";

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** JSON Schema. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON, as the model wrote it. */
  readonly arguments: string;
}

interface Message {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
  readonly toolCalls?: readonly ToolCall[];
}

/** As transformers hands them. */
export function toolVariables(tools: readonly ToolDefinition[]): readonly object[] {
  return tools.map(({ name, description, parameters }) => ({
    type: "function",
    function: { name, ...(description !== undefined && { description }), parameters },
  }));
}

/** With their arguments as objects, as in transformers and vLLM. */
export function callVariables(calls: readonly ToolCall[]): readonly object[] {
  return calls.map(({ id, name, arguments: json }) => {
    return { id, type: "function", function: { name, arguments: parsed(json) } };
  });
}

/** Of a call that was cut off the text is all there is. */
function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return json;
  }
}

/** Calls as models write them; results as messages of the user. */
export function asPlainMessages(messages: readonly Message[], format: ToolFormat): readonly Message[] {
  return messages.map((message): Message => {
    const { toolCalls, ...others } = message;
    if (message.role === "tool") {
      const { name, content } = message;
      return { role: "user", content: `Result of the tool${name === undefined ? "" : ` ${name}`}:\n${content}` };
    }
    if (toolCalls === undefined || toolCalls.length === 0) return message;
    const written = writeCalls(format, toolCalls);
    return { ...others, content: message.content === "" ? written : `${message.content}\n${written}` };
  });
}

/** Adds the tools and how to call them to the system message. */
export function describeTools(
  messages: readonly Message[],
  tools: readonly ToolDefinition[],
  format: ToolFormat,
): readonly Message[] {
  const example = writeCalls(format, [{ name: "NAME", arguments: "{ARGUMENTS}" }]);
  const description = [
    "You can call these tools:",
    ...tools.map(({ name, description, parameters }) => JSON.stringify({ name, description, parameters })),
    "To call one, answer with its name and with arguments that match its parameters, in this form and without other text:",
    example,
    "The next message has the result.",
  ].join("\n");
  const [first, ...others] = messages;
  if (first?.role !== "system") return [{ role: "system", content: description }, ...messages];
  return [{ ...first, content: first.content === "" ? description : `${first.content}\n\n${description}` }, ...others];
}
