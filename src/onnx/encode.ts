/**
 * An ONNX graph as the bytes of a ModelProto. Tensors too large to stand in it go to an
 * `ExternalData` file. Field numbers are those of onnx.proto.
 */
import type { ExternalData, Placement } from "./external-data.ts";
import { type Attribute, type Dimension, type Graph, MAX_INLINE_BYTES, type Node, type Port } from "./graph.ts";
import { MessageWriter } from "./protobuf.ts";
import { DATA_TYPE_CODES, type Tensor, tensorByteLength } from "./tensor.ts";

const IR_VERSION = 10;
const EXTERNAL = 1;
const ATTRIBUTE_CODES = { float: 1, int: 2, string: 3, tensor: 4, graph: 5, ints: 7 } as const;

export interface Opset {
  readonly domain: string;
  readonly version: number;
}

/**
 * Places the graph's large initializers in `external`, in their order, then returns the ModelProto
 * that points to them. `onTensor` is told after each. Initializers of bodies stay inside the file
 * and should be small.
 */
export async function encodeModel(
  graph: Graph,
  options: {
    readonly opsets: readonly Opset[];
    readonly producer: { readonly name: string; readonly version: string };
    readonly external: ExternalData;
    readonly onTensor?: () => void;
  },
): Promise<Uint8Array> {
  const placements = new Map<Tensor, Placement>();
  for (const { tensor, value } of graph.initializers) {
    if (tensorByteLength(tensor) <= MAX_INLINE_BYTES) continue;
    placements.set(tensor, await options.external.place(tensor.storage ?? value.name, tensor));
    options.onTensor?.();
  }
  const place = (tensor: Tensor) => placements.get(tensor);
  const model = new MessageWriter()
    .int(1, IR_VERSION)
    .string(2, options.producer.name)
    .string(3, options.producer.version)
    .message(7, (message) => writeGraph(message, graph, place));
  for (const { domain, version } of options.opsets) {
    model.message(8, (opset) => opset.string(1, domain).int(2, version));
  }
  return model.finish();
}

type Place = (tensor: Tensor) => Placement | undefined;

function writeGraph(message: MessageWriter, graph: Graph, place: Place): void {
  for (const node of graph.nodes) message.message(1, (writer) => writeNode(writer, node, place));
  message.string(2, graph.name);
  for (const { value, tensor } of graph.initializers) {
    message.message(5, (writer) => writeTensor(writer, tensor, value.name, place));
  }
  for (const port of graph.inputs) message.message(11, (writer) => writePort(writer, port));
  for (const port of graph.outputs) message.message(12, (writer) => writePort(writer, port));
  for (const port of graph.declared) message.message(13, (writer) => writePort(writer, port));
}

function writeNode(message: MessageWriter, node: Node, place: Place): void {
  for (const input of node.inputs) message.string(1, input?.name ?? "");
  for (const output of node.outputs) message.string(2, output.name);
  message.string(3, node.name).string(4, node.opType);
  for (const [name, attribute] of node.attributes) {
    message.message(5, (writer) => writeAttribute(writer, name, attribute, place));
  }
  if (node.domain !== "") message.string(7, node.domain);
}

function writeAttribute(message: MessageWriter, name: string, attribute: Attribute, place: Place): void {
  message.string(1, name).int(20, ATTRIBUTE_CODES[attribute.type]);
  switch (attribute.type) {
    case "float":
      message.float(2, attribute.value);
      break;
    case "int":
      message.int(3, attribute.value);
      break;
    case "string":
      message.string(4, attribute.value);
      break;
    case "tensor":
      message.message(5, (writer) => writeTensor(writer, attribute.value, "", place));
      break;
    case "graph":
      message.message(6, (writer) => writeGraph(writer, attribute.value, place));
      break;
    case "ints":
      for (const value of attribute.value) message.int(8, value);
      break;
  }
}

function writeTensor(message: MessageWriter, tensor: Tensor, name: string, place: Place): void {
  for (const size of tensor.shape) message.int(1, size);
  message.int(2, DATA_TYPE_CODES[tensor.dtype]);
  if (name !== "") message.string(8, name);
  const placement = place(tensor);
  if (placement === undefined) {
    message.bytes(9, Buffer.concat([...tensor.chunks()]));
    return;
  }
  for (const [key, value] of Object.entries(placement)) {
    message.message(13, (entry) => entry.string(1, key).string(2, String(value)));
  }
  message.int(14, EXTERNAL);
}

/** Without a shape it is unknown, number of dimensions included. */
function writePort(message: MessageWriter, { value, dtype, shape }: Omit<Port, "shape"> & Partial<Port>): void {
  message.string(1, value.name).message(2, (type) =>
    type.message(1, (tensorType) => {
      tensorType.int(1, DATA_TYPE_CODES[dtype]);
      if (shape === undefined) return;
      tensorType.message(2, (dims) => {
        for (const dimension of shape) dims.message(1, (writer) => writeDimension(writer, dimension));
      });
    }),
  );
}

function writeDimension(message: MessageWriter, dimension: Dimension): void {
  if (typeof dimension === "number") message.int(1, dimension);
  else message.string(2, dimension);
}
